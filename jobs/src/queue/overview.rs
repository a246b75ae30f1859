//! How the queues stand: for people, and for the gauges of a scrape.

use super::{outcome::sum_counts, row_time};
use crate::{kinds, setup::database::Database};
use chrono::{DateTime, Utc};
use keywright_entities::{clock, job, worker};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Value};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// Over how long the rate is taken.
const RATE: Duration = Duration::from_secs(60);

/// The jobs of one kind that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Queue {
    pub queued: i64,
    pub running: i64,
    pub waiting: i64,
    /// For how long the oldest job that is due has been due; `None` when none is.
    pub oldest: Option<Duration>,
}

/// Every kind that this program knows, and whatever else there is in the table.
///
/// Each part walks a partial index that holds open jobs only, so it costs nothing that millions have ended.
pub async fn queues(db: &Database) -> Result<BTreeMap<String, Queue>, DbErr> {
    const OPEN: &str = "SELECT kind, state, COUNT(*) AS jobs, MIN(due_at) AS due FROM (\
        SELECT kind, state, due_at FROM job WHERE due_at IS NOT NULL AND turn IS NOT NULL \
        UNION ALL SELECT kind, state, due_at FROM job WHERE due_at IS NOT NULL AND turn IS NULL \
        UNION ALL SELECT kind, state, NULL FROM job WHERE lease_until IS NOT NULL \
        UNION ALL SELECT kind, state, NULL FROM job \
          WHERE completed_at IS NULL AND due_at IS NULL AND lease_until IS NULL) AS open GROUP BY kind, state";
    let now = clock::now(db.reader()).await?;
    let mut found: BTreeMap<String, Queue> =
        kinds::KINDS.iter().map(|kind| ((*kind).to_owned(), Queue::default())).collect();
    for row in db.reader().query_all_raw(clock::statement(db.backend(), OPEN, [])).await? {
        let (kind, state): (String, String) = (row.try_get("", "kind")?, row.try_get("", "state")?);
        let jobs: i64 = row.try_get("", "jobs")?;
        let queue = found.entry(kind).or_default();
        *match state.as_str() {
            "queued" => &mut queue.queued,
            "waiting" => &mut queue.waiting,
            // one that is being canceled is still held, or has parts that are
            _ => &mut queue.running,
        } += jobs;
        let due: Option<DateTime<Utc>> = row_time(&row, "due")?;
        queue.oldest = queue.oldest.max(due.and_then(|due| (now - due).to_std().ok()));
    }
    Ok(found)
}

/// Per kind, how many jobs ended per second, over the last minute.
pub async fn rates(db: &Database) -> Result<BTreeMap<String, f64>, DbErr> {
    let since = clock::sql(db.backend(), -super::claim::millis(RATE));
    // kind by kind, as the index has it
    let text = format!("SELECT COUNT(*) AS jobs FROM job WHERE kind = $1 AND completed_at > {since}");
    let mut rates = BTreeMap::new();
    for kind in kinds::KINDS {
        let statement = clock::statement(db.backend(), &text, [Value::from(*kind)]);
        let jobs: i64 = match db.reader().query_one_raw(statement).await? {
            Some(row) => row.try_get("", "jobs")?,
            None => 0,
        };
        rates.insert((*kind).to_owned(), jobs as f64 / RATE.as_secs_f64());
    }
    Ok(rates)
}

/// By parent, what the open parts of these jobs have counted so far; what ended parts counted is in the parent's own row.
pub async fn open_counts(db: &impl ConnectionTrait, jobs: &[job::Model]) -> Result<HashMap<Uuid, Json>, DbErr> {
    let parents: Vec<Uuid> = jobs.iter().filter(|job| job.children_open > 0).map(|job| job.id).collect();
    let mut sums = HashMap::new();
    if parents.is_empty() {
        return Ok(sums);
    }
    let rows: Vec<(Option<Uuid>, Option<Json>)> = job::Entity::find()
        .select_only()
        .columns([job::Column::ParentId, job::Column::Counts])
        .filter(job::Column::ParentId.is_in(parents))
        .filter(job::Column::CompletedAt.is_null())
        .filter(job::Column::Counts.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    for (parent, counts) in rows {
        let Some(parent) = parent else { continue };
        let sum = sum_counts(sums.remove(&parent), counts.as_ref());
        sums.insert(parent, sum);
    }
    Ok(sums)
}

/// The workers that were seen within `silence`, by name.
pub async fn live_workers(db: &Database, silence: Duration) -> Result<Vec<worker::Model>, DbErr> {
    let silence = chrono::Duration::from_std(silence).unwrap_or(chrono::Duration::MAX);
    let since = clock::now(db.reader()).await? - silence;
    worker::Entity::find()
        .filter(worker::Column::LastSeenAt.gte(since))
        .order_by_asc(worker::Column::Name)
        .order_by_asc(worker::Column::Id)
        .all(db.reader())
        .await
}
