//! Workers with more to do than they have slots, and work that keeps its thread busy. No fault at all: nothing may run twice.

use keywright_tests::{
    app::{eventually, job},
    database::TestDatabase,
    faults::{
        checker::Allow,
        cloud::Order,
        dice::short_or_long,
        double::{Plan, Special, page},
        trial::Trial,
    },
    on_both_databases,
    process::Signal,
};
use std::time::Duration;

const STOPS_WITHIN: Duration = Duration::from_secs(30);

on_both_databases!(
    many_jobs_on_few_slots_run_once_each,
    work_that_blocks_its_thread_for_many_leases_runs_once,
    workers_that_are_stopped_and_started_cost_no_attempt,
);

/// Longer leases than under faults: what must not lapse here is renewed by a thread that shares its cores with all that is busy.
const LEASE: (&str, &str) = ("KEYWRIGHT_LEASE_SECONDS", "2");

async fn many_jobs_on_few_slots_run_once_each(test: TestDatabase) {
    let (jobs, millis) = short_or_long((40, 500), (200, 5_000));
    let trial = Trial::on("saturation", &test.database).await;
    let long = Some(Order::Take(millis));
    let plan = Plan { regions: jobs, pages: 1, secrets: 1, order: long, ..Plan::default() };
    let account = trial.account("crowded", plan).await;
    trial.scan(account).await;
    let one = [LEASE, ("KEYWRIGHT_WORKER_CONCURRENCY", "1")];
    let (_first, _second) = tokio::join!(trial.worker_with("first", &one), trial.worker_with("second", &one));
    trial.double.asked(1 + jobs as u64).await;
    trial.judge(&Allow::NOTHING).await;
}

async fn work_that_blocks_its_thread_for_many_leases_runs_once(test: TestDatabase) {
    const BUSY: usize = 2;
    let trial = Trial::on("blocking", &test.database).await;
    let special = (0..BUSY).map(|region| Special { step: page(region, 0), order: Order::Compute(6_000), times: 1 });
    // one region more than is busy: it is listed meanwhile
    let plan = Plan { regions: BUSY + 1, pages: 1, special: special.collect(), ..Plan::default() };
    let account = trial.account("busy", plan).await;
    let scan = trial.scan(account).await;
    let _first = trial.worker_with("first", &[LEASE]).await;
    trial.double.asked(1 + BUSY as u64 + 1).await;
    eventually("what is quick is done while the rest is busy", async || {
        (job(&trial.db, scan).await.children_succeeded == 1).then_some(())
    })
    .await;
    assert_eq!(trial.open().await, Some(1 + BUSY), "the others are at it");
    // this one would take them over if their leases lapsed
    let _second = trial.worker_with("second", &[LEASE]).await;
    eventually("the work is done", async || (trial.open().await == Some(0)).then_some(())).await;
    trial.judge(&Allow::NOTHING).await;
}

/// Each worker is stopped in the middle of what it does, ends with 0, and another goes on.
async fn workers_that_are_stopped_and_started_cost_no_attempt(test: TestDatabase) {
    let mut trial = Trial::on("stops", &test.database).await;
    let slow = Some(Order::Take(100));
    for number in 0..3 {
        let plan = Plan { pages: 6, order: slow, ..Plan::default() };
        let account = trial.account(&format!("account-{number}"), plan).await;
        trial.scan(account).await;
    }
    for _ in 0..5 {
        let mut worker = trial.worker("same").await;
        let asked = trial.double.count();
        trial.double.asked(asked + trial.dice.below(4) as u64).await;
        worker.signal(Signal::Term);
        let status = worker.ended(STOPS_WITHIN).await;
        assert_eq!(status.code(), Some(0), "{}", worker.log());
        assert!(!worker.log().contains("the lease was lost"), "{}", worker.log());
    }
    // what was given back begins again at its last page
    trial.judge(&Allow { repeats: true, ..Allow::NOTHING }).await;
}
