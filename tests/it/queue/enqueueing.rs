//! A job is there with its cause or not at all.

use super::*;
use keywright_tests::{database::TestDatabase, on_both_databases};

on_both_databases!(
    a_rolled_back_transaction_leaves_nothing,
    a_unique_key_joins_while_open_and_is_free_after_the_end,
    one_of_many_at_once_gets_the_unique_key,
);

async fn a_rolled_back_transaction_leaves_nothing(test: TestDatabase) {
    let db = &test.database;
    let write = db.begin().await.unwrap();
    put_into(&*write, &probe()).await.unwrap();
    write.rollback().await.unwrap();
    let write = db.begin().await.unwrap();
    put_into(&*write, &probe()).await.unwrap();
    drop(write);
    assert_eq!(take(db, 10).await, []);
    assert_eq!(job::Entity::find().count(db.reader()).await.unwrap(), 0);
}

async fn a_unique_key_joins_while_open_and_is_free_after_the_end(test: TestDatabase) {
    let db = &test.database;
    let first = put(db, probe().unique("same".to_owned())).await;
    let again = async || {
        let write = db.begin().await.unwrap();
        let enqueued = put_into(&*write, &probe().unique("same".to_owned())).await.unwrap();
        write.commit().await.unwrap();
        enqueued
    };
    assert_eq!(again().await, Enqueued::Open(first.clone()), "while it is queued");
    let running = take_one(db).await;
    assert_eq!(again().await, Enqueued::Open(running.clone()), "while it runs");
    assert!(finish(db, &held(&running), success()).await);
    let Enqueued::New(second) = again().await else { panic!("the key is still taken after the end") };
    assert_ne!(second.id, first.id);
    put(db, probe().unique("another".to_owned())).await;
    put(db, probe()).await;
    put(db, probe()).await;
}

async fn one_of_many_at_once_gets_the_unique_key(test: TestDatabase) {
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let db = test.database.clone();
        asked.spawn(async move {
            let write = db.begin().await.unwrap();
            let enqueued = put_into(&*write, &probe().unique("same".to_owned())).await.unwrap();
            write.commit().await.unwrap();
            match enqueued {
                Enqueued::New(job) => (true, job.id),
                Enqueued::Open(job) => (false, job.id),
            }
        });
    }
    let answers = asked.join_all().await;
    assert_eq!(answers.iter().filter(|(new, _)| *new).count(), 1);
    assert!(answers.iter().all(|(_, id)| *id == answers[0].1), "all were told the same job: {answers:?}");
}
