//! Taking due jobs, and taking back those whose worker is gone.

use super::{
    enqueue::PRIORITIES,
    limits::{self, Limits},
    line::{self, Back, ORDER, Progress},
    outcome, row, rows,
};
use crate::{
    kinds, metrics,
    setup::database::{Database, Write},
};
use keywright_entities::{clock, job, types::JobState};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, SqlErr, Value};
use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A job whose worker was lost this often, while the database was answering, is not tried again: it may be what kills them.
pub const MAX_RESCUES: i32 = 3;
/// A job that was lost this often fails with the next loss. A worker holds one such at a time, so that one that kills its workers
/// cannot take another with it on its last chance.
const LAST_CHANCE: i32 = MAX_RESCUES - 1;
/// How many lapsed leases one transaction takes back.
const RESCUE_BATCH: u64 = 50;
/// How often one claim looks past those that step aside.
const LOOKS: usize = 8;

/// Places to begin a look at the line from, by priority.
pub(super) type Since = [i64; PRIORITIES.len()];

/// What a worker can run.
#[derive(Clone, Debug)]
pub struct Capability {
    pub worker: Uuid,
    pub kinds: Vec<&'static str>,
    /// The newest payload version this program reads; jobs of a newer one wait for a newer worker.
    pub payload_version: i32,
    pub labels: Vec<String>,
    pub lease: Duration,
    /// Every worker should have the same: of several, that of the one that claims holds.
    pub limits: Limits,
    /// What it sees of the line. Not shared between workers.
    pub progress: Arc<Progress>,
}

/// Claims at most `free` jobs that stand in line, most urgent first. Claiming raises the epoch and begins a lease.
pub async fn claim(db: &Database, can: &Capability, free: usize) -> Result<Vec<job::Model>, DbErr> {
    if free == 0 || can.kinds.is_empty() {
        return Ok(Vec::new());
    }
    let mut claimed = from_line(db, can, free).await?;
    // whoever became due in the meantime comes into line only now: those who stood there are not held up by the look for them
    if claimed.len() < free && line::let_in(db).await? {
        claimed.extend(from_line(db, can, free - claimed.len()).await?);
    }
    Ok(claimed)
}

async fn from_line(db: &Database, can: &Capability, free: usize) -> Result<Vec<job::Model>, DbErr> {
    let limited = !can.limits.are_off();
    for _ in 0..LOOKS {
        if db.backend() == DbBackend::Sqlite && !limits::anybody(db, &can.limits).await? {
            return Ok(Vec::new());
        }
        let write = db.begin().await?;
        // SQLite keeps nothing that has left the line
        let since = can.progress.since().filter(|_| db.backend() == DbBackend::Postgres);
        let looked = Instant::now();
        let taken = if limited {
            limits::claim(&write, can, free, since).await
        } else {
            unlimited(&write, can, free, since).await
        };
        if since.is_none() {
            can.progress.looked(looked.elapsed());
        }
        let (mut claimed, stepped_aside) = match taken {
            // another worker took a job with the same lock at the same moment; the next poll sees its lease
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => (Vec::new(), false),
            taken => taken?,
        };
        if claimed.is_empty() && !stepped_aside {
            write.rollback().await?;
            return Ok(claimed);
        }
        // an UPDATE returns its rows in no order
        claimed.sort_by_key(|job| (Reverse(job.priority), job.turn, job.run_at, job.id));
        kinds::started(&*write, &claimed).await?;
        let served = can.progress.to_tell(claimed.iter().filter_map(|job| Some((job.priority, job.turn?))));
        line::tell(&*write, &served).await?;
        write.commit().await?;
        can.progress.told(served);
        if !claimed.is_empty() {
            return Ok(claimed);
        }
    }
    // that they stepped aside is news: whoever polls looks again at once
    Ok(Vec::new())
}

async fn unlimited(
    write: &Write,
    can: &Capability,
    free: usize,
    since: Option<Since>,
) -> Result<(Vec<job::Model>, bool), DbErr> {
    let (text, values) = claim_sql(write.get_database_backend(), can, free, since);
    rows(&**write, clock::statement(write.get_database_backend(), &text, values)).await.map(|claimed| (claimed, false))
}

