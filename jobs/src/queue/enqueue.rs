//! Putting a job into the queue, in the caller's transaction.

mod batch;

pub use batch::enqueue_all;

use super::{
    line,
    outcome::{Reason, end_unheld},
    row,
};
use crate::{job::Job, setup::ids};
use chrono::{DateTime, Utc};
use keywright_entities::{
    clock, job,
    types::{ActorType, JobState, Trigger},
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Value};
use serde_json::Value as Json;
use uuid::Uuid;

/// Most urgent first: high, normal, low.
pub const PRIORITIES: [i32; 3] = [1, 0, -1];

/// Who asked for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    pub actor: ActorType,
    pub id: Option<String>,
    pub name: Option<String>,
    pub request_id: Option<String>,
    /// The W3C trace context of the request, to which attempts are linked.
    pub traceparent: Option<String>,
}

impl Requester {
    /// The product itself.
    pub fn system() -> Self {
        Self { actor: ActorType::System, id: None, name: None, request_id: None, traceparent: None }
    }
}

/// A job to be. Made by [`NewJob::new`], refined by its setters, written by [`enqueue`].
#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: Uuid,
    kind: &'static str,
    payload_version: i32,
    payload: Json,
    request: Json,
    priority: i32,
    run_at: Option<DateTime<Utc>>,
    max_attempts: i32,
    timeout_seconds: i32,
    unique_key: Option<String>,
    lock_key: Option<String>,
    worker_label: Option<String>,
    subscription_id: Option<Uuid>,
    parent_id: Option<Uuid>,
    retry_of: Option<Uuid>,
    scope: Option<(String, String)>,
    failed: Option<Reason>,
    requester: Requester,
    trigger: Trigger,
}

impl NewJob {
    /// # Errors
    /// When the payload cannot be written as JSON.
    pub fn new<J: Job>(payload: &J, requester: Requester, trigger: Trigger) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: ids::new(),
            kind: J::KIND,
            payload_version: J::PAYLOAD_VERSION,
            payload: serde_json::to_value(payload)?,
            request: Json::Object(serde_json::Map::new()),
            priority: 0,
            run_at: None,
            max_attempts: J::MAX_ATTEMPTS,
            timeout_seconds: i32::try_from(J::TIMEOUT.as_secs()).unwrap_or(i32::MAX),
            unique_key: None,
            lock_key: None,
            worker_label: None,
            subscription_id: None,
            parent_id: None,
            retry_of: None,
            scope: None,
            failed: None,
            requester,
            trigger,
        })
    }

    /// What the client asked for, without anything secret.
    pub fn request(mut self, request: Json) -> Self {
        self.request = request;
        self
    }

    /// One of [`PRIORITIES`]: all that is due of a higher one is claimed before any of a lower one.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Not before this instant of the database's clock.
    pub fn not_before(mut self, instant: Option<DateTime<Utc>>) -> Self {
        self.run_at = instant;
        self
    }

    /// Among open jobs of this kind there will be at most one with this key.
    pub fn unique(mut self, key: String) -> Self {
        self.unique_key = Some(key);
        self
    }

    /// Among running jobs there will be at most one with this key.
    pub fn lock(mut self, key: String) -> Self {
        self.lock_key = Some(key);
        self
    }

    /// Only workers that carry this label will run it.
    pub fn on_workers(mut self, label: Option<String>) -> Self {
        self.worker_label = label;
        self
    }

    pub fn of_subscription(mut self, subscription: Uuid) -> Self {
        self.subscription_id = Some(subscription);
        self
    }

    pub fn child_of(mut self, parent: Uuid) -> Self {
        self.parent_id = Some(parent);
        self
    }

    pub fn retrying(mut self, job: Uuid) -> Self {
        self.retry_of = Some(job);
        self
    }

    pub fn scope(mut self, region: String, kind: String) -> Self {
        self.scope = Some((region, kind));
        self
    }

    /// A job that is bound to a worker waits for one to come.
    fn first_state(&self) -> (&'static str, Option<&'static str>) {
        match self.worker_label {
            Some(_) => ("waiting", Some("worker")),
            None => ("queued", None),
        }
    }

    /// It is known that this child cannot be done: it is written as failed, so that its parent counts it.
    pub fn failed_already(mut self, reason: Reason) -> Self {
        self.failed = Some(reason);
        self
    }
}

/// What came of enqueueing.
#[derive(Clone, Debug, PartialEq)]
pub enum Enqueued {
    New(job::Model),
    /// An open job with the same unique key was there already.
    Open(job::Model),
}

