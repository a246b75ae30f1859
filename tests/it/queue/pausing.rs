//! A paused job rests, whatever it was doing, until it is resumed.

use super::{family::family, *};
use keywright_entities::types::WaitingFor;
use keywright_jobs::queue::control::{self, Steered};
use keywright_tests::{database::TestDatabase, on_both_databases};

on_both_databases!(
    a_queued_job_rests_and_goes_on,
    a_running_job_rests_when_its_attempt_lets_go,
    what_was_due_later_is_still_due_later,
    the_deadline_moves_by_the_time_of_rest,
    a_paused_job_is_canceled_at_once,
    a_parent_rests_with_its_children,
    a_parent_that_is_paused_while_it_fans_out_rests,
    a_lost_worker_s_paused_job_rests,
    what_has_ended_is_not_steered,
);

async fn steer(db: &Database, id: Uuid, rest: bool) -> Steered {
    let write = db.begin().await.unwrap();
    let steered = if rest { control::pause(&*write, id).await } else { control::resume(&*write, id).await };
    write.commit().await.unwrap();
    steered.unwrap()
}

async fn pause(db: &Database, id: Uuid) -> job::Model {
    match steer(db, id, true).await {
        Steered::Accepted(job) => job,
        other => panic!("{other:?}"),
    }
}

async fn resume(db: &Database, id: Uuid) -> job::Model {
    match steer(db, id, false).await {
        Steered::Accepted(job) => job,
        other => panic!("{other:?}"),
    }
}

fn rests(job: &job::Model) -> bool {
    (job.state, job.waiting_for, job.due_at, job.lease_until)
        == (JobState::Waiting, Some(WaitingFor::Pause), None, None)
}

async fn a_queued_job_rests_and_goes_on(test: TestDatabase) {
    let db = &test.database;
    let queued = put(db, probe()).await;
    let paused = pause(db, queued.id).await;
    assert!(rests(&paused) && paused.version > queued.version, "{paused:?}");
    assert_eq!(take(db, 10).await, []);
    assert_eq!(claim::expire(db).await.unwrap(), 0);
    assert_eq!(steer(db, queued.id, true).await, Steered::Already(paused), "asking again changes nothing");
    let resumed = resume(db, queued.id).await;
    assert_eq!((resumed.state, resumed.waiting_for, resumed.paused_at), (JobState::Queued, None, None));
    assert!(matches!(steer(db, queued.id, false).await, Steered::Already(_)));
    let running = take_one(db).await;
    assert_eq!((running.id, running.attempt), (queued.id, 1));
    assert_eq!(steer(db, ids::new(), true).await, Steered::NotFound);
}

async fn a_running_job_rests_when_its_attempt_lets_go(test: TestDatabase) {
    let db = &test.database;
    for (outcome, attempt) in [
        (Outcome::GivenBack, 0),
        (Outcome::Retry { reason: reason("throttled"), after: Duration::ZERO }, 1),
        (Outcome::Snooze { waiting_for: WaitingFor::Quota, after: Duration::from_secs(60) }, 0),
    ] {
        let id = put(db, probe()).await.id;
        let running = take_one(db).await;
        let told = pause(db, id).await;
        assert_eq!((told.state, told.epoch), (JobState::Running, running.epoch), "its attempt still holds it");
        assert!(finish(db, &held(&running), outcome).await);
        let resting = read(db, id).await;
        assert!(rests(&resting), "{resting:?}");
        assert_eq!(resting.attempt, attempt);
        assert_eq!(take(db, 10).await, []);
        resume(db, id).await;
        make_due(db, id).await;
        assert!(finish(db, &held(&take_one(db).await), success()).await);
    }
    let id = put(db, probe()).await.id;
    let running = take_one(db).await;
    pause(db, id).await;
    assert!(finish(db, &held(&running), success()).await, "it came to its end before it could rest");
    assert_eq!((read(db, id).await.state, read(db, id).await.paused_at), (JobState::Succeeded, None));
}

