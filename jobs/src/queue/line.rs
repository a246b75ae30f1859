//! The line of jobs that may be claimed now, and how jobs come into it.
//!
//! Within a priority, subscriptions take turns however many jobs each has: a job's place is one after the last of its
//! subscription that stands in line, but not before what was served (start-time fair queueing; Goyal, Vin and Cheng, "Start-time
//! Fair Queueing", 1996), as claimers tell it in `line_head`. So a claim is one walk along an index. A job that is due later stands beside the line
//! and gets its place when it is due. A job whose kind or subscription runs as many as it may stands aside and keeps its place:
//! see [`super::limits`].

mod progress;

pub use progress::Progress;

use super::{HELD, enqueue::PRIORITIES, lease::Held, row};
use crate::setup::database::Database;
use keywright_entities::clock;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Value};
use std::{collections::BTreeMap, time::Duration};

/// How many jobs one transaction lets into the line.
const BATCH: u64 = 500;

/// SQL for "stands in line".
pub(super) const IN_LINE: &str = "due_at IS NOT NULL AND turn IS NOT NULL AND over_limit IS NULL";
/// SQL for the line's order.
pub(super) const ORDER: &str = "priority DESC, turn, due_at, id";
/// SQL for "is due later, or was when it was last looked at".
const BESIDE: &str = "due_at IS NOT NULL AND turn IS NULL";

/// SQL for the place of a job of this priority and subscription, each a parameter or a column; `None`: of no subscription.
pub(super) fn place(backend: DbBackend, priority: &str, subscription: Option<&str>) -> String {
    // the last of its subscription is found from that index's end: MAX would have PostgreSQL read all that have no subscription,
    // whom it does not take for equal. Nobody stands before what is served who counts, but entries of the index that PostgreSQL
    // has not yet forgotten
    let same = subscription.map_or("IS NULL".to_owned(), |subscription| format!("= {subscription}"));
    let greatest = if backend == DbBackend::Sqlite { "MAX" } else { "GREATEST" };
    let served = format!("(SELECT head.turn FROM line_head head WHERE head.priority = {priority})");
    format!(
        "{greatest}({served}, \
         COALESCE((SELECT o.turn + 1 FROM job o WHERE o.due_at IS NOT NULL AND o.turn IS NOT NULL \
           AND o.priority = {priority} AND o.subscription_id {same} AND o.turn >= {served} \
           ORDER BY o.subscription_id DESC, o.turn DESC LIMIT 1), 0))"
    )
}

/// SQL for the first of the line that meet a condition, locked on PostgreSQL against other claims. `most` and `since`, the places
/// to begin at, are parameters; without `since` it is the whole line.
pub(super) fn first(
    backend: DbBackend,
    columns: &str,
    condition: &str,
    most: &str,
    since: Option<[String; PRIORITIES.len()]>,
) -> String {
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    match since {
        None => {
            format!("SELECT {columns} FROM job WHERE {IN_LINE} AND {condition} ORDER BY {ORDER} LIMIT {most} {skip}")
        }
        // one walk for each priority, of which the later ones begin only when the earlier ones were not enough
        Some(since) => {
            let starts: Vec<String> = PRIORITIES
                .iter()
                .zip(since)
                .map(|(priority, since)| format!("({priority}, CAST({since} AS bigint))"))
                .collect();
            format!(
                "SELECT walk.* FROM (VALUES {}) AS start(priority, turn) CROSS JOIN LATERAL (\
                   SELECT {columns} FROM job WHERE {IN_LINE} AND job.priority = start.priority AND job.turn >= start.turn \
                     AND {condition} ORDER BY job.turn, due_at, id LIMIT {most} {skip}) AS walk LIMIT {most}",
                starts.join(", ")
            )
        }
    }
}

/// Tells those who ask for places how far the line was served. Nobody waits for another who is telling the same.
pub(super) async fn tell(db: &impl ConnectionTrait, served: &BTreeMap<i32, i64>) -> Result<(), DbErr> {
    let backend = db.get_database_backend();
    let text = if backend == DbBackend::Postgres {
        "UPDATE line_head SET turn = $2 WHERE priority IN (\
           SELECT priority FROM line_head WHERE priority = $1 AND turn < $2 FOR UPDATE SKIP LOCKED)"
    } else {
        "UPDATE line_head SET turn = $2 WHERE priority = $1 AND turn < $2"
    };
    for (priority, place) in served {
        db.execute_raw(clock::statement(backend, text, [(*priority).into(), (*place).into()])).await?;
    }
    Ok(())
}

