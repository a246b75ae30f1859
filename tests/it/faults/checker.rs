//! The checker can fail: a build that breaks a promise on purpose is found out, by the promise that it broke. The same scenarios
//! with an ordinary build show nothing.

use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    faults::{
        checker::{Allow, Breach, FENCED, RESCUES, WORK},
        cloud::Order,
        double::Plan,
        trial::Trial,
    },
    process::{Signal, is_built_with},
    wire::Wire,
};
use std::time::Duration;

const CHAOS: &str = "keywright-chaos-worker";

/// A trial whose workers break this promise; none without the build that can.
async fn broken(name: &'static str, test: &TestDatabase, promise: &str) -> Option<Trial> {
    if !is_built_with(CHAOS, "keywright-test-worker") {
        return None;
    }
    let trial = Trial::on(name, &test.database).await;
    Some(trial.with_workers(CHAOS, &[("KWTEST_CHAOS", promise)]))
}

#[track_caller]
fn found_out(breaches: &[Breach], promise: &str) {
    assert!(breaches.iter().any(|breach| breach.promise == promise), "not noticed: {promise}\n{breaches:#?}");
}

#[track_caller]
fn nothing_found(breaches: &[Breach]) {
    assert!(breaches.is_empty(), "{breaches:#?}");
}

/// A worker is frozen in mid-listing, another takes over and is still at it when the first goes on.
async fn taken_over(trial: Trial) -> Vec<Breach> {
    let order = Some(Order::Take(200));
    let account = trial.account("one", Plan { regions: 1, pages: 12, order, ..Plan::default() }).await;
    let first = trial.worker("first").await;
    trial.double.hold_from(3);
    trial.scan(account).await;
    trial.double.asked(4).await;
    super::freeze::freeze(&trial.db, &first).await;
    let _second = trial.worker("second").await;
    trial.double.asked(5).await;
    trial.double.release();
    first.signal(Signal::Continue);
    trial.heal().await;
    trial.breaches(&Allow::losses(1)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_with_its_fence_is_not_noticed() {
    let test = TestDatabase::sqlite().await;
    nothing_found(&taken_over(Trial::on("with fence", &test.database).await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_without_its_fence_is_found_out() {
    let test = TestDatabase::sqlite().await;
    let Some(trial) = broken("without fence", &test, "fence").await else { return };
    found_out(&taken_over(trial).await, FENCED);
}

/// A worker is killed in mid-listing.
async fn killed(trial: Trial) -> Vec<Breach> {
    let account = trial.account("one", Plan { regions: 1, pages: 4, ..Plan::default() }).await;
    let first = trial.worker("first").await;
    trial.double.hold_from(2);
    trial.scan(account).await;
    trial.double.asked(2).await;
    first.kill();
    trial.heal().await;
    trial.breaches(&Allow::losses(4)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_that_acknowledges_last_is_not_noticed() {
    let test = TestDatabase::sqlite().await;
    nothing_found(&killed(Trial::on("acknowledged last", &test.database).await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_that_acknowledged_first_is_found_out() {
    let test = TestDatabase::sqlite().await;
    let Some(trial) = broken("acknowledged first", &test, "acknowledge").await else { return };
    found_out(&killed(trial).await, WORK);
}

/// The database is away for both workers, and comes back first for the one that holds nothing.
async fn cut_off(trial: Trial, test: &TestDatabase) -> Vec<Breach> {
    const LEASE: (&str, &str) = ("KEYWRIGHT_LEASE_SECONDS", "4");
    let (user, server) = test.url().split_once('@').unwrap();
    let (server, name) = server.split_once('/').unwrap();
    let (one, two) = (Wire::to(server).await, Wire::to(server).await);
    let over = |wire: &Wire| format!("{user}@{}/{name}", wire.address());
    let (first, second) = (over(&one), over(&two));
    let plan = Plan { regions: 4, pages: 2, ..Plan::default() };
    let account = trial.account("one", plan).await;
    let mut holder = trial.worker_with("first", &[LEASE, ("DATABASE_URL", &first)]).await;
    trial.double.hold_from(1);
    trial.scan(account).await;
    trial.double.asked(1 + 4).await;
    let mut other = trial.worker_with("second", &[LEASE, ("DATABASE_URL", &second)]).await;
    one.cut();
    two.cut();
    for worker in [&mut holder, &mut other] {
        worker.logged("leases could not be renewed").await;
    }
    eventually("every lease lapses", async || (super::leases(&trial.db, "<").await == Some(4)).then_some(())).await;
    two.mend();
    // it looks for lapsed leases every second, but has not yet reached the database for one whole lease
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    one.mend();
    trial.heal().await;
    trial.breaches(&Allow { unsure: true, ..Allow::NOTHING }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_excuse_outages_are_not_noticed() {
    let Some(test) = TestDatabase::postgres().await else { return };
    nothing_found(&cut_off(Trial::on("outages excused", &test.database).await, &test).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_count_outages_as_losses_are_found_out() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let Some(trial) = broken("outages counted", &test, "outage").await else { return };
    found_out(&cut_off(trial, &test).await, RESCUES);
}
