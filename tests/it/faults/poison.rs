//! Jobs that harm the worker that runs them, and payloads that it cannot read. They fail alone.

use keywright_entities::{clock, job, types::JobState};
use keywright_tests::{
    app::{eventually, job as read},
    database::TestDatabase,
    faults::{
        checker::Allow,
        cloud::{Order, Step},
        double::{Plan, Special},
        trial::Trial,
    },
    on_both_databases,
    process::Process,
};
use sea_orm::ConnectionTrait;
use uuid::Uuid;

on_both_databases!(
    what_kills_its_worker_three_times_is_not_tried_again,
    a_panic_is_the_jobs_own_error,
    what_never_ends_ends_at_its_deadline,
    payloads_that_cannot_be_read_fail_alone_and_newer_ones_wait,
);

/// One slot: what runs beside a job that kills its worker is lost along with it. So is what was claimed ahead, but no job's last
/// chance is lost to another's, so the two kill four workers at least.
const ALONE: (&str, &str) = ("KEYWRIGHT_WORKER_CONCURRENCY", "1");

/// What a supervisor does: whoever is gone is started again, until nothing is left to do.
async fn keep_running(trial: &Trial, mut worker: Process) -> i32 {
    let mut deaths = 0;
    eventually("everything ends", async || {
        if worker.has_ended() {
            deaths += 1;
            worker = trial.start_worker("same", &[ALONE]);
        }
        (trial.open().await == Some(0)).then_some(())
    })
    .await;
    deaths
}

async fn what_kills_its_worker_three_times_is_not_tried_again(test: TestDatabase) {
    let trial = Trial::on("poison", &test.database).await;
    let good = trial.account("good", Plan::default()).await;
    let abort = trial.account("abort", Plan::once(Order::Abort, u32::MAX)).await;
    let exhaust = trial.account("exhaust", Plan::once(Order::Exhaust, u32::MAX)).await;
    let (good, lost) = (trial.scan(good).await, [trial.scan(abort).await, trial.scan(exhaust).await]);
    let worker = trial.worker_with("same", &[ALONE]).await;
    let deaths = keep_running(&trial, worker).await;
    assert!((4..=6).contains(&deaths), "{deaths} workers died of two jobs");
    assert_eq!(read(&trial.db, good).await.state, JobState::Succeeded);
    for scan in lost {
        let [child]: [job::Model; 1] = job::children(trial.db.reader(), scan).await.unwrap().try_into().unwrap();
        let ended = (child.state, child.error_code.as_deref(), child.rescues);
        assert_eq!(ended, (JobState::Failed, Some("worker_lost"), 3), "{child:?}");
    }
    // each took a few along that it had claimed ahead
    trial.judge(&Allow::losses(deaths * 4)).await;
}

async fn a_panic_is_the_jobs_own_error(test: TestDatabase) {
    let trial = Trial::on("panic", &test.database).await;
    let account = trial.account("panic", Plan::once(Order::Panic, 1)).await;
    let scan = trial.scan(account).await;
    let mut worker = trial.worker("first").await;
    eventually("everything ends", async || (trial.open().await == Some(0)).then_some(())).await;
    assert!(!worker.has_ended(), "{}", worker.log());
    assert_eq!(job::children(trial.db.reader(), scan).await.unwrap()[0].attempt, 2);
    trial.judge(&Allow { attempt: 2, repeats: true, ..Allow::NOTHING }).await;
}

async fn what_never_ends_ends_at_its_deadline(test: TestDatabase) {
    let trial = Trial::on("deadline", &test.database).await;
    let hang = Special { step: Step::Scopes, order: Order::Hang, times: u32::MAX };
    let stuck = trial.account("stuck", Plan { special: vec![hang], ..Plan::default() }).await;
    let good = trial.account("good", Plan::default()).await;
    let (stuck, good) = (trial.scan(stuck).await, trial.scan(good).await);
    change(&trial, stuck, "timeout_seconds = 3").await;
    let mut worker = trial.worker("first").await;
    eventually("everything ends", async || (trial.open().await == Some(0)).then_some(())).await;
    assert!(!worker.has_ended(), "{}", worker.log());
    assert_eq!(read(&trial.db, stuck).await.error_code.as_deref(), Some("deadline_exceeded"));
    assert_eq!(read(&trial.db, good).await.state, JobState::Succeeded);
    trial.judge(&Allow { failures: &["deadline_exceeded"], ..Allow::NOTHING }).await;
}

async fn payloads_that_cannot_be_read_fail_alone_and_newer_ones_wait(test: TestDatabase) {
    let trial = Trial::on("payloads", &test.database).await;
    let account = trial.account("good", Plan::default()).await;
    let bad = [trial.scan(account).await, trial.scan(account).await];
    change(&trial, bad[0], "payload = '{\"mode\": \"full\"}'").await;
    change(&trial, bad[1], "payload = '[\"not\", {\"even\": null}]'").await;
    let newer = trial.scan(account).await;
    change(&trial, newer, "payload_version = 2147483647").await;
    let good = trial.scan(account).await;
    let mut worker = trial.worker("first").await;
    eventually("all but the newer one end", async || (trial.open().await == Some(1)).then_some(())).await;
    for bad in bad {
        let failed = read(&trial.db, bad).await;
        let ended = (failed.state, failed.error_code.as_deref(), failed.attempt);
        assert_eq!(ended, (JobState::Failed, Some("payload_invalid"), 1), "{failed:?}");
    }
    assert_eq!(read(&trial.db, good).await.state, JobState::Succeeded);
    let waiting = read(&trial.db, newer).await;
    assert_eq!((waiting.state, waiting.epoch, waiting.attempt), (JobState::Queued, 0, 0), "nobody touched it");
    assert!(!worker.has_ended(), "{}", worker.log());
    // the newer worker, which reads it
    change(&trial, newer, "payload_version = 1").await;
    trial.judge(&Allow { failures: &["payload_invalid"], ..Allow::NOTHING }).await;
}

/// Changes a job past the engine, as somebody with a database client does.
async fn change(trial: &Trial, job: Uuid, assignment: &str) {
    let text = format!("UPDATE job SET {assignment} WHERE id = $1");
    let changed =
        trial.db.reader().execute_raw(clock::statement(trial.db.backend(), &text, [job.into()])).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
}
