//! How much work there is, and who does it.

use super::Tag;
use crate::{
    auth::{caller::Caller, permissions::perm},
    error::ApiError,
    timestamp::Timestamp,
};
use keywright_entities::worker;
use keywright_jobs::{queue::overview, setup::database::Database};
use poem_openapi::{Object, OpenApi, payload::Json, types::Any};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// How the queues stand, and the workers that are alive.
#[derive(Debug, Object)]
pub struct Queues {
    /// One for each kind of job, by name.
    pub queues: Vec<QueueView>,
    /// Those that were seen within two lease times, by name.
    pub workers: Vec<WorkerView>,
}

/// The jobs of one kind that have not ended, parts included. Counted over the whole instance.
#[derive(Debug, Object)]
#[oai(rename = "Queue", rename_all = "camelCase")]
pub struct QueueView {
    pub kind: String,
    /// Queued, now or for later.
    pub queued: i64,
    /// Running or canceling; a job whose parts run counts too.
    pub running: i64,
    pub waiting: i64,
    /// For how many seconds the oldest job that is due has been due; null when none is.
    pub oldest_age_seconds: Option<f64>,
    /// How many ended per second, over the last minute.
    pub rate_per_second: f64,
}

/// A worker process.
#[derive(Debug, Object)]
#[oai(rename = "Worker", rename_all = "camelCase")]
pub struct WorkerView {
    /// New with every start.
    pub id: Uuid,
    pub name: String,
    pub version: String,
    pub labels: Vec<String>,
    /// How many jobs it runs at once.
    pub concurrency: i32,
    pub started_at: Timestamp,
    pub last_seen_at: Timestamp,
    /// When it last asked for jobs.
    pub last_claim_at: Option<Timestamp>,
    /// Per provider, the cloud identity that it last acted as.
    pub identity: Any<Value>,
}

impl From<worker::Model> for WorkerView {
    fn from(row: worker::Model) -> Self {
        let labels = row.labels.as_array().into_iter().flatten();
        Self {
            id: row.id,
            name: row.name,
            version: row.version,
            labels: labels.filter_map(Value::as_str).map(str::to_owned).collect(),
            concurrency: row.concurrency,
            started_at: row.started_at.into(),
            last_seen_at: row.last_seen_at.into(),
            last_claim_at: row.last_claim_at.map(Into::into),
            identity: Any(row.identity),
        }
    }
}

pub struct QueuesApi {
    pub database: Database,
    /// A worker that was not seen for this long does not count as live.
    pub worker_silence: Duration,
}

#[OpenApi(tag = "Tag::Jobs")]
impl QueuesApi {
    /// Get the queues and the live workers
    #[oai(path = "/api/queues", method = "get", operation_id = "getQueues")]
    async fn get(&self, _caller: Caller<perm::JobsRead>) -> Result<Json<Queues>, ApiError> {
        let (queues, rates) = (overview::queues(&self.database).await?, overview::rates(&self.database).await?);
        let workers = overview::live_workers(&self.database, self.worker_silence).await?;
        let queues = queues.into_iter().map(|(kind, queue)| QueueView {
            rate_per_second: rates.get(&kind).copied().unwrap_or_default(),
            kind,
            queued: queue.queued,
            running: queue.running,
            waiting: queue.waiting,
            oldest_age_seconds: queue.oldest.map(|age| age.as_secs_f64()),
        });
        Ok(Json(Queues { queues: queues.collect(), workers: workers.into_iter().map(Into::into).collect() }))
    }
}
