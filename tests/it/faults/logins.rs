//! More logins than can be hashed: they cost neither the API nor a job that runs meanwhile.

use keywright_tests::{
    app::job,
    database::TestDatabase,
    faults::{checker::Allow, cloud::Order, dice::short_or_long, double::Plan, flood::flood, trial::Trial},
    on_both_databases,
};
use std::time::Duration;

on_both_databases!(a_flood_of_logins_fails_nothing_and_costs_no_lease);

const LEASE: (&str, &str) = ("KEYWRIGHT_LEASE_SECONDS", "2");

async fn a_flood_of_logins_fails_nothing_and_costs_no_lease(test: TestDatabase) {
    let (logins, pages) = short_or_long((400, 20), (6_000, 150));
    let trial = Trial::on("login flood", &test.database).await;
    let plan = Plan { regions: 1, pages, order: Some(Order::Take(200)), ..Plan::default() };
    let account = trial.account("busy", plan).await;
    let facade = trial.facade().await;
    let scan = trial.scan(account).await;
    let _worker = trial.worker_with("only", &[LEASE]).await;
    trial.double.asked(2).await;
    let told = flood(facade.url(), logins, Duration::from_millis(5)).await;
    let statuses: Vec<u16> = told.statuses.keys().copied().collect();
    assert!(statuses.iter().all(|status| [200, 401, 429].contains(status)), "{told:?}");
    assert!(told.statuses.contains_key(&200) && told.statuses.contains_key(&429), "{told:?}");
    assert_eq!(job(&trial.db, scan).await.rescues, 0);
    trial.judge(&Allow::NOTHING).await;
}
