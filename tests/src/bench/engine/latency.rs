//! How long an idle worker needs to start a job: from the call that enqueues it to the first line of the job.

use super::{Noop, Options, enqueue_one, postgres, quantile, table, worker};
use crate::database::TestDatabase;
use anyhow::{Context, Result, ensure};
use keywright_jobs::{queue::wake::Wake, setup::database::Database};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two jobs, so that each finds the worker idle.
const PAUSE: Duration = Duration::from_millis(60);

/// Measures both databases, and prints a table.
pub async fn run(options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    let mut load = Vec::new();
    for (name, test) in [("PostgreSQL", postgres().await?), ("SQLite", TestDatabase::sqlite().await)] {
        let figures = measure(&test.database, options).await?;
        rows.push(std::iter::once(name.to_owned()).chain(figures).collect());
        load.push(table::load());
    }
    let idle = format!("after {} s of idling", options.idle.as_secs());
    let columns = ["ms", "p50", "p95", "p99", "most", &idle];
    table::print("Idle, from the enqueueing call to the start of the job", &columns, &rows, &load);
    Ok(())
}

async fn measure(db: &Database, options: &Options) -> Result<Vec<String>> {
    let stop = CancellationToken::new();
    // sends our news, as the API's process does
    let (_news, _stop) = (Wake::start(db, stop.clone()), stop.drop_guard());
    let mut worker = worker(db);
    worker.logged("worker ready").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let mut figures = Vec::new();
    // the first ones warm everything up
    for number in 0..options.starts + 10 {
        tokio::time::sleep(PAUSE).await;
        let took = start(db, &socket).await?;
        if number >= 10 {
            figures.push(took);
        }
    }
    tokio::time::sleep(options.idle).await;
    let after_idling = start(db, &socket).await?;
    let most = quantile(&mut figures, 1.0);
    let parts = [0.5, 0.95, 0.99].map(|part| format!("{:.1}", quantile(&mut figures, part)));
    Ok(parts.into_iter().chain([format!("{most:.1}"), format!("{after_idling:.1}")]).collect())
}

/// Milliseconds until one job has told that it runs.
async fn start(db: &Database, socket: &UdpSocket) -> Result<f64> {
    let payload = Noop { tell: Some(socket.local_addr()?.port()), hold_ms: 0 };
    let began = Instant::now();
    let job = enqueue_one(db, &payload).await?;
    let mut told = [0; 16];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut told)).await.context("the job never started")??;
    ensure!(told.get(..length) == Some(job.as_bytes()), "another job started");
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}
