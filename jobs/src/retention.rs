//! Forgetting what has had its time, by any worker, a little at a time. Audit events and what is open are never forgotten.

use crate::{
    kinds,
    queue::{
        events,
        prune::{self, BATCH, PAUSE},
    },
    settings,
    setup::database::Database,
};
use keywright_entities::clock;
use sea_orm::{ConnectionTrait, DbErr};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often a worker looks for what has had its time.
const LOOK: Duration = Duration::from_secs(600);
/// Sign-ins and their refresh tokens are kept this long after their end: whoever comes late is told why.
const SESSIONS_DAYS: i64 = 7;
/// Failed logins stop to count after at most a day.
const FAILURES_DAYS: i64 = 1;
/// A state is good for minutes.
const RETURNS_DAYS: i64 = 1;
/// A lowered rate has long risen again by then.
const BUDGETS_DAYS: i64 = 1;

/// For how many days ended jobs are kept; 0 = for ever. Parts are kept as long as the job that they are parts of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Of kinds that are not named, and runs of schedules.
    pub days: u32,
    pub kinds: BTreeMap<String, u32>,
    /// `days` holds only where the settings say nothing.
    pub by_settings: bool,
}

impl Retention {
    /// The days for jobs of this kind.
    pub fn of(&self, kind: &str) -> u32 {
        self.kinds.get(kind).copied().unwrap_or(self.days)
    }
}

/// Forgets until it is told to stop.
pub async fn run(database: Database, retention: Retention, stop: CancellationToken) {
    let forgetting = async {
        loop {
            match forget_by_settings(&database, &retention).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "forgot what had had its time"),
                Err(error) => tracing::warn!(%error, "what has had its time could not be forgotten; trying again"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = forgetting => {}
        () = stop.cancelled() => {}
    }
}

async fn forget_by_settings(database: &Database, retention: &Retention) -> Result<u64, DbErr> {
    let mut retention = retention.clone();
    if retention.by_settings
        && let Some(days) = settings::read(database.reader()).await?.retention.jobs_days
    {
        retention.days = days;
    }
    forget(database, &retention).await
}

/// Forgets all that has had its time; tells how many rows.
///
/// # Errors
/// When the database does not take it; what was done until then is done.
pub async fn forget(database: &Database, retention: &Retention) -> Result<u64, DbErr> {
    let mut rows = 0;
    for kind in kinds::KINDS.iter().filter(|kind| retention.of(kind) > 0) {
        rows += prune::ended(database, kind, retention.of(kind)).await?;
    }
    if retention.days > 0 {
        // what a schedule shows as its last run stays
        let runs = "schedule_run WHERE fired_at < {cutoff} AND id NOT IN (SELECT last_run_id FROM schedule WHERE last_run_id IS NOT NULL)";
        rows += batches(database, "id", runs, i64::from(retention.days)).await?;
        rows += batches(database, "id", "approval WHERE decided_at < {cutoff}", i64::from(retention.days)).await?;
    }
    rows += events::forget(database).await?;
    rows += batches(database, "hash", "refresh_token WHERE expires_at < {cutoff}", SESSIONS_DAYS).await?;
    rows += batches(database, "id", "session WHERE expires_at < {cutoff}", SESSIONS_DAYS).await?;
    rows += batches(database, "id", "sso_return WHERE expires_at < {cutoff}", RETURNS_DAYS).await?;
    rows += batches(database, "id", "login_failures WHERE last_at < {cutoff}", FAILURES_DAYS).await?;
    rows += batches(database, "budget", "call_budget WHERE until < {cutoff}", BUDGETS_DAYS).await?;
    Ok(rows)
}

/// Deletes rows of a table, at most [`BATCH`] per transaction.
async fn batches(database: &Database, key: &str, which: &str, days: i64) -> Result<u64, DbErr> {
    let table = which.split_whitespace().next().unwrap_or_default();
    let mut rows = 0;
    loop {
        let cutoff = clock::sql(database.backend(), -days * 24 * 3600 * 1000);
        let which = which.replace("{cutoff}", &cutoff);
        let text = format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {which} LIMIT {BATCH})");
        let write = database.begin().await?;
        let gone = write.execute_unprepared(&text).await?.rows_affected();
        write.commit().await?;
        rows += gone;
        if gone < BATCH {
            return Ok(rows);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
