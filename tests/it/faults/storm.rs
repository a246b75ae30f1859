//! Workers and APIs that die all the time.

use keywright_tests::{
    database::TestDatabase,
    faults::{
        checker::Allow,
        clients::{Client, Said},
        double::Plan,
        trial::Trial,
    },
    on_both_databases,
    process::Process,
};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

/// How long workers are killed for.
const STORM: Duration = Duration::from_secs(8);
const SLOTS: i32 = 4;
const NAMES: [&str; 3] = ["one", "two", "three"];

on_both_databases!(killed_workers_lose_nothing);

async fn killed_workers_lose_nothing(test: TestDatabase) {
    let mut trial = Trial::on("storm", &test.database).await;
    let mut accounts = Vec::new();
    for number in 0..4 {
        let order = Some(keywright_tests::faults::cloud::Order::Take(40));
        accounts.push(trial.account(&format!("account-{number}"), Plan { order, ..Plan::default() }).await);
    }
    let facade = trial.facade().await;
    let mut workers = Vec::new();
    for name in NAMES {
        workers.push(trial.worker(name).await);
    }
    let until = Instant::now() + STORM;
    let mut clients = JoinSet::new();
    for account in accounts {
        clients.spawn(keep_asking(facade.client(), account, until));
    }
    let mut kills = 0;
    while Instant::now() < until {
        tokio::time::sleep(trial.dice.millis(100..900)).await;
        let victim = trial.dice.below(workers.len());
        workers.remove(victim).kill();
        kills += 1;
        // some come back under the name of one that may still run
        let name = *trial.dice.one(&NAMES);
        workers.push(trial.start_worker(name, &[]));
    }
    let asked: usize = clients.join_all().await.into_iter().sum();
    assert!(asked > 0, "nobody asked for anything");
    workers.into_iter().for_each(Process::kill);
    kills += i32::try_from(NAMES.len()).unwrap();
    trial.judge(&Allow::losses(kills * SLOTS)).await;
}

async fn keep_asking(client: Client, account: Uuid, until: Instant) -> usize {
    let mut asked = 0;
    while Instant::now() < until {
        let said = client.scan(account, if asked % 3 == 0 { "join" } else { "queue" }, None).await;
        assert!(matches!(said, Said::Accepted(_)), "the API is not disturbed: {said:?}");
        asked += 1;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    asked
}
