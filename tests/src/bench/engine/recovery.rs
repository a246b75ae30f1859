//! How long a job that was running on a killed worker waits for another one, with default settings.

use super::{Noop, Options, Series, enqueue_one, postgres, table, worker};
use crate::{bench::say, process::Process};
use anyhow::{Context, Result, ensure};
use keywright_jobs::setup::database::Database;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(120);
/// A worker that has just begun must first have reached the database for a whole lease.
const SETTLED: Duration = Duration::from_secs(10);

/// Kills workers one after the other, and prints a table.
pub async fn run(options: &Options) -> Result<()> {
    let test = postgres().await?;
    let db = &test.database;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let mut workers = vec![started(db).await, started(db).await];
    let (mut seconds, mut load) = (Series::default(), Vec::new());
    for number in 1..=options.kills {
        tokio::time::sleep(SETTLED).await;
        let payload = Noop { tell: Some(socket.local_addr()?.port()), hold_ms: 3_600_000 };
        let job = enqueue_one(db, &payload).await?;
        ensure!(told(&socket).await? == job, "another job started");
        let held = async |worker: &mut Process| worker.log().contains(&job.to_string());
        let holder = if held(&mut workers[0]).await { 0 } else { 1 };
        let killed = Instant::now();
        workers.remove(holder).kill();
        ensure!(told(&socket).await? == job, "another job started");
        let took = killed.elapsed().as_secs_f64();
        say(&format!("kill {number}: run by the other worker after {took:.1} s"));
        seconds.push(took);
        load.push(table::load());
        // what is left of this job goes with the worker that runs it now
        workers.remove(0).kill();
        workers = vec![started(db).await, started(db).await];
        sea_orm::ConnectionTrait::execute_unprepared(db.reader(), "DELETE FROM job").await?;
    }
    let most = seconds.0.iter().copied().fold(0.0, f64::max);
    let rows = [vec![options.kills.to_string(), seconds.cell(), format!("{most:.1}")]];
    table::print("kill -9 of a worker until another one runs its job, s", &["kills", "median", "worst"], &rows, &load);
    Ok(())
}

async fn started(db: &Database) -> Process {
    let mut worker = worker(db);
    worker.logged("worker ready").await;
    worker
}

/// The job that tells that it runs.
async fn told(socket: &UdpSocket) -> Result<Uuid> {
    let mut told = [0; 16];
    tokio::time::timeout(PATIENCE, socket.recv(&mut told)).await.context("the job never started")??;
    Ok(Uuid::from_bytes(told))
}
