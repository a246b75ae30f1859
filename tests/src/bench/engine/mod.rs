//! The engine beside bare SQL and beside one strong peer, in the same run and on the same database.

mod drain;
mod enqueue;
mod floor;
mod http;
mod latency;
mod recovery;
mod retention;
mod snapshot;

use super::table::{self, Series};
use crate::{database::TestDatabase, process::Process};
use anyhow::{Context, Result, ensure};
use keywright_entities::types::{ActorType, Trigger};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    kinds::noop::Noop,
    queue::{self, NewJob, Requester},
    setup::{database::Database, ids},
};
use sea_orm::ConnectionTrait;
use std::{path::PathBuf, process::Command, time::Duration};
use uuid::Uuid;

/// What can be measured, and the words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Enqueue,
    Sqlite,
    Drain,
    Latency,
    Recovery,
    Http,
    /// A million rows.
    Retention,
    /// Minutes.
    Snapshot,
}

impl Measure {
    pub const ALL: [Self; 8] = [
        Self::Enqueue,
        Self::Sqlite,
        Self::Drain,
        Self::Latency,
        Self::Recovery,
        Self::Http,
        Self::Retention,
        Self::Snapshot,
    ];

    /// Whether it is measured only when it is asked for.
    pub const fn takes_long(self) -> bool {
        matches!(self, Self::Retention | Self::Snapshot)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Sqlite => "sqlite",
            Self::Drain => "drain",
            Self::Latency => "latency",
            Self::Recovery => "recovery",
            Self::Http => "http",
            Self::Retention => "retention",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    pub measures: Vec<Measure>,
    pub repetitions: u32,
    /// For each figure that is a rate.
    pub span: Duration,
    /// Jobs of a drain.
    pub jobs: u32,
    /// Workers that are killed.
    pub kills: u32,
    /// Jobs whose start is waited for.
    pub starts: u32,
    /// How long the worker idles before one more job must be found.
    pub idle: Duration,
    /// How long an old snapshot is kept.
    pub snapshot: Duration,
}

/// Measures one thing after the other, and prints a table for each.
///
/// # Errors
/// When something cannot be started, or did not do what it was to.
pub async fn run(options: &Options) -> Result<()> {
    for measure in &options.measures {
        match measure {
            Measure::Enqueue => enqueue::postgres(options).await?,
            Measure::Sqlite => enqueue::sqlite(options).await?,
            Measure::Drain => drain::run(options).await?,
            Measure::Latency => latency::run(options).await?,
            Measure::Recovery => recovery::run(options).await?,
            Measure::Http => http::run(options).await?,
            Measure::Retention => retention::run(options).await?,
            Measure::Snapshot => snapshot::run(options).await?,
        }
    }
    Ok(())
}

async fn postgres() -> Result<TestDatabase> {
    let test = TestDatabase::postgres().await.context("a PostgreSQL server is needed")?;
    let settings = "SELECT current_setting('fsync') || current_setting('synchronous_commit') AS durable";
    let row = test.database.reader().query_one_raw(statement(settings)).await?.context("a row")?;
    let durable: String = row.try_get("", "durable")?;
    ensure!(durable == "onon", "fsync and synchronous_commit are to be on, and are {durable}");
    Ok(test)
}

fn statement(sql: &str) -> sea_orm::Statement {
    sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql)
}

/// One number that a query returns.
async fn count(db: &Database, sql: &str) -> Result<i64> {
    let row = db.reader().query_one_raw(sea_orm::Statement::from_string(db.backend(), sql)).await?.context("a row")?;
    Ok(row.try_get_by_index(0)?)
}

/// A job as a client's request makes it.
fn new_job(payload: &Noop) -> Result<NewJob> {
    let requester = Requester {
        actor: ActorType::User,
        id: Some(ids::new().to_string()),
        name: Some("admin".to_owned()),
        request_id: Some(ids::new().to_string()),
        traceparent: None,
    };
    Ok(NewJob::new(payload, requester, Trigger::Api)?)
}

/// The event that goes with a request for a job.
fn event(job: Uuid) -> Event {
    Event::new(EventType::ScanRequested, Actor::user(ids::new(), "admin"), "job")
        .subject(job)
        .job(job)
        .request(ids::new().to_string())
}

/// A job and its event, committed.
async fn enqueue_one(db: &Database, payload: &Noop) -> Result<Uuid> {
    let write = db.begin().await?;
    let job = new_job(payload)?;
    queue::enqueue(&*write, &job).await?;
    event(job.id).write(&*write).await?;
    write.commit().await?;
    Ok(job.id)
}

/// A worker with default settings.
fn worker(db: &Database) -> Process {
    let environment = [
        ("DATABASE_URL", db.url()),
        ("KEYWRIGHT_MASTER_KEY", crate::instance::MASTER_KEY),
        ("KEYWRIGHT_LOG_FORMAT", "json"),
    ];
    Process::start("keywright-worker", &environment)
}

/// A program of `tests/peer`.
fn peer(binary: &str, db: &Database) -> Result<Command> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(|folder| folder.parent()).context("target/release/<binary>")?;
    let program: PathBuf = target.join("peer/release").join(binary);
    ensure!(program.exists(), "{} is missing; ./just bench engine builds it", program.display());
    let mut command = Command::new(program);
    command.env("DATABASE_URL", db.url());
    Ok(command)
}

/// A line of a process's memory in MiB: `VmRSS` now, `VmHWM` at its peak. Not a number where the system does not tell.
fn memory(process: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes = found.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}

/// The figure below which this part of all lie.
fn quantile(figures: &mut [f64], part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let index = (figures.len() as f64 * part).ceil() as usize;
    figures.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
