//! Epochs, leases and rescues: whoever lost a job writes nothing more.

use super::*;
use keywright_entities::types::WaitingFor;
use keywright_jobs::queue::{Lease, Renewer};
use keywright_tests::{database::TestDatabase, on_both_databases};
use sea_orm::DbBackend;
use std::{sync::Arc, time::Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

on_both_databases!(
    a_stale_epoch_writes_nothing_while_the_job_runs_again,
    only_a_lapsed_lease_is_rescued,
    a_rescue_finds_the_job_changed_since_it_looked,
    the_third_lost_worker_is_the_last,
    a_worker_holds_one_last_chance_at_a_time,
    a_retry_counts_an_attempt_and_waits,
    a_snooze_and_a_give_back_cost_no_attempt,
    a_waiting_job_past_its_deadline_fails,
    a_renewal_hears_of_loss_and_cancellation,
    a_renewal_does_not_wait_for_a_locked_row,
);

async fn a_stale_epoch_writes_nothing_while_the_job_runs_again(test: TestDatabase) {
    let db = &test.database;
    put(db, probe()).await;
    let first = take_one(db).await;
    lapse(db, first.id).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    let second = take_one(db).await;
    assert_eq!((second.id, second.state, second.epoch), (first.id, JobState::Running, first.epoch + 2));
    for outcome in [
        success(),
        failure("late"),
        Outcome::GivenBack,
        Outcome::Retry { reason: reason("late"), after: Duration::ZERO },
        Outcome::Snooze { waiting_for: WaitingFor::Snooze, after: Duration::ZERO },
        Outcome::FannedOut(vec![probe().child_of(first.id)]),
        Outcome::Ended { state: JobState::Canceled, reason: None },
    ] {
        assert!(!finish(db, &held(&first), outcome.clone()).await, "{outcome:?} was written by a lost attempt");
        assert_eq!(read(db, first.id).await, second, "{outcome:?}");
    }
    assert_eq!(job::Entity::find().count(db.reader()).await.unwrap(), 1, "no child of a lost attempt");
    assert!(finish(db, &held(&second), success()).await);
    assert!(!finish(db, &held(&second), success()).await, "an end is recorded once");
    let ended = read(db, first.id).await;
    assert_eq!((ended.state, ended.attempt, ended.rescues), (JobState::Succeeded, 1, 1));
    assert_eq!(ends(db, first.id).await, 1);
}

async fn only_a_lapsed_lease_is_rescued(test: TestDatabase) {
    let db = &test.database;
    for _ in 0..2 {
        put(db, probe()).await;
    }
    let jobs = take(db, 2).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 0);
    lapse(db, jobs[0].id).await;
    assert_eq!(claim::rescue(db).await.unwrap(), 1);
    let rescued = read(db, jobs[0].id).await;
    assert_eq!((rescued.state, rescued.attempt, rescued.rescues), (JobState::Queued, 0, 1));
    assert_eq!((rescued.lease_until, rescued.worker_id), (None, None));
    assert!(rescued.due_at.is_some() && rescued.epoch > jobs[0].epoch && rescued.version > jobs[0].version);
    assert_eq!(read(db, jobs[1].id).await, jobs[1], "the other is as it was");
}

async fn a_rescue_finds_the_job_changed_since_it_looked(test: TestDatabase) {
    let db = &test.database;
    for gap in ["completed", "given back", "claimed again", "renewed"] {
        put(db, probe()).await;
        let claimed = take_one(db).await;
        lapse(db, claimed.id).await;
        let looked = read(db, claimed.id).await;
        match gap {
            "completed" => assert!(finish(db, &held(&claimed), success()).await),
            "renewed" => change(db, claimed.id, &format!("lease_until = {}", clock::sql(db.backend(), 60_000))).await,
            _ => {
                assert!(finish(db, &held(&claimed), Outcome::GivenBack).await);
                if gap == "claimed again" {
                    take_one(db).await;
                }
            }
        }
        let before = read(db, claimed.id).await;
        let write = db.begin().await.unwrap();
        claim::take_back(&*write, &looked).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(read(db, claimed.id).await, before, "{gap}");
        change(db, claimed.id, "due_at = NULL").await;
    }
}

