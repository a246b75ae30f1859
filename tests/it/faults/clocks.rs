//! A worker and an API whose machines are an hour off. On SQLite the processes of a machine share its clock, so this is about
//! PostgreSQL alone.

use keywright_entities::clock;
use keywright_jobs::setup::config;
use keywright_tests::{
    app::{eventually, job},
    database::TestDatabase,
    faults::{checker::Allow, clients::Said, cloud::Order, double::Plan, trial::Trial},
};
use std::io::Write;

/// Longer leases than under faults: here nobody is lost.
const LEASE: (&str, &str) = ("KEYWRIGHT_LEASE_SECONDS", "2");

/// The environment of a process whose wall clock is this far off; `None` after having said that the test is skipped.
fn off(by: &'static str) -> Option<Vec<(&'static str, String)>> {
    let Some(library) = config::variable("KWTEST_FAKETIME").filter(|path| !path.is_empty()) else {
        // past the test harness, which keeps the output of tests that pass to itself
        let _ = writeln!(std::io::stderr(), "skipped: needs libfaketime");
        return None;
    };
    // the monotonic clock goes on as it is: that is what a wrong wall clock is like
    let monotonic = ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned());
    Some(vec![("LD_PRELOAD", library), ("FAKETIME", by.to_owned()), monotonic])
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).chain([LEASE]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_whose_clocks_are_an_hour_off_work_like_any_other() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let (Some(fast), Some(slow)) = (off("+1h"), off("-1h")) else { return };
    let trial = Trial::on("clocks of workers", &test.database).await;
    let order = Some(Order::Take(600));
    let account = trial.account("one", Plan { regions: 9, pages: 4, order, ..Plan::default() }).await;
    let ahead = trial.worker_with("ahead", &borrowed(&fast)).await;
    let behind = trial.worker_with("behind", &borrowed(&slow)).await;
    let right = trial.worker_with("right", &[LEASE]).await;
    trial.scan(account).await;
    eventually("the scan ends", async || (trial.open().await == Some(0)).then_some(())).await;
    for (worker, year) in [(ahead, fast), (behind, slow), (right, Vec::new())] {
        assert!(worker.log().contains("discovery.scope"), "it had a part in it: {year:?}\n{}", worker.log());
    }
    trial.judge(&Allow::NOTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_whose_clock_is_an_hour_off_answers_like_any_other() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let (Some(fast), Some(slow)) = (off("+1h"), off("-1h")) else { return };
    let trial = Trial::on("clocks of APIs", &test.database).await;
    let account = trial.account("one", Plan::default()).await;
    let ahead = trial.facade_with(&borrowed(&fast)).await;
    let behind = trial.facade_with(&borrowed(&slow)).await;
    let right = trial.facade().await;
    let clients = [
        ahead.client(),
        behind.client(),
        right.client(),
        // whoever signed in at one is known at the others
        ahead.client_of(&behind),
        behind.client_of(&ahead),
        right.client_of(&ahead),
        right.client_of(&behind),
    ];
    for (number, client) in clients.into_iter().enumerate() {
        let before = clock::now(trial.db.reader()).await.unwrap();
        let said = client.scan(account, "queue", None).await;
        let after = clock::now(trial.db.reader()).await.unwrap();
        let Said::Accepted(id) = said else { panic!("client {number}: {said:?}") };
        let made = job(&trial.db, id).await;
        let times = [made.created_at, made.run_at, made.due_at.expect("it is due")];
        assert!(times.iter().all(|time| (before..=after).contains(time)), "by the database's clock: {made:?}");
    }
    trial.judge(&Allow::NOTHING).await;
}
