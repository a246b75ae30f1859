//! A cancel takes effect on what has not ended, whatever it is doing.

use super::{family::family, *};
use keywright_jobs::queue::control::{self, Canceled};
use keywright_tests::{database::TestDatabase, on_both_databases};

on_both_databases!(
    a_queued_job_is_canceled_at_once,
    a_running_job_is_told_and_ends_canceled,
    a_canceled_job_that_comes_to_its_own_end_keeps_it,
    a_canceled_job_whose_worker_is_lost_ends_canceled,
    an_ended_job_is_not_canceled,
    asked_for_again_while_it_is_being_canceled_is_a_new_job,
    a_parent_takes_its_children_with_it,
    a_parent_whose_children_had_ended_keeps_what_they_found,
    a_cancel_meets_a_fan_out,
);

async fn cancel(db: &Database, id: Uuid) -> Canceled {
    loop {
        let write = db.begin().await.unwrap();
        match control::cancel(&*write, id).await {
            Err(error) if is_transient(&error) => {}
            canceled => {
                write.commit().await.unwrap();
                return canceled.unwrap();
            }
        }
    }
}

async fn accepted(db: &Database, id: Uuid) -> job::Model {
    match cancel(db, id).await {
        Canceled::Accepted(job) | Canceled::Already(job) => job,
        other => panic!("{other:?}"),
    }
}

async fn a_queued_job_is_canceled_at_once(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    let canceled = accepted(db, id).await;
    assert_eq!((canceled.state, canceled.due_at, canceled.attempt), (JobState::Canceled, None, 0));
    assert_eq!(canceled, read(db, id).await);
    assert_eq!(take(db, 10).await, []);
    assert_eq!(accepted(db, id).await, canceled, "asking again changes nothing");
    assert_eq!(ends(db, id).await, 1);
    assert_eq!(cancel(db, ids::new()).await, Canceled::NotFound);
}

async fn a_running_job_is_told_and_ends_canceled(test: TestDatabase) {
    let db = &test.database;
    for outcome in [
        Outcome::Ended { state: JobState::Canceled, reason: None },
        Outcome::GivenBack,
        Outcome::Retry { reason: reason("throttled"), after: Duration::ZERO },
        Outcome::FannedOut(vec![probe()]),
    ] {
        let id = put(db, probe()).await.id;
        let running = take_one(db).await;
        let told = accepted(db, id).await;
        assert_eq!((told.state, told.epoch), (JobState::Canceling, running.epoch), "its attempt may still write");
        assert_eq!(accepted(db, id).await, told, "asking again changes nothing");
        assert!(finish(db, &held(&running), outcome.clone()).await);
        let ended = read(db, id).await;
        assert_eq!((ended.state, ended.children_total), (JobState::Canceled, 0), "{outcome:?}");
        assert_eq!(take(db, 10).await, [], "{outcome:?}");
    }
}

async fn a_canceled_job_that_comes_to_its_own_end_keeps_it(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    let running = take_one(db).await;
    accepted(db, id).await;
    assert!(finish(db, &held(&running), success()).await);
    assert_eq!(read(db, id).await.state, JobState::Succeeded);
}

async fn a_canceled_job_whose_worker_is_lost_ends_canceled(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    let running = take_one(db).await;
    accepted(db, id).await;
    lapse(db, id).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    let ended = read(db, id).await;
    assert_eq!((ended.state, ended.rescues), (JobState::Canceled, 1));
    assert!(!finish(db, &held(&running), success()).await);
}

async fn an_ended_job_is_not_canceled(test: TestDatabase) {
    let db = &test.database;
    for end in [success(), failure("broken")] {
        let id = put(db, probe()).await.id;
        let running = take_one(db).await;
        assert!(finish(db, &held(&running), end).await);
        let ended = read(db, id).await;
        assert_eq!(cancel(db, id).await, Canceled::Done(ended.clone()));
        assert_eq!(read(db, id).await, ended);
    }
}

async fn asked_for_again_while_it_is_being_canceled_is_a_new_job(test: TestDatabase) {
    let db = &test.database;
    let unique = || probe().unique("the same".to_owned());
    let again = async || {
        let write = db.begin().await.unwrap();
        let enqueued = put_into(&*write, &unique()).await.unwrap();
        write.commit().await.unwrap();
        enqueued
    };
    let first = put(db, unique()).await.id;
    let running = take_one(db).await;
    assert!(matches!(again().await, Enqueued::Open(job) if job.id == first));
    accepted(db, first).await;
    let Enqueued::New(second) = again().await else { panic!("it joined one that is being canceled") };
    assert!(matches!(again().await, Enqueued::Open(job) if job.id == second.id), "of the new one there is one again");
    assert!(finish(db, &held(&running), Outcome::GivenBack).await);
    assert_eq!(read(db, first).await.state, JobState::Canceled);
    assert_eq!(take_one(db).await.id, second.id);
}

async fn a_parent_takes_its_children_with_it(test: TestDatabase) {
    let db = &test.database;
    let (parent, _) = family(db, 4).await;
    let running = take(db, 2).await;
    assert!(finish(db, &held(&running[0]), success()).await);
    let told = accepted(db, parent.id).await;
    assert_eq!((told.state, told.children_open), (JobState::Canceling, 1), "one is in the middle of a call");
    assert_eq!(take(db, 10).await, [], "the others do not begin");
    assert_eq!(read(db, running[1].id).await.state, JobState::Canceling);
    assert!(finish(db, &held(&running[1]), Outcome::GivenBack).await);
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, ended.children_succeeded, ended.children_canceled), (JobState::Canceled, 1, 3));
    assert_eq!(ends(db, parent.id).await, 1);
    assert_eq!(accepted(db, parent.id).await, ended);
}

async fn a_parent_whose_children_had_ended_keeps_what_they_found(test: TestDatabase) {
    let db = &test.database;
    let (parent, _) = family(db, 2).await;
    let running = take(db, 2).await;
    accepted(db, parent.id).await;
    for child in &running {
        assert!(finish(db, &held(child), success()).await, "it was past its last call");
    }
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, ended.children_succeeded), (JobState::Succeeded, 2), "the cancel took no effect");
}

async fn a_cancel_meets_a_fan_out(test: TestDatabase) {
    let db = &test.database;
    for round in 0..12 {
        let parent = put(db, probe()).await;
        let attempt = take_one(db).await;
        let (canceling, claiming) = (test.another().await, db.clone());
        let children = (0..6).map(|_| probe().child_of(parent.id)).collect();
        let fan_out = async {
            assert!(finish(db, &held(&attempt), Outcome::FannedOut(children)).await);
        };
        let claim_some = async {
            for _ in 0..round % 4 {
                for child in take(&claiming, 2).await {
                    finish(&claiming, &held(&child), Outcome::GivenBack).await;
                }
            }
        };
        tokio::join!(fan_out, accepted(&canceling, parent.id), claim_some);
        let ended = read(db, parent.id).await;
        assert_eq!(ended.state, JobState::Canceled, "round {round}: {ended:?}");
        let open = job::Entity::find().filter(job::Column::CompletedAt.is_null()).count(db.reader()).await.unwrap();
        assert_eq!(open, 0, "round {round}: nothing is left behind");
        assert_eq!(ends(db, parent.id).await, 1, "round {round}");
    }
}