/// Writes the job, or finds the open one with its unique key.
///
/// The row exists exactly when the caller's transaction commits.
pub async fn enqueue(db: &impl ConnectionTrait, new: &NewJob) -> Result<Enqueued, DbErr> {
    // the open job may end between the insert that met it and the look for it; then the next insert succeeds
    for _ in 0..8 {
        if let Some(job) = insert(db, new).await? {
            if new.failed.is_some() {
                end_unheld(db, &job, JobState::Failed, new.failed.clone()).await?;
            }
            return Ok(Enqueued::New(job));
        }
        if let Some(job) = open_with_key(db, new.kind, new.unique_key.as_deref()).await? {
            return Ok(Enqueued::Open(job));
        }
    }
    Err(DbErr::RecordNotInserted)
}

/// What a new row brings, with the types that PostgreSQL reads from a document. The rest follows from the clock and the line.
const COLUMNS: [(&str, &str); 25] = [
    ("id", "uuid"),
    ("kind", "text"),
    ("payload_version", "integer"),
    ("payload", "jsonb"),
    ("request", "jsonb"),
    ("priority", "integer"),
    ("max_attempts", "integer"),
    ("timeout_seconds", "integer"),
    ("unique_key", "text"),
    ("lock_key", "text"),
    ("worker_label", "text"),
    ("subscription_id", "uuid"),
    ("parent_id", "uuid"),
    ("retry_of", "uuid"),
    ("scope_region", "text"),
    ("scope_kind", "text"),
    ("requested_by_type", "text"),
    ("requested_by_id", "text"),
    ("requested_by_name", "text"),
    ("request_id", "text"),
    ("trigger", "text"),
    ("traceparent", "text"),
    ("state", "text"),
    ("waiting_for", "text"),
    ("run_at", "timestamptz"),
];

/// SQL: of an open job with the same unique key nothing is written, and no row returned.
const UNLESS_OPEN: &str =
    "ON CONFLICT (kind, unique_key) WHERE unique_key IS NOT NULL AND completed_at IS NULL DO NOTHING";

/// SQL for the deadline of a job that has not begun. A part has no more time than what it is a part of; one that is bound to a
/// worker that never comes must end as well.
fn first_deadline(backend: DbBackend, [label, parent, run_at, timeout]: [&str; 4]) -> String {
    let whole = format!("(SELECT whole.deadline_at FROM job whole WHERE whole.id = {parent})");
    let bound = clock::sql_plus_seconds(backend, &format!("COALESCE({run_at}, {{now}})"), timeout);
    let bound = clock::sql_earlier(backend, &bound, &whole);
    format!("CASE WHEN {label} IS NULL THEN {whole} ELSE {bound} END")
}

fn insert_sql(backend: DbBackend, of_subscription: bool) -> String {
    let names = COLUMNS.map(|(name, _)| name).join(", ");
    let place = line::place(backend, "$6", of_subscription.then_some("$12"));
    let deadline = first_deadline(backend, ["$11", "$13", "$25", "$8"]);
    format!(
        "INSERT INTO job ({names}, created_at, due_at, deadline_at, turn) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, \
         COALESCE($25, {{now}}), {{now}}, COALESCE($25, {{now}}), {deadline}, \
         CASE WHEN $25 > {{now}} THEN NULL ELSE {place} END) \
         {UNLESS_OPEN} RETURNING *"
    )
}

async fn insert(db: &impl ConnectionTrait, new: &NewJob) -> Result<Option<job::Model>, DbErr> {
    let (region, scope_kind) = new.scope.clone().unzip();
    let (state, waiting) = new.first_state();
    let values: [Value; COLUMNS.len()] = [
        new.id.into(),
        new.kind.into(),
        new.payload_version.into(),
        new.payload.clone().into(),
        new.request.clone().into(),
        new.priority.into(),
        new.max_attempts.into(),
        new.timeout_seconds.into(),
        new.unique_key.clone().into(),
        new.lock_key.clone().into(),
        new.worker_label.clone().into(),
        new.subscription_id.into(),
        new.parent_id.into(),
        new.retry_of.into(),
        region.into(),
        scope_kind.into(),
        new.requester.actor.as_str().into(),
        new.requester.id.clone().into(),
        new.requester.name.clone().into(),
        new.requester.request_id.clone().into(),
        new.trigger.as_str().into(),
        new.requester.traceparent.clone().into(),
        state.into(),
        waiting.into(),
        new.run_at.into(),
    ];
    let backend = db.get_database_backend();
    row(db, clock::statement(backend, &insert_sql(backend, new.subscription_id.is_some()), values)).await
}

/// The open job of this kind and unique key.
pub async fn open_with_key(
    db: &impl ConnectionTrait,
    kind: &str,
    key: Option<&str>,
) -> Result<Option<job::Model>, DbErr> {
    use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
    let Some(key) = key else { return Ok(None) };
    job::Entity::find()
        .filter(job::Column::Kind.eq(kind))
        .filter(job::Column::UniqueKey.eq(key))
        .filter(job::Column::CompletedAt.is_null())
        .one(db)
        .await
}