async fn the_third_lost_worker_is_the_last(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    for rescues in 1..=3 {
        let attempt = take_one(db).await;
        assert_eq!(attempt.attempt, 1, "a lost worker costs no attempt");
        lapse(db, id).await;
        assert_eq!(claim::rescue(db).await.unwrap(), 1);
        assert_eq!(read(db, id).await.rescues, rescues);
    }
    let ended = read(db, id).await;
    assert_eq!((ended.state, ended.error_code.as_deref()), (JobState::Failed, Some("worker_lost")));
    assert_eq!(take(db, 10).await, []);
    assert_eq!(ends(db, id).await, 1);
}

async fn a_worker_holds_one_last_chance_at_a_time(test: TestDatabase) {
    let db = &test.database;
    let mut ids = Vec::new();
    for rescues in [2, 2, 2, 1, 0] {
        let job = put(db, probe()).await;
        change(db, job.id, &format!("rescues = {rescues}")).await;
        ids.push(job.id);
    }
    let (here, there) = (worker(&[]), worker(&[]));
    let claim = async |by: &Capability| claim::claim(db, by, 10).await.unwrap();
    let mut taken = claim(&here).await;
    taken.sort_by_key(|job| ids.iter().position(|id| *id == job.id));
    assert_eq!(taken.iter().map(|job| job.rescues).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(claim(&here).await, [], "it holds one");
    let other = claim(&there).await;
    assert_eq!(other.iter().map(|job| job.rescues).collect::<Vec<_>>(), [2], "another worker takes another");
    assert!(finish(db, &held(&taken[0]), success()).await);
    let next = claim(&here).await;
    assert_eq!((next.len(), next[0].rescues), (1, 2));
}

async fn a_retry_counts_an_attempt_and_waits(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    for attempt in 1..=3 {
        let job = take_one(db).await;
        assert_eq!(job.attempt, attempt);
        let before = clock::now(db.reader()).await.unwrap();
        let retry = Outcome::Retry { reason: reason("throttled"), after: Duration::from_secs(30) };
        assert!(finish(db, &held(&job), retry).await);
        let waiting = read(db, id).await;
        assert_eq!((waiting.state, waiting.waiting_for), (JobState::Waiting, Some(WaitingFor::Retry)));
        assert_eq!((waiting.attempt, waiting.error_code.as_deref()), (attempt, Some("throttled")));
        assert!(waiting.due_at.unwrap() >= before + chrono::Duration::seconds(30));
        assert_eq!(take(db, 10).await, [], "not before its time");
        make_due(db, id).await;
    }
    let last = take_one(db).await;
    assert!(finish(db, &held(&last), success()).await);
    let ended = read(db, id).await;
    assert_eq!((ended.attempt, ended.error_code), (4, None), "a success shows no error");
}

async fn a_snooze_and_a_give_back_cost_no_attempt(test: TestDatabase) {
    let db = &test.database;
    let id = put(db, probe()).await.id;
    let mut epoch = 0;
    for outcome in
        [Outcome::GivenBack, Outcome::Snooze { waiting_for: WaitingFor::Snooze, after: Duration::from_secs(9) }]
    {
        let job = take_one(db).await;
        assert_eq!(job.attempt, 1);
        assert!(job.epoch > epoch);
        epoch = job.epoch;
        assert!(finish(db, &held(&job), outcome).await);
        let back = read(db, id).await;
        assert_eq!((back.attempt, back.rescues, back.lease_until), (0, 0, None));
        assert!(back.epoch > epoch);
        make_due(db, id).await;
    }
    let waiting = read(db, id).await;
    assert_eq!((waiting.state, waiting.waiting_for), (JobState::Waiting, Some(WaitingFor::Snooze)));
}

async fn a_waiting_job_past_its_deadline_fails(test: TestDatabase) {
    let db = &test.database;
    let (late, running, fresh) = (put(db, probe()).await, put(db, probe()).await, put(db, probe()).await);
    let past = clock::sql(db.backend(), -1000);
    take(db, 3).await;
    for job in [&late, &fresh] {
        let job = read(db, job.id).await;
        assert!(finish(db, &held(&job), Outcome::GivenBack).await);
    }
    for job in [&late, &running] {
        change(db, job.id, &format!("deadline_at = {past}")).await;
    }
    assert_eq!(claim::expire(db).await.unwrap(), 1);
    let ended = read(db, late.id).await;
    assert_eq!((ended.state, ended.error_code.as_deref()), (JobState::Failed, Some("deadline_exceeded")));
    assert_eq!(read(db, running.id).await.state, JobState::Running, "its own attempt ends it");
    assert_eq!(read(db, fresh.id).await.state, JobState::Queued);
    assert_eq!(claim::expire(db).await.unwrap(), 0);
}

fn lease(job: &job::Model) -> Arc<Lease> {
    Lease::new(job, Instant::now(), Duration::from_secs(60), CancellationToken::new())
}

async fn a_renewal_hears_of_loss_and_cancellation(test: TestDatabase) {
    let db = &test.database;
    for _ in 0..3 {
        put(db, probe()).await;
    }
    let jobs = take(db, 3).await;
    let leases: Vec<_> = jobs.iter().map(lease).collect();
    let renewer = Renewer::new(Duration::from_secs(120), Arc::new(Notify::new()));
    for lease in &leases {
        renewer.hold(lease);
    }
    lapse(db, jobs[0].id).await;
    claim::rescue(db).await.unwrap();
    let write = db.begin().await.unwrap();
    keywright_jobs::queue::control::cancel(&*write, jobs[1].id).await.unwrap();
    write.commit().await.unwrap();
    assert!(renewer.renew(db).await.unwrap());
    use keywright_jobs::provider::{Pass, Stopped};
    assert_eq!(leases[0].pass().await, Err(Stopped::LeaseLost));
    assert_eq!(leases[1].pass().await, Err(Stopped::Canceled));
    assert_eq!(leases[1].certain().await, Ok(()), "a canceled attempt still writes its end");
    assert_eq!(leases[2].pass().await, Ok(()));
    for (job, renewed) in [(&jobs[0], false), (&jobs[1], true), (&jobs[2], true)] {
        let now = read(db, job.id).await;
        assert_eq!(now.lease_until > job.lease_until, renewed, "{now:?}");
    }
}

/// On SQLite nothing locks rows.
async fn a_renewal_does_not_wait_for_a_locked_row(test: TestDatabase) {
    let db = &test.database;
    if db.backend() == DbBackend::Sqlite {
        return;
    }
    for _ in 0..2 {
        put(db, probe()).await;
    }
    let jobs = take(db, 2).await;
    let leases: Vec<_> = jobs.iter().map(lease).collect();
    let renewer = Renewer::new(Duration::from_secs(120), Arc::new(Notify::new()));
    for lease in &leases {
        renewer.hold(lease);
    }
    let write = db.begin().await.unwrap();
    let lock = clock::statement(db.backend(), "SELECT 1 FROM job WHERE id = $1 FOR UPDATE", [jobs[0].id.into()]);
    write.query_one_raw(lock).await.unwrap();
    assert!(!renewer.renew(db).await.unwrap(), "one is to be tried again");
    assert_eq!(leases[0].certain().await, Ok(()), "and is not lost");
    assert_eq!(read(db, jobs[0].id).await.lease_until, jobs[0].lease_until);
    assert!(read(db, jobs[1].id).await.lease_until > jobs[1].lease_until, "the other did not wait");
    write.rollback().await.unwrap();
    assert!(renewer.renew(db).await.unwrap());
    assert!(read(db, jobs[0].id).await.lease_until > jobs[0].lease_until);
}
