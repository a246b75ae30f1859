//! Many jobs at once, with one statement for hundreds of them.

use super::{COLUMNS, Enqueued, NewJob, UNLESS_OPEN, enqueue, first_deadline};
use crate::queue::line;
use chrono::SecondsFormat;
use keywright_entities::clock;
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use serde_json::{Value as Json, json};

/// Jobs of one statement.
const ROWS: usize = 500;

/// Puts jobs into the queue in the caller's transaction, and returns how many are new: the others met an open job with their
/// unique key.
pub async fn enqueue_all(db: &impl ConnectionTrait, jobs: &[NewJob]) -> Result<u64, DbErr> {
    let (plain, failed): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| job.failed.is_none());
    let backend = db.get_database_backend();
    let text = insert_sql(backend);
    let mut new = 0;
    for some in plain.chunks(ROWS) {
        let rows: Vec<Json> = some.iter().enumerate().map(|(number, job)| to_row(number, job)).collect();
        let statement = clock::statement(backend, &text, [Json::Array(rows).into()]);
        new += db.execute_raw(statement).await?.rows_affected();
    }
    for job in failed {
        if let Enqueued::New(_) = enqueue(db, job).await? {
            new += 1;
        }
    }
    Ok(new)
}

fn to_row(number: usize, job: &NewJob) -> Json {
    let (region, scope_kind) = job.scope.clone().unzip();
    let (state, waiting) = job.first_state();
    json!({
        "number": number,
        "id": job.id,
        "kind": job.kind,
        "payload_version": job.payload_version,
        "payload": job.payload,
        "request": job.request,
        "priority": job.priority,
        "max_attempts": job.max_attempts,
        "timeout_seconds": job.timeout_seconds,
        "unique_key": job.unique_key,
        "lock_key": job.lock_key,
        "worker_label": job.worker_label,
        "subscription_id": job.subscription_id,
        "parent_id": job.parent_id,
        "retry_of": job.retry_of,
        "scope_region": region,
        "scope_kind": scope_kind,
        "requested_by_type": job.requester.actor.as_str(),
        "requested_by_id": job.requester.id,
        "requested_by_name": job.requester.name,
        "request_id": job.requester.request_id,
        "trigger": job.trigger.as_str(),
        "traceparent": job.requester.traceparent,
        "state": state,
        "waiting_for": waiting,
        // in the spelling of instants that the driver has on SQLite
        "run_at": job.run_at.map(|instant| instant.to_rfc3339_opts(SecondsFormat::AutoSi, false)),
    })
}

/// The rows are one parameter, so that the text is the same for any number of them and is prepared once. Jobs of one
/// subscription get places one after the other, as if they came one by one.
fn insert_sql(backend: DbBackend) -> String {
    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let rows = match backend {
        DbBackend::Sqlite => {
            let columns: Vec<String> = COLUMNS.iter().map(|(name, kind)| sqlite_column(name, kind)).collect();
            format!("SELECT value ->> 'number' AS number, {} FROM json_each($1)", columns.join(", "))
        }
        _ => {
            let columns: Vec<String> = COLUMNS.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            format!("SELECT * FROM jsonb_to_recordset($1) AS given(number integer, {})", columns.join(", "))
        }
    };
    let (own, none) = (
        line::place(backend, "flow.priority", Some("flow.subscription_id")),
        line::place(backend, "flow.priority", None),
    );
    let deadline = first_deadline(
        backend,
        ["numbered.worker_label", "numbered.parent_id", "numbered.run_at", "numbered.timeout_seconds"],
    );
    format!(
        "WITH new AS ({rows}), \
         placed AS (SELECT priority AS of_priority, subscription_id AS of_subscription, \
           CASE WHEN subscription_id IS NULL THEN {none} ELSE {own} END AS place \
           FROM (SELECT DISTINCT priority, subscription_id FROM new WHERE run_at IS NULL OR run_at <= {{now}}) AS flow), \
         numbered AS (SELECT new.*, placed.place, \
           ROW_NUMBER() OVER (PARTITION BY priority, subscription_id, placed.place IS NULL ORDER BY number) - 1 AS later \
           FROM new LEFT JOIN placed ON placed.of_priority = new.priority \
             AND placed.of_subscription IS NOT DISTINCT FROM new.subscription_id \
             AND (new.run_at IS NULL OR new.run_at <= {{now}})) \
         INSERT INTO job ({names}, created_at, due_at, deadline_at, turn) \
         SELECT {values}, {{now}}, COALESCE(run_at, {{now}}), {deadline}, place + later \
         FROM numbered WHERE TRUE {UNLESS_OPEN}",
        // the document null is none of SQL's
        values = names.replace("run_at", "COALESCE(run_at, {now})").replace(" payload,", " COALESCE(payload, 'null'),"),
    )
}

/// Identifiers are kept as their 16 bytes, documents as their text.
fn sqlite_column(name: &str, kind: &str) -> String {
    match kind {
        "uuid" => format!("unhex(value ->> '{name}', '-') AS {name}"),
        "jsonb" => format!("value -> '{name}' AS {name}"),
        _ => format!("value ->> '{name}' AS {name}"),
    }
}
