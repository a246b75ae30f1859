//! What bare SQL does: the rows of a job by prepared statements of the driver, and nothing else.

use anyhow::Result;
use keywright_jobs::setup::ids;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use uuid::Uuid;

const JOB: &str = "INSERT INTO job (id, kind, payload_version, payload, request, priority, max_attempts, timeout_seconds, \
    requested_by_type, requested_by_id, requested_by_name, request_id, trigger, state, created_at, run_at, due_at, turn) \
    VALUES ($1, 'bench.noop', 1, $2, '{}', 0, 5, 3600, 'user', $3, 'admin', $4, 'api', 'queued', \
    statement_timestamp(), statement_timestamp(), statement_timestamp(), 0)";
const EVENT: &str = "INSERT INTO audit_outbox \
    (id, at, type, actor_type, actor_id, actor_name, subject_type, subject_id, outcome, request_id, job_id, details) \
    VALUES ($1, statement_timestamp(), 'scan.requested', 'user', $2, 'admin', 'job', $3, 'success', $4, $5, '{}')";
const BATCH: &str = "INSERT INTO job (id, kind, payload_version, payload, request, priority, max_attempts, timeout_seconds, \
    requested_by_type, requested_by_id, requested_by_name, request_id, trigger, state, created_at, run_at, due_at, turn) \
    SELECT id, 'bench.noop', 1, payload, '{}', 0, 5, 3600, 'user', actor, 'admin', request, 'api', 'queued', \
    statement_timestamp(), statement_timestamp(), statement_timestamp(), 0 \
    FROM unnest($1::uuid[], $2::jsonb[], $3::text[], $4::text[]) AS new (id, payload, actor, request)";
const BARE_TABLE: &str = "CREATE TABLE IF NOT EXISTS bench_bare (id uuid PRIMARY KEY, payload jsonb NOT NULL)";
const CLAIM: &str = "UPDATE job SET state = 'running', due_at = NULL, epoch = epoch + 1, attempt = attempt + 1, \
    lease_until = statement_timestamp() + interval '8 seconds', version = version + 1 \
    WHERE id IN (SELECT id FROM job WHERE due_at IS NOT NULL AND turn IS NOT NULL AND over_limit IS NULL \
    ORDER BY priority DESC, turn, due_at, id LIMIT 500 \
    FOR UPDATE SKIP LOCKED) RETURNING id";
const COMPLETE: &str = "UPDATE job SET state = 'succeeded', lease_until = NULL, completed_at = statement_timestamp(), \
    epoch = epoch + 1, version = version + 1 WHERE id = ANY($1)";

pub fn payload() -> Value {
    json!({"tell": null, "hold_ms": 0})
}

/// What one producer does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// A job and its event in an explicit transaction.
    Rows,
    /// One row of two columns, by itself.
    Bare,
    /// So many jobs by one statement, by itself.
    Batch(usize),
}

/// How many rows of jobs (or bare rows) a second so many producers insert, each on a connection of its own.
pub async fn insert(url: &str, producers: usize, span: Duration, what: Insert) -> Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..producers {
        connections.push(PgConnection::connect(url).await?);
    }
    if let Some(first) = connections.first_mut() {
        sqlx::query(BARE_TABLE).execute(first).await?;
    }
    let began = Instant::now();
    let producing: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move {
                let mut done = 0;
                while began.elapsed() < span {
                    done += once(&mut connection, what).await?;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut total = 0;
    for producer in producing {
        total += producer.await??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}

async fn once(connection: &mut PgConnection, what: Insert) -> Result<usize> {
    let text = || ids::new().to_string();
    match what {
        Insert::Rows => {
            let id = ids::new();
            let mut transaction = connection.begin().await?;
            let job = sqlx::query(JOB).bind(id).bind(payload()).bind(text()).bind(text());
            job.execute(&mut *transaction).await?;
            let event = sqlx::query(EVENT).bind(ids::new()).bind(text()).bind(id.to_string()).bind(text()).bind(id);
            event.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(1)
        }
        Insert::Bare => {
            let bare = sqlx::query("INSERT INTO bench_bare VALUES ($1, $2)").bind(ids::new()).bind(payload());
            bare.execute(connection).await?;
            Ok(1)
        }
        Insert::Batch(size) => {
            let ids: Vec<Uuid> = (0..size).map(|_| ids::new()).collect();
            let (payloads, texts) = (vec![payload(); size], vec![text(); size]);
            sqlx::query(BATCH).bind(ids).bind(payloads).bind(&texts).bind(&texts).execute(connection).await?;
            Ok(size)
        }
    }
}

/// Adds jobs that are due, in one transaction.
pub async fn fill(url: &str, jobs: u32) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("TRUNCATE job, audit_outbox").execute(&mut connection).await?;
    sqlx::query("VACUUM ANALYZE job").execute(&mut connection).await?;
    let mut transaction = connection.begin().await?;
    for _ in 0..jobs.div_ceil(1000) {
        once(&mut transaction, Insert::Batch(1000)).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Claims 500 and completes 500, on two connections, until nothing is due. The rows stay.
pub async fn drain(url: &str) -> Result<()> {
    let work = async || {
        let mut connection = PgConnection::connect(url).await?;
        loop {
            let ids: Vec<Uuid> = sqlx::query_scalar(CLAIM).fetch_all(&mut connection).await?;
            if ids.is_empty() {
                return anyhow::Ok(());
            }
            sqlx::query(COMPLETE).bind(ids).execute(&mut connection).await?;
        }
    };
    tokio::try_join!(work(), work())?;
    Ok(())
}
