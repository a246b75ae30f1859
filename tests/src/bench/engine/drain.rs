//! How fast two worker processes run jobs that do nothing, and how much memory they take.

use super::{Options, Series, count, floor, memory, peer, postgres, table, worker};
use anyhow::{Result, ensure};
use keywright_jobs::setup::database::Database;
use sea_orm::ConnectionTrait;
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(600);
/// A queue's table: whether jobs are left, how to put them off, and how to make all of them due at once.
struct Queue {
    left: &'static str,
    put_off: &'static str,
    release: &'static str,
}

const OURS: Queue = Queue {
    // by the indices of those that are queued and of those that run: counting them reads the table, many times a second
    left: "SELECT count(*) FROM (\
        (SELECT 1 FROM job WHERE due_at IS NOT NULL AND turn IS NOT NULL AND over_limit IS NULL LIMIT 1) \
        UNION ALL (SELECT 1 FROM job WHERE lease_until IS NOT NULL LIMIT 1)) AS open",
    put_off: "UPDATE job SET due_at = due_at + interval '1 hour', turn = NULL",
    // each at a place of its own, as one after the other would have got it
    release: "WITH place AS (SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS turn FROM job), \
        due AS (UPDATE job SET due_at = now(), turn = place.turn FROM place WHERE job.id = place.id) \
        SELECT pg_notify('keywright', '')",
};
const THEIRS: Queue = Queue {
    left: "SELECT count(*) FROM graphile_worker._private_jobs",
    put_off: "UPDATE graphile_worker._private_jobs SET run_at = now() + interval '1 hour'",
    release: "UPDATE graphile_worker._private_jobs SET run_at = now()",
};
/// Long enough for workers to have connected and found nothing.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures, and prints two tables.
pub async fn run(options: &Options) -> Result<()> {
    let test = postgres().await?;
    let db = &test.database;
    let [mut ours, mut floor_rate, mut theirs, mut idle, mut peak] = <[Series; 5]>::default();
    let mut load = Vec::new();
    for _ in 0..options.repetitions {
        floor::fill(db.url(), options.jobs).await?;
        OURS.do_to(db, OURS.put_off).await?;
        OURS.do_to(db, OURS.release).await?;
        let began = Instant::now();
        floor::drain(db.url()).await?;
        floor_rate.push(f64::from(options.jobs) / began.elapsed().as_secs_f64());
        ensure!(count(db, OURS.left).await? == 0, "the floor left jobs");

        floor::fill(db.url(), options.jobs).await?;
        OURS.do_to(db, OURS.put_off).await?;
        let mut workers = [worker(db), worker(db)];
        ours.push(OURS.drained(db, options.jobs).await?);
        for worker in &mut workers {
            peak.push(memory(worker.id(), "VmHWM"));
        }
        drop(workers);
        let kept = count(db, "SELECT count(*) FROM job WHERE state = 'succeeded'").await?;
        ensure!(kept == i64::from(options.jobs), "only {kept} jobs have succeeded");

        let filled = peer("keywright-peer-graphile", db)?.args(["fill", &options.jobs.to_string()]).output()?;
        ensure!(filled.status.success(), "the peer failed: {}", String::from_utf8_lossy(&filled.stderr));
        THEIRS.do_to(db, THEIRS.put_off).await?;
        let peers = [Peer::start(db)?, Peer::start(db)?];
        theirs.push(THEIRS.drained(db, options.jobs).await?);
        drop(peers);

        let mut one = worker(db);
        one.logged("worker ready").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        idle.push(memory(one.id(), "VmRSS"));
        load.push(table::load());
    }
    let row = |what: &str, series: &Series| vec![what.to_owned(), series.cell(), series.over(&floor_rate).cell()];
    let rows = [
        row("Keywright, 2 workers, rows and events kept", &ours),
        row("graphile_worker, 2 workers, rows deleted", &theirs),
        row("claim 500, complete 500, bare", &floor_rate),
    ];
    let title = format!("Drain of {} jobs that do nothing, PostgreSQL", options.jobs);
    table::print(&title, &["what", "jobs/s", "÷ bare"], &rows, &load);
    let rows = [vec!["idle".to_owned(), idle.cell()], vec!["at its peak, draining".to_owned(), peak.cell()]];
    table::print("Memory of a worker, MiB", &["", "resident"], &rows, &load);
    Ok(())
}

impl Queue {
    async fn do_to(&self, db: &Database, what: &str) -> Result<()> {
        db.reader().execute_unprepared(what).await?;
        Ok(())
    }

    /// The rate from the moment when all jobs become due, with workers that are up and idle, until none is left.
    async fn drained(&self, db: &Database, jobs: u32) -> Result<f64> {
        tokio::time::sleep(SETTLED).await;
        self.do_to(db, self.release).await?;
        let due = Instant::now();
        while count(db, self.left).await? > 0 {
            ensure!(due.elapsed() < PATIENCE, "jobs are left after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(f64::from(jobs) / due.elapsed().as_secs_f64())
    }
}

/// A worker of the peer; ends with its value.
struct Peer(Child);

impl Peer {
    fn start(db: &Database) -> Result<Self> {
        Ok(Self(peer("keywright-peer-graphile", db)?.arg("work").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // gone already, or not: both are fine
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
