//! Workers that stand still for longer than their leases, and go on.

use keywright_jobs::setup::database::Database;
use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    faults::{checker::Allow, double::Plan, trial::Trial},
    on_both_databases,
    process::{Process, Signal},
};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use std::time::Duration;

on_both_databases!(a_worker_frozen_at_any_step_does_no_harm_when_it_goes_on);

/// Freezes a worker outside its transactions: on SQLite one that is frozen inside holds the whole file, and nobody can help.
pub async fn freeze(db: &Database, worker: &Process) {
    eventually("the worker is frozen outside a transaction", async || {
        worker.signal(Signal::Stop);
        let writable = tokio::time::timeout(Duration::from_secs(1), db.begin()).await;
        if writable.is_err() {
            worker.signal(Signal::Continue);
        }
        writable.ok().map(|write| drop(write.unwrap()))
    })
    .await;
}

async fn a_worker_frozen_at_any_step_does_no_harm_when_it_goes_on(test: TestDatabase) {
    let trial = Trial::on("freeze", &test.database).await;
    let plan = Plan { regions: 1, pages: 3, ..Plan::default() };
    let steps = 1 + u64::from(plan.pages);
    for step in 0..steps {
        let account = trial.account(&format!("account-{step}"), plan.clone()).await;
        let before = trial.double.count();
        trial.double.hold_from(before + step);
        let mut first = trial.worker(&format!("first-{step}")).await;
        trial.scan(account).await;
        trial.double.asked(before + step + 1).await;
        freeze(&trial.db, &first).await;
        let second = trial.worker(&format!("second-{step}")).await;
        // the one that took over asks for the same again
        trial.double.asked(before + step + 2).await;
        // both are answered now; the frozen one hears it when it thaws
        trial.double.release();
        first.signal(Signal::Continue);
        first.logged("this attempt writes nothing more").await;
        eventually("the scan ends", async || (trial.open().await == Some(0)).then_some(())).await;
        first.kill();
        second.kill();
    }
    trial.judge(&Allow::losses(i32::try_from(steps).unwrap())).await;
}

/// The server ends its transaction for it, so that what it had locked is free for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_frozen_inside_a_transaction_holds_nothing_for_long() {
    let Some(test) = TestDatabase::postgres().await else { return };
    let trial = Trial::on("frozen in a transaction", &test.database).await;
    let account = trial.account("only", Plan { regions: 2, pages: 1, ..Plan::default() }).await;
    let mut first = trial.worker("first").await;
    trial.double.hold_from(trial.double.count());
    trial.scan(account).await;
    trial.double.asked(1).await;
    // it has the rows of what it writes next locked, or the whole of its transaction still before it
    let outside = test.another().await;
    let lock = outside.begin().await.unwrap();
    lock.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
    lock.execute_unprepared("LOCK TABLE audit_outbox, job IN SHARE MODE").await.unwrap();
    trial.double.release();
    let waits = "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted \
        AND a.datname = current_database() AND a.xact_start IS NOT NULL";
    eventually("the worker waits inside a transaction", async || {
        lock.query_one_raw(Statement::from_string(DbBackend::Postgres, waits)).await.unwrap()
    })
    .await;
    first.signal(Signal::Stop);
    lock.rollback().await.unwrap();
    let _second = trial.worker("second").await;
    eventually("the scan ends", async || (trial.open().await == Some(0)).then_some(())).await;
    first.signal(Signal::Continue);
    first.logged("the lease was lost").await;
    trial.judge(&Allow::losses(4)).await;
}
