//! Databases that go away, answer late, or refuse: nothing is lost, nobody is blamed, and everything goes on by itself.

use super::leases;
use keywright_jobs::setup::database::Database;
use keywright_tests::{
    app::eventually,
    database::{TestDatabase, admin_url},
    faults::{
        checker::Allow,
        clients::{Client, Said},
        cloud::Order,
        dice::short_or_long,
        double::Plan,
        server::Server,
        trial::Trial,
    },
};
use sea_orm::ConnectionTrait;
use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A refusal may be a commit whose answer was lost; nobody is rescued, no attempt is lost, nothing runs twice.
pub const AWAY: Allow = Allow { unsure: true, ..Allow::NOTHING };
const SLOTS: u64 = 4;

/// Asks for scans until `enough`, and counts what was refused.
pub fn keep_asking(client: Client, account: Uuid, enough: CancellationToken) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut refused = 0;
        while !enough.is_cancelled() {
            match client.scan(account, "queue", None).await {
                Said::Accepted(_) => {}
                Said::Refused(503) => refused += 1,
                said => panic!("without its database the API says so: {said:?}"),
            }
            sleep(Duration::from_millis(300)).await;
        }
        refused
    })
}

/// Two workers whose slots are full of listings that the double holds back, and an API.
pub async fn busy(trial: &Trial) -> Uuid {
    let listings = 2 * SLOTS as usize;
    let account = trial.account("busy", Plan { regions: listings, pages: 2, ..Plan::default() }).await;
    trial.double.hold_from(1);
    trial.scan(account).await;
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_and_restarted_costs_nothing() {
    let Some(mut server) = Server::start().await else { return };
    let db = Database::open(&server.url, 8).await.unwrap();
    db.migrate().await.unwrap();
    let trial = Trial::on("PostgreSQL killed", &db).await;
    let account = busy(&trial).await;
    let (_first, _second, facade) = tokio::join!(trial.worker("first"), trial.worker("second"), trial.facade());
    trial.double.asked(1 + 2 * SLOTS).await;
    let enough = CancellationToken::new();
    let asking = keep_asking(facade.client(), account, enough.clone());
    for round in 0..2 {
        server.kill().await;
        if round == 1 {
            // every lease has lapsed when it is back
            sleep(Duration::from_secs(3)).await;
        }
        server.up().await;
        eventually("the holders renew", async || (leases(&db, ">").await == Some(2 * SLOTS)).then_some(())).await;
    }
    enough.cancel();
    asking.await.unwrap();
    trial.judge(&AWAY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_down_for_a_while_costs_nothing() {
    let Some(mut server) = Server::start().await else { return };
    let db = Database::open(&server.url, 8).await.unwrap();
    db.migrate().await.unwrap();
    let trial = Trial::on("PostgreSQL down", &db).await;
    let account = busy(&trial).await;
    let (_first, _second, facade) = tokio::join!(trial.worker("first"), trial.worker("second"), trial.facade());
    trial.double.asked(1 + 2 * SLOTS).await;
    server.down().await;
    let back = Instant::now() + short_or_long(Duration::from_secs(10), Duration::from_secs(60));
    let enough = CancellationToken::new();
    let asking = keep_asking(facade.client(), account, enough.clone());
    // their answers come while it is down: they are kept and written afterwards
    trial.double.release();
    tokio::time::sleep_until(back).await;
    assert_eq!(facade.client().status("/health").await.map(|status| status.as_u16()), Some(200));
    enough.cancel();
    assert!(asking.await.unwrap() > 0, "nobody was told that the database is away");
    server.up().await;
    trial.judge(&AWAY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_ended_all_the_time_cost_nothing() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let mut trial = Trial::on("connections ended", &test.database).await;
    let plan = Plan { regions: 4, pages: 6, order: Some(Order::Take(100)), ..Plan::default() };
    for number in 0..4 {
        let account = trial.account(&format!("account-{number}"), plan.clone()).await;
        trial.scan(account).await;
    }
    let (_first, _second) = tokio::join!(trial.worker("first"), trial.worker("second"));
    let admin = Database::open(&admin_url().unwrap(), 1).await.unwrap();
    let name = test.url().rsplit('/').next().unwrap().to_owned();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    let until = Instant::now() + short_or_long(Duration::from_secs(6), Duration::from_secs(60));
    while Instant::now() < until {
        admin.reader().execute_unprepared(&end).await.unwrap();
        sleep(trial.dice.millis(50..700)).await;
    }
    admin.close().await.unwrap();
    trial.judge(&AWAY).await;
}

/// As a migration or a careless person does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_on_the_job_table_costs_nothing() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let trial = Trial::on("table locked", &test.database).await;
    busy(&trial).await;
    let (_first, _second) = tokio::join!(trial.worker("first"), trial.worker("second"));
    trial.double.asked(1 + 2 * SLOTS).await;
    let locking = test.another().await;
    let lock = locking.begin().await.unwrap();
    lock.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
    lock.execute_unprepared("LOCK TABLE job IN ACCESS EXCLUSIVE MODE").await.unwrap();
    trial.double.release();
    sleep(short_or_long(Duration::from_secs(6), Duration::from_secs(60))).await;
    lock.rollback().await.unwrap();
    trial.judge(&AWAY).await;
}

/// Somebody else's program holds the file for longer than every lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_locked_from_outside_costs_nothing() {
    let test = TestDatabase::sqlite().await;
    let trial = Trial::on("file locked", &test.database).await;
    busy(&trial).await;
    let (_first, _second) = tokio::join!(trial.worker("first"), trial.worker("second"));
    trial.double.asked(1 + 2 * SLOTS).await;
    let outside = test.another().await;
    let lock = outside.begin().await.unwrap();
    trial.double.release();
    sleep(short_or_long(Duration::from_secs(10), Duration::from_secs(60))).await;
    lock.rollback().await.unwrap();
    trial.judge(&AWAY).await;
}
