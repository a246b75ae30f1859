//! Whether claims get slower with the jobs that have ended.

use super::{Noop, Options, enqueue_one, postgres, quantile, table};
use anyhow::{Result, ensure};
use keywright_jobs::{
    job::Job,
    queue::{
        claim::{self, Capability},
        limits::Limits,
    },
    setup::{database::Database, ids},
};
use sea_orm::ConnectionTrait;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ENDED: &str = "INSERT INTO job (id, kind, payload, request, state, created_at, run_at, started_at, completed_at, epoch, \
    attempt, requested_by_type, trigger) SELECT gen_random_uuid(), 'bench.noop', '{}', '{}', 'succeeded', \
    now() - n * interval '1 second', now() - n * interval '1 second', now(), now(), 2, 1, 'user', 'api' \
    FROM generate_series(1, 1000000) AS n";
const CLAIMS: usize = 500;

/// Measures with an empty table and with a million ended jobs, and prints a table.
pub async fn run(_: &Options) -> Result<()> {
    let test = postgres().await?;
    let db = &test.database.along_indices().await?;
    let empty = claims(db).await?;
    db.reader().execute_unprepared(ENDED).await?;
    db.reader().execute_unprepared("VACUUM ANALYZE job").await?;
    let full = claims(db).await?;
    let rows = [
        vec!["empty".to_owned(), format!("{empty:.2}"), "1".to_owned()],
        vec!["1,000,000 ended jobs".to_owned(), format!("{full:.2}"), format!("{:.2}", full / empty)],
    ];
    table::print("Claim of one job, p95 in ms, PostgreSQL", &["", "p95", "÷ empty"], &rows, &[table::load()]);
    Ok(())
}

async fn claims(db: &Database) -> Result<f64> {
    let can = Capability {
        worker: ids::new(),
        kinds: vec![Noop::KIND],
        payload_version: 1,
        labels: Vec::new(),
        lease: Duration::from_secs(3600),
        limits: Limits::default(),
        progress: Arc::default(),
    };
    let mut figures = Vec::new();
    for number in 0..CLAIMS + 20 {
        enqueue_one(db, &Noop::default()).await?;
        let began = Instant::now();
        let claimed = claim::claim(db, &can, 1).await?;
        ensure!(claimed.len() == 1, "nothing was claimed");
        if number >= 20 {
            figures.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    db.reader().execute_unprepared("DELETE FROM job WHERE completed_at IS NULL").await?;
    Ok(quantile(&mut figures, 0.95))
}