/// What a worker may claim.
pub(super) struct Claimable {
    /// SQL for it; `$1` is the worker.
    pub condition: String,
    pub values: Vec<Value>,
}

impl Claimable {
    pub(super) fn by(can: &Capability) -> Self {
        let mut values: Vec<Value> = vec![can.worker.into(), can.payload_version.into()];
        let kinds = marks(&mut values, can.kinds.iter().map(|kind| Value::from(*kind)));
        let labels = marks(&mut values, can.labels.iter().map(|label| Value::from(label.as_str())));
        let condition = format!(
            "kind IN ({kinds}) AND payload_version <= $2 \
             AND (worker_label IS NULL OR worker_label IN ({labels})) \
             AND (rescues < {LAST_CHANCE} OR NOT EXISTS (\
               SELECT 1 FROM job mine WHERE mine.worker_id = $1 AND mine.lease_until IS NOT NULL \
                 AND mine.rescues >= {LAST_CHANCE})) \
             AND (lock_key IS NULL OR NOT EXISTS (\
               SELECT 1 FROM job holder WHERE holder.lock_key = job.lock_key AND holder.lease_until IS NOT NULL))"
        );
        Self { condition, values }
    }

    /// SQL for the first of them that stand in line.
    pub(super) fn first(&mut self, backend: DbBackend, columns: &str, free: usize, since: Option<Since>) -> String {
        // numbers in the text would make it a statement of its own, to be planned anew
        let most = marks(&mut self.values, std::iter::once(i64::try_from(free).unwrap_or(i64::MAX).into()));
        let since = since.map(|since| since.map(|place| marks(&mut self.values, std::iter::once(place.into()))));
        line::first(backend, columns, &self.condition, &most, since)
    }
}

/// SQL for a list of these further values.
pub(super) fn marks(values: &mut Vec<Value>, items: impl Iterator<Item = Value>) -> String {
    let before = values.len();
    values.extend(items);
    let marks: Vec<String> = (before + 1..=values.len()).map(|number| format!("${number}")).collect();
    // an empty list is no SQL
    if marks.is_empty() { "NULL".to_owned() } else { marks.join(", ") }
}

/// `due` locks candidates that no other claim has locked.
fn claim_sql(backend: DbBackend, can: &Capability, free: usize, since: Option<Since>) -> (String, Vec<Value>) {
    let mut claimable = Claimable::by(can);
    let due = claimable.first(backend, "id, lock_key, priority, turn, due_at, rescues", free, since);
    (begin_sql(backend, can, &due), claimable.values)
}

/// SQL that begins an attempt at those of these candidates that may run together: of one lock key, and of those on their last
/// chance, only the first is taken. `$1` is the worker.
pub(super) fn begin_sql(backend: DbBackend, can: &Capability, due: &str) -> String {
    let lease = clock::sql(backend, millis(can.lease));
    // parts have no more time than what they are parts of; a bound job's wait for its worker costs it none
    let whole = "(SELECT whole.deadline_at FROM job whole WHERE whole.id = job.parent_id)";
    let deadline = clock::sql_earlier(backend, &clock::sql_plus_column(backend, "timeout_seconds"), whole);
    // two claims at once that want the same locks would wait for each other on the unique index; so the second leaves them alone
    let free_lock = match backend {
        DbBackend::Postgres => " AND (lock_key IS NULL OR pg_try_advisory_xact_lock(hashtextextended(lock_key, 0)))",
        _ => "",
    };
    format!(
        "WITH due AS ({due}), \
         pick AS (SELECT id, lock_key, rescues, \
           ROW_NUMBER() OVER (PARTITION BY rescues >= {LAST_CHANCE} ORDER BY {ORDER}) AS chance, \
           ROW_NUMBER() OVER (\
           PARTITION BY lock_key, CASE WHEN lock_key IS NULL THEN id END ORDER BY {ORDER}) AS nth FROM due) \
         UPDATE job SET state = 'running', waiting_for = NULL, due_at = NULL, over_limit = NULL, epoch = epoch + 1, attempt = attempt + 1, \
           worker_id = $1, lease_until = {lease}, heartbeat_at = {{now}}, started_at = COALESCE(started_at, {{now}}), \
           deadline_at = CASE WHEN started_at IS NULL THEN {deadline} ELSE deadline_at END, version = version + 1 \
         WHERE id IN (SELECT id FROM pick WHERE nth = 1 \
           AND (rescues < {LAST_CHANCE} OR chance = 1){free_lock}) RETURNING *"
    )
}