async fn what_was_due_later_is_still_due_later(test: TestDatabase) {
    let db = &test.database;
    let hour = chrono::Duration::hours(1);
    let at = clock::now(db.reader()).await.unwrap() + hour;
    let id = put(db, probe().not_before(Some(at))).await.id;
    pause(db, id).await;
    let resumed = resume(db, id).await;
    assert_eq!((resumed.state, resumed.due_at), (JobState::Queued, Some(at)));
    assert_eq!(take(db, 10).await, []);
    let retried = put(db, probe()).await.id;
    let retry = Outcome::Retry { reason: reason("throttled"), after: Duration::from_secs(3600) };
    assert!(finish(db, &held(&take_one(db).await), retry).await);
    pause(db, retried).await;
    let resumed = resume(db, retried).await;
    assert_eq!((resumed.state, resumed.waiting_for), (JobState::Waiting, Some(WaitingFor::Retry)));
    assert_eq!(take(db, 10).await, []);
}

async fn the_deadline_moves_by_the_time_of_rest(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    let running = take_one(db).await;
    assert!(finish(db, &held(&running), Outcome::GivenBack).await);
    pause(db, id).await;
    // it rested for two hours, with one hour to go
    let past = clock::sql(db.backend(), -7_200_000);
    let late = clock::sql(db.backend(), -3_600_000);
    change(db, id, &format!("paused_at = {past}, deadline_at = {late}")).await;
    let now = clock::now(db.reader()).await.unwrap();
    let deadline = resume(db, id).await.deadline_at.unwrap();
    let left = (deadline - now).num_seconds();
    assert!((3590..3700).contains(&left), "{left} s are left");
    assert_eq!(claim::expire(db).await.unwrap(), 0);
}

async fn a_paused_job_is_canceled_at_once(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    pause(db, id).await;
    let write = db.begin().await.unwrap();
    control::cancel(&*write, id).await.unwrap();
    write.commit().await.unwrap();
    let canceled = read(db, id).await;
    assert_eq!((canceled.state, canceled.paused_at, canceled.resume_at), (JobState::Canceled, None, None));
}

async fn a_parent_rests_with_its_children(test: TestDatabase) {
    let db = &test.database;
    let (parent, children) = family(db, 3).await;
    let parent = parent.id;
    let running = take(db, 1).await.remove(0);
    let paused = pause(db, parent).await;
    assert_eq!((paused.state, paused.waiting_for), (JobState::Waiting, Some(WaitingFor::Pause)));
    for child in &children {
        let child = read(db, child.id).await;
        assert_eq!(rests(&child), child.id != running.id, "{child:?}");
    }
    assert_eq!(take(db, 10).await, []);
    assert!(finish(db, &held(&running), Outcome::GivenBack).await);
    assert!(rests(&read(db, running.id).await));
    let resumed = resume(db, parent).await;
    assert_eq!((resumed.state, resumed.waiting_for), (JobState::Running, None));
    for child in take(db, 10).await {
        assert!(finish(db, &held(&child), success()).await);
    }
    assert_eq!(read(db, parent).await.state, JobState::Succeeded);
    assert_eq!(ends(db, parent).await, 1);
}

async fn a_parent_that_is_paused_while_it_fans_out_rests(test: TestDatabase) {
    let db = &test.database;
    let parent = put(db, probe()).await.id;
    let running = take_one(db).await;
    pause(db, parent).await;
    assert!(finish(db, &held(&running), Outcome::FannedOut(vec![probe().child_of(parent)])).await);
    assert_eq!(take(db, 10).await, [], "the children rest too");
    let now = read(db, parent).await;
    assert_eq!((now.state, now.waiting_for), (JobState::Waiting, Some(WaitingFor::Pause)));
    resume(db, parent).await;
    assert!(finish(db, &held(&take_one(db).await), success()).await);
    assert_eq!(read(db, parent).await.state, JobState::Succeeded);
}

async fn a_lost_worker_s_paused_job_rests(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    take_one(db).await;
    pause(db, id).await;
    lapse(db, id).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    let job = read(db, id).await;
    assert!(rests(&job) && job.rescues == 1 && job.attempt == 0, "{job:?}");
    assert_eq!(take(db, 10).await, []);
}

async fn what_has_ended_is_not_steered(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    assert!(finish(db, &held(&take_one(db).await), success()).await);
    let ended = read(db, id).await;
    for rest in [true, false] {
        assert_eq!(steer(db, id, rest).await, Steered::Done(ended.clone()));
    }
    let id = put(db, probe()).await.id;
    take_one(db).await;
    let write = db.begin().await.unwrap();
    control::cancel(&*write, id).await.unwrap();
    write.commit().await.unwrap();
    let told = read(db, id).await;
    assert_eq!(steer(db, id, true).await, Steered::Already(told), "it is ending");
}