/// Whether any job meets a condition.
pub(super) async fn exists(db: &Database, condition: &str) -> Result<bool, DbErr> {
    let text = format!("SELECT 1 AS found FROM job WHERE {condition} LIMIT 1");
    Ok(db.reader().query_one_raw(clock::statement(db.backend(), &text, [])).await?.is_some())
}

/// Lets those into the line that have become due. Tells whether there were any.
pub(super) async fn let_in(db: &Database) -> Result<bool, DbErr> {
    if !exists(db, &format!("{BESIDE} AND due_at <= {{now}}")).await? {
        return Ok(false);
    }
    let backend = db.backend();
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let (own, none) =
        (place(backend, "ripe.priority", Some("ripe.subscription_id")), place(backend, "ripe.priority", None));
    // those of one subscription that become due together come one after the other, as if one by one
    let text = format!(
        "WITH due AS (SELECT id, priority, subscription_id, due_at FROM job WHERE {BESIDE} AND due_at <= {{now}} \
           ORDER BY due_at LIMIT {BATCH} {skip}), \
         ripe AS (SELECT id, priority, subscription_id, \
           ROW_NUMBER() OVER (PARTITION BY priority, subscription_id ORDER BY due_at, id) - 1 AS later FROM due) \
         UPDATE job SET turn = ripe.later + CASE WHEN ripe.subscription_id IS NULL THEN {none} ELSE {own} END \
         FROM ripe WHERE job.id = ripe.id"
    );
    let write = db.begin().await?;
    let moved = write.execute_raw(clock::statement(backend, &text, [])).await?.rows_affected();
    write.commit().await?;
    Ok(moved > 0)
}

/// How a job that nobody holds any more goes on.
pub(super) struct Back {
    /// SQL of the new state and of what is waited for.
    pub state: &'static str,
    pub waiting_for: &'static str,
    pub after: Duration,
    /// SQL of further assignments, with a comma at its end.
    pub also: &'static str,
}

/// Ready to run: one that is bound to a worker waits for one to come.
pub(super) const READY: &str = "CASE WHEN worker_label IS NULL THEN 'queued' ELSE 'waiting' END";
pub(super) const READY_WAITS: &str = "CASE WHEN worker_label IS NULL THEN NULL ELSE 'worker' END";

impl Back {
    /// At once, at its old place.
    pub(super) fn ready(also: &'static str) -> Self {
        Self { state: READY, waiting_for: READY_WAITS, after: Duration::ZERO, also }
    }

    /// SQL that lets go of a job: into the line, beside it, or to rest when somebody paused it.
    pub(super) fn assignments(&self, backend: DbBackend) -> String {
        let Self { state, waiting_for, after, also } = self;
        let due = clock::sql(backend, super::claim::millis(*after));
        let turn = if after.is_zero() { "CASE WHEN paused_at IS NULL THEN turn END" } else { "NULL" };
        format!(
            "{also} state = CASE WHEN paused_at IS NULL THEN {state} ELSE 'waiting' END, \
             waiting_for = CASE WHEN paused_at IS NULL THEN {waiting_for} ELSE 'pause' END, \
             due_at = CASE WHEN paused_at IS NULL THEN {due} END, \
             resume_at = CASE WHEN paused_at IS NULL THEN NULL ELSE {due} END, \
             turn = {turn}, \
             lease_until = NULL, worker_id = NULL, epoch = epoch + 1, version = version + 1"
        )
    }

    /// Lets go of a held job. `false`: the lease was lost.
    pub(super) async fn let_go(
        &self,
        db: &impl ConnectionTrait,
        held: &Held,
        more: impl IntoIterator<Item = Value>,
    ) -> Result<bool, DbErr> {
        let backend = db.get_database_backend();
        let text =
            format!("UPDATE job SET {} WHERE id = $1 AND epoch = $2 AND {HELD} RETURNING *", self.assignments(backend));
        let values = held.fence().into_iter().chain(more);
        Ok(row(db, clock::statement(backend, &text, values)).await?.is_some())
    }
}
