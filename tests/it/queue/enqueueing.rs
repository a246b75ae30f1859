//! A job is there with its cause or not at all.

use super::*;
use keywright_entities::types::ActorType;
use keywright_tests::{database::TestDatabase, on_both_databases};
use serde_json::json;

on_both_databases!(
    a_rolled_back_transaction_leaves_nothing,
    a_unique_key_joins_while_open_and_is_free_after_the_end,
    one_of_many_at_once_gets_the_unique_key,
    many_of_one_call_are_there_together_and_each_key_once,
    one_of_many_is_written_as_one_by_itself,
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

async fn many_of_one_call_are_there_together_and_each_key_once(test: TestDatabase) {
    let db = &test.database;
    let open = put(db, probe().unique("open".to_owned())).await;
    let reason = Reason { code: "denied".to_owned(), detail: "not allowed".to_owned(), permission: None };
    // more than one statement takes, and more than one key that is taken: by an open job, and by another of the same call
    let mut many: Vec<NewJob> = (0..550).map(|_| probe()).collect();
    many.extend([
        probe().unique("open".to_owned()),
        probe().unique("same".to_owned()),
        probe().unique("same".to_owned()),
    ]);
    many.push(probe().failed_already(reason));
    let write = db.begin().await.unwrap();
    assert_eq!(enqueue_all(&*write, &many).await.unwrap(), 552);
    write.rollback().await.unwrap();
    assert_eq!(job::Entity::find().count(db.reader()).await.unwrap(), 1);
    let write = db.begin().await.unwrap();
    assert_eq!(enqueue_all(&*write, &many).await.unwrap(), 552);
    assert_eq!(enqueue_all(&*write, &[]).await.unwrap(), 0);
    write.commit().await.unwrap();
    let rows = job::Entity::find().all(db.reader()).await.unwrap();
    assert_eq!(rows.len(), 553);
    let ended: Vec<_> = rows.iter().filter(|row| row.completed_at.is_some()).collect();
    assert_eq!(
        ended.iter().map(|row| (row.id, row.error_code.as_deref())).collect::<Vec<_>>(),
        [(many[553].id, Some("denied"))]
    );
    for (row, new) in rows.iter().filter_map(|row| Some((row, many[..550].iter().find(|new| new.id == row.id)?))) {
        assert_eq!(row.created_at, row.due_at.unwrap());
        assert_eq!((&row.kind, row.id), (&open.kind, new.id));
    }
}

async fn one_of_many_is_written_as_one_by_itself(test: TestDatabase) {
    let db = &test.database;
    let parent = put(db, probe()).await;
    let requester = Requester {
        actor: ActorType::User,
        id: Some("u".to_owned()),
        name: Some("Ann \"quoted\" \u{1F511}".to_owned()),
        request_id: Some("r".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    };
    let mut full = NewJob::new(&NewerProbe, requester, Trigger::Retry).unwrap();
    let at = clock::now(db.reader()).await.unwrap() + chrono::TimeDelta::microseconds(3_600_000_001);
    full = full
        .request(json!({"a": [1, null, "\u{e9}"], "b": {}}))
        .priority(-1)
        .lock("lock".to_owned())
        .on_workers(Some("here".to_owned()))
        .of_subscription(ids::new())
        .child_of(parent.id)
        .retrying(parent.id)
        .scope("eu-west-1".to_owned(), "secrets".to_owned())
        .not_before(Some(at));
    for (number, new) in [probe(), full].into_iter().enumerate() {
        let keyed = |key: &str| {
            let mut one = new.clone().unique(format!("{key}-{number}"));
            one.id = ids::new();
            one
        };
        let alone = put(db, keyed("alone")).await;
        let of_many = keyed("many");
        let write = db.begin().await.unwrap();
        assert_eq!(enqueue_all(&*write, std::slice::from_ref(&of_many)).await.unwrap(), 1);
        write.commit().await.unwrap();
        let mut row = read(db, of_many.id).await;
        assert!(row.created_at >= alone.created_at && row.turn.is_some() == alone.turn.is_some());
        assert_eq!((row.unique_key.take(), row.due_at.is_some()), (Some(format!("many-{number}")), true));
        // what differs from one moment to the next
        if number == 0 {
            (row.run_at, row.due_at) = (alone.run_at, alone.due_at);
        }
        let row = job::Model {
            id: alone.id,
            unique_key: alone.unique_key.clone(),
            created_at: alone.created_at,
            turn: alone.turn,
            ..row
        };
        assert_eq!(row, alone);
    }
}