/// Takes back the jobs whose lease lapsed, whoever held it: no leader, no worker row is asked.
///
/// The caller has itself reached the database for one whole lease, so that after an outage the holders renew first. Returns
/// how many were taken back.
pub async fn rescue(db: &Database) -> Result<usize, DbErr> {
    if !line::exists(db, "lease_until < {now}").await? {
        return Ok(0);
    }
    let write = db.begin().await?;
    let skip = if db.backend() == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text =
        format!("SELECT * FROM job WHERE lease_until < {{now}} ORDER BY lease_until LIMIT {RESCUE_BATCH} {skip}");
    let lapsed = rows(&*write, clock::statement(db.backend(), &text, [])).await?;
    for job in &lapsed {
        take_back(&*write, job).await?;
    }
    if lapsed.is_empty() {
        write.rollback().await?;
    } else {
        write.commit().await?;
        lapsed.iter().for_each(|job| metrics::rescued(&job.kind));
    }
    Ok(lapsed.len())
}

/// Takes a job back if it still is as it was read, with its lease lapsed: it may have ended, been given back, claimed again or
/// renewed since.
pub async fn take_back(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    tracing::warn!(job = %job.id, kind = %job.kind, rescues = job.rescues + 1, "lease lapsed, taking the job back");
    if job.state == JobState::Canceling {
        return outcome::end_lapsed(db, job, JobState::Canceled, None).await;
    }
    if job.rescues + 1 >= MAX_RESCUES {
        let reason = outcome::Reason {
            code: "worker_lost".to_owned(),
            detail: format!("the worker was lost {MAX_RESCUES} times while it ran this job"),
            permission: None,
        };
        return outcome::end_lapsed(db, job, JobState::Failed, Some(reason)).await;
    }
    let backend = db.get_database_backend();
    let back = Back::ready("attempt = attempt - 1, rescues = rescues + 1,").assignments(backend);
    let text = format!("UPDATE job SET {back} WHERE id = $1 AND epoch = $2 AND lease_until < {{now}} RETURNING *");
    row(db, clock::statement(backend, &text, [job.id.into(), job.epoch.into()])).await.map(|_| ())
}

const LATE: &str = "due_at IS NOT NULL AND deadline_at IS NOT NULL AND deadline_at < {now}";

/// Of a parent whose deadline has passed, the parts that nobody holds: they may rest, or have more time by themselves.
const LATE_PARTS: &str = "(due_at IS NOT NULL OR resume_at IS NOT NULL) AND parent_id IN (\
    SELECT id FROM job WHERE completed_at IS NULL AND due_at IS NULL AND lease_until IS NULL AND children_open > 0 \
      AND paused_at IS NULL AND deadline_at < {now})";

/// Ends queued and waiting jobs whose deadline, or that of what they are parts of, has passed. A parent ends with its last part.
pub async fn expire(db: &Database) -> Result<usize, DbErr> {
    Ok(expire_those(db, LATE).await? + expire_those(db, LATE_PARTS).await?)
}

async fn expire_those(db: &Database, which: &str) -> Result<usize, DbErr> {
    if !line::exists(db, which).await? {
        return Ok(0);
    }
    let write = db.begin().await?;
    let skip = if db.backend() == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text = format!("SELECT * FROM job WHERE {which} LIMIT {RESCUE_BATCH} {skip}");
    let late = rows(&*write, clock::statement(db.backend(), &text, [])).await?;
    for job in &late {
        outcome::end_unheld(&*write, job, JobState::Failed, Some(outcome::too_late(job))).await?;
    }
    if late.is_empty() {
        write.rollback().await?;
    } else {
        write.commit().await?;
    }
    Ok(late.len())
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
