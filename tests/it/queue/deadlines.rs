//! Whatever a job waits for, it ends at its deadline.

use super::{family::family, *};
use keywright_entities::types::WaitingFor;
use keywright_jobs::queue::control;
use keywright_tests::{database::TestDatabase, on_both_databases};

on_both_databases!(
    parts_have_no_more_time_than_their_parent,
    a_parent_past_its_deadline_fails_with_all_its_parts,
    what_ended_in_time_makes_a_late_parent_partial,
    a_part_that_rests_does_not_keep_a_late_parent_open,
    a_job_whose_worker_never_comes_ends,
);

async fn pass_deadline(db: &Database, id: Uuid) {
    change(db, id, &format!("deadline_at = {}", clock::sql(db.backend(), -1000))).await;
}

fn code(job: &job::Model) -> Option<&str> {
    job.error_code.as_deref()
}

async fn parts_have_no_more_time_than_their_parent(test: TestDatabase) {
    let db = &test.database;
    let (parent, children) = family(db, 2).await;
    assert!(parent.deadline_at.is_some());
    assert!(children.iter().all(|child| child.deadline_at == parent.deadline_at));
    let running = take(db, 1).await.remove(0);
    assert_eq!(running.deadline_at, parent.deadline_at, "its own hour would end later");
    let soon = clock::sql(db.backend(), 60_000);
    change(db, running.id, "timeout_seconds = 60").await;
    change(db, running.id, &format!("deadline_at = {soon}")).await;
    assert!(finish(db, &held(&running), Outcome::GivenBack).await);
    let again = take(db, 2).await.into_iter().find(|job| job.id == running.id).unwrap();
    assert!(again.deadline_at < parent.deadline_at, "what was set at the first start stays");
}

async fn a_parent_past_its_deadline_fails_with_all_its_parts(test: TestDatabase) {
    let db = &test.database;
    let parent = put(db, probe()).await;
    let attempt = take_one(db).await;
    // it passes between the fan-out and the start of the parts
    pass_deadline(db, parent.id).await;
    let parts = (0..3).map(|_| probe().child_of(parent.id)).collect();
    assert!(finish(db, &held(&attempt), Outcome::FannedOut(parts)).await);
    assert_eq!(claim::expire(db).await.unwrap(), 3);
    for job in job::children(db.reader(), parent.id).await.unwrap().iter().chain([&read(db, parent.id).await]) {
        assert_eq!((job.state, code(job)), (JobState::Failed, Some("deadline_exceeded")), "{job:?}");
    }
    assert_eq!(ends(db, parent.id).await, 1);
}

async fn what_ended_in_time_makes_a_late_parent_partial(test: TestDatabase) {
    let db = &test.database;
    let (parent, children) = family(db, 3).await;
    let in_time = take(db, 1).await.remove(0);
    assert!(finish(db, &held(&in_time), success()).await);
    pass_deadline(db, parent.id).await;
    for child in &children {
        pass_deadline(db, child.id).await;
    }
    claim::expire(db).await.unwrap();
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, code(&ended)), (JobState::Partial, Some("deadline_exceeded")));
    assert_eq!((ended.children_succeeded, ended.children_failed), (1, 2));
}

async fn a_part_that_rests_does_not_keep_a_late_parent_open(test: TestDatabase) {
    let db = &test.database;
    let (parent, children) = family(db, 1).await;
    let write = db.begin().await.unwrap();
    control::pause(&*write, children[0].id).await.unwrap();
    write.commit().await.unwrap();
    claim::expire(db).await.unwrap();
    assert_eq!(read(db, children[0].id).await.waiting_for, Some(WaitingFor::Pause), "there is time");
    pass_deadline(db, parent.id).await;
    claim::expire(db).await.unwrap();
    let ended = read(db, parent.id).await;
    assert_eq!((ended.state, code(&ended)), (JobState::Failed, Some("deadline_exceeded")));
    // of a parent that rests itself, the time of rest does not count
    let (resting, _) = family(db, 1).await;
    let write = db.begin().await.unwrap();
    control::pause(&*write, resting.id).await.unwrap();
    write.commit().await.unwrap();
    pass_deadline(db, resting.id).await;
    claim::expire(db).await.unwrap();
    assert_eq!(read(db, resting.id).await.state, JobState::Waiting);
}

async fn a_job_whose_worker_never_comes_ends(test: TestDatabase) {
    let db = &test.database;
    let bound = || probe().on_workers(Some("nowhere".to_owned()));
    let (lost, found) = (put(db, bound()).await, put(db, bound()).await);
    assert_eq!((lost.state, lost.waiting_for), (JobState::Waiting, Some(WaitingFor::Worker)));
    assert_eq!(lost.deadline_at.unwrap() - lost.run_at, chrono::Duration::seconds(3600));
    let later = clock::now(db.reader()).await.unwrap() + chrono::Duration::hours(2);
    let for_later = put(db, bound().not_before(Some(later))).await;
    assert_eq!((for_later.deadline_at.unwrap() - later).num_seconds(), 3600, "the wait begins when it is due");
    assert_eq!(put(db, probe()).await.deadline_at, None, "any worker will do");
    let soon = clock::sql(db.backend(), 60_000);
    change(db, found.id, &format!("deadline_at = {soon}")).await;
    let here = worker(&["nowhere"]);
    let taken = claim::claim(db, &Capability { labels: here.labels, ..worker(&[]) }, 10).await.unwrap();
    let running = taken.iter().find(|job| job.id == found.id).unwrap();
    assert_eq!(running.deadline_at.unwrap() - running.started_at.unwrap(), chrono::Duration::seconds(3600));
    let lost = put(db, bound()).await;
    pass_deadline(db, lost.id).await;
    claim::expire(db).await.unwrap();
    let ended = read(db, lost.id).await;
    assert_eq!((ended.state, code(&ended)), (JobState::Failed, Some("deadline_exceeded")));
    assert!(ended.error_detail.unwrap().contains("label nowhere"));
}
