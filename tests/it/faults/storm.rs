//! Workers that die or stand still all the time, while clients ask for more.

use keywright_tests::{
    database::TestDatabase,
    faults::{
        checker::Allow,
        clients::{Client, Facade, Said},
        cloud::Order,
        dice::short_or_long,
        double::Plan,
        trial::Trial,
    },
    on_both_databases,
    process::{Process, Signal},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

const SLOTS: i32 = 4;
const NAMES: [&str; 3] = ["one", "two", "three"];

on_both_databases!(
    killed_workers_lose_nothing,
    workers_that_stand_still_now_and_then_do_no_harm,
    pausing_and_resuming_while_workers_die_loses_nothing,
);

async fn killed_workers_lose_nothing(test: TestDatabase) {
    let mut trial = Trial::on("kills", &test.database).await;
    let (_facade, mut workers, clients, until) = begin(&trial).await;
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
    clients.join_all().await;
    workers.into_iter().for_each(Process::kill);
    kills += i32::try_from(NAMES.len()).unwrap();
    trial.judge(&Allow::losses(kills * SLOTS)).await;
}

/// Frozen wherever they are, with locks held or not, for less or more than a lease.
async fn workers_that_stand_still_now_and_then_do_no_harm(test: TestDatabase) {
    let mut trial = Trial::on("freezes", &test.database).await;
    let (_facade, workers, clients, until) = begin(&trial).await;
    let mut freezes = 0;
    while Instant::now() < until {
        let victim = &workers[trial.dice.below(workers.len())];
        victim.signal(Signal::Stop);
        freezes += 1;
        tokio::time::sleep(trial.dice.millis(200..2_500)).await;
        victim.signal(Signal::Continue);
        tokio::time::sleep(trial.dice.millis(0..500)).await;
    }
    clients.join_all().await;
    // who waited for what a frozen one had locked may have been taken for lost as well
    let slots = i32::try_from(NAMES.len()).unwrap() * SLOTS;
    trial.judge(&Allow::losses(freezes * slots)).await;
}

async fn pausing_and_resuming_while_workers_die_loses_nothing(test: TestDatabase) {
    let mut trial = Trial::on("pauses and kills", &test.database).await;
    let (facade, mut workers, clients, until) = begin(&trial).await;
    let (mut kills, mut paused) = (0, BTreeSet::new());
    while Instant::now() < until {
        tokio::time::sleep(trial.dice.millis(50..300)).await;
        // parents and children alike
        let open: Vec<Uuid> =
            trial.jobs().await.iter().filter(|job| job.completed_at.is_none()).map(|job| job.id).collect();
        for how in ["pause", "pause", "resume"] {
            if open.is_empty() {
                break;
            }
            let job = *trial.dice.one(&open);
            let status = facade.client().steer(job, how).await.map(|status| status.as_u16());
            // it may have ended since it was read
            assert!(matches!(status, Some(202 | 409)), "{how}: {status:?}");
            paused.insert(job);
        }
        if trial.dice.below(3) == 0 {
            let victim = trial.dice.below(workers.len());
            workers.remove(victim).kill();
            kills += 1;
            workers.push(trial.start_worker(NAMES[victim], &[]));
        }
    }
    clients.join_all().await;
    for job in trial.jobs().await.iter().filter(|job| job.paused_at.is_some() && job.completed_at.is_none()) {
        assert!(paused.contains(&job.id) || job.parent_id.is_some_and(|parent| paused.contains(&parent)), "{job:?}");
    }
    for job in &paused {
        let status = facade.client().steer(*job, "resume").await.map(|status| status.as_u16());
        assert!(matches!(status, Some(202 | 409)), "{status:?}");
    }
    workers.into_iter().for_each(Process::kill);
    kills += i32::try_from(NAMES.len()).unwrap();
    let allow = Allow::losses(kills * SLOTS);
    trial.judge(&allow).await;
}

/// An API that is asked all the time, and workers to be disturbed until then.
async fn begin(trial: &Trial) -> (Facade, Vec<Process>, JoinSet<()>, Instant) {
    let mut accounts = Vec::new();
    for number in 0..4 {
        let order = Some(Order::Take(40));
        accounts.push(trial.account(&format!("account-{number}"), Plan { order, ..Plan::default() }).await);
    }
    let facade = trial.facade().await;
    let mut workers = Vec::new();
    for name in NAMES {
        workers.push(trial.worker(name).await);
    }
    let until = Instant::now() + short_or_long(Duration::from_secs(8), Duration::from_secs(60));
    let mut clients = JoinSet::new();
    for account in accounts {
        clients.spawn(keep_asking(facade.client(), account, until));
    }
    (facade, workers, clients, until)
}

async fn keep_asking(client: Client, account: Uuid, until: Instant) {
    let mut asked = 0;
    while Instant::now() < until {
        let said = client.scan(account, if asked % 3 == 0 { "join" } else { "queue" }, None).await;
        assert!(matches!(said, Said::Accepted(_)), "the API is not disturbed: {said:?}");
        asked += 1;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}
