//! Whether claims get slower while somebody keeps an old snapshot, so that no dead row can be vacuumed, and how soon they recover.

use super::{Noop, Options, count, new_job, postgres, quantile, table};
use anyhow::{Result, ensure};
use keywright_entities::types::JobState;
use keywright_jobs::{
    job::Job,
    queue::{
        self, Held,
        claim::{self, Capability},
        limits::Limits,
        outcome::{self, Outcome},
    },
    setup::{database::Database, ids},
};
use sea_orm::ConnectionTrait;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Jobs a second, in groups of [`GROUP`].
const RATE: u32 = 300;
const GROUP: usize = 10;
/// What one figure is measured over.
const WINDOW: Duration = Duration::from_secs(20);
const RECOVERY: Duration = Duration::from_secs(120);
/// Claims are as before when their p95 is at most this times as long.
const AS_BEFORE: f64 = 1.2;

/// Measures before, during and after the snapshot, and prints a table.
pub async fn run(options: &Options) -> Result<()> {
    let test = postgres().await?;
    let db = &test.database.along_indices().await?;
    claims(db, Duration::from_secs(5)).await?;
    let (before, _) = claims(db, WINDOW).await?;
    let outside = test.another().await;
    let snapshot = outside.begin().await?;
    snapshot.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    snapshot.execute_unprepared("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.ok();
    snapshot.execute_unprepared("DECLARE old CURSOR FOR SELECT id FROM job").await?;
    claims(db, options.snapshot.saturating_sub(WINDOW)).await?;
    let (during, rate) = claims(db, WINDOW).await?;
    let dead = count(db, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'job'").await?;
    snapshot.rollback().await?;
    let ended = Instant::now();
    let back = loop {
        let (after, _) = claims(db, Duration::from_secs(5)).await?;
        if after <= before * AS_BEFORE {
            break format!("{:.0} s", ended.elapsed().as_secs_f64());
        }
        if ended.elapsed() > RECOVERY {
            break format!("not within {:.0} s, {after:.2} ms", RECOVERY.as_secs_f64());
        }
    };
    let row = |what: String, p95: f64| vec![what, format!("{p95:.2}"), format!("{:.2}", p95 / before)];
    let minutes = options.snapshot.as_secs_f64() / 60.0;
    let rows = [
        row("before".to_owned(), before),
        row(format!("after {minutes:.0} min of a held snapshot, {dead} dead rows, {rate:.0} jobs/s"), during),
        vec![format!("until within {AS_BEFORE} again"), back, String::new()],
    ];
    let title = format!("Claim at {RATE} jobs/s, p95 in ms, PostgreSQL");
    table::print(&title, &["", "p95", "÷ before"], &rows, &[table::load()]);
    Ok(())
}

/// The p95 of a claim in milliseconds and the rate that was reached, for as long.
async fn claims(db: &Database, span: Duration) -> Result<(f64, f64)> {
    let can = Capability {
        worker: ids::new(),
        kinds: vec![Noop::KIND],
        payload_version: 1,
        labels: Vec::new(),
        lease: Duration::from_secs(3600),
        limits: Limits::default(),
        progress: Arc::default(),
    };
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * GROUP as u32 / RATE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (began, mut figures) = (Instant::now(), Vec::new());
    while began.elapsed() < span {
        ticks.tick().await;
        let jobs = (0..GROUP).map(|_| new_job(&Noop::default())).collect::<Result<Vec<_>>>()?;
        let write = db.begin().await?;
        queue::enqueue_all(&*write, &jobs).await?;
        write.commit().await?;
        let asked = Instant::now();
        let claimed = claim::claim(db, &can, GROUP).await?;
        figures.push(asked.elapsed().as_secs_f64() * 1000.0);
        ensure!(claimed.len() == GROUP, "{} of {GROUP} were claimed", claimed.len());
        let ends: Vec<_> = claimed
            .iter()
            .map(|job| {
                let held = Held { id: job.id, epoch: job.epoch };
                (held, Outcome::Ended { state: JobState::Succeeded, reason: None })
            })
            .collect();
        let write = db.begin().await?;
        let recorded = outcome::record_all(&*write, &ends).await?;
        ensure!(recorded.iter().all(|recorded| *recorded), "an end was not recorded");
        write.commit().await?;
    }
    let rate = (figures.len() * GROUP) as f64 / began.elapsed().as_secs_f64();
    Ok((quantile(&mut figures, 0.95), rate))
}
