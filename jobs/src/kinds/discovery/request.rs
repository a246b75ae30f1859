//! Asking for a scan: the job, the scan's row and the audit event are there together or not at all.

use super::scan::Scan;
use crate::{
    audit::{Actor, Event, EventType},
    kinds::StartRefused,
    queue::{self, Enqueued, NewJob, Requester},
    setup::database::Write,
};
use chrono::{DateTime, SecondsFormat, Utc};
use keywright_entities::{
    job, job_subscription, scan,
    scope::Scope,
    subscription,
    types::{ScanMode, Trigger},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use thiserror::Error;
use uuid::Uuid;

/// What to do when the same scan is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Answer with the running one.
    #[default]
    Join,
    /// Scan once more.
    Queue,
    Reject,
}

/// A scan as a client asks for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScanRequest {
    #[serde(default = "full")]
    pub mode: ScanMode,
    /// All enabled ones when not given.
    pub subscriptions: Option<Vec<Uuid>>,
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// -1 low, 0 normal, 1 high; as text in a body.
    #[serde(default, deserialize_with = "rank")]
    pub priority: i32,
    /// Not before this instant; a body that is stored has none.
    #[serde(skip)]
    pub run_at: Option<DateTime<Utc>>,
}

impl ScanRequest {
    /// Reads the body of a request that was accepted when it was stored.
    ///
    /// # Errors
    /// When the body is not one that this version accepts.
    pub fn from_body(body: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(body)
    }
}

fn rank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("normal") => Ok(0),
        Some("low") => Ok(-1),
        Some("high") => Ok(1),
        Some(_) => Err(D::Error::custom("priority is low, normal or high")),
    }
}

fn full() -> ScanMode {
    ScanMode::Full
}

/// Why a scan was not begun.
#[derive(Debug, Error)]
pub enum ScanRefused {
    /// Positions in the request's list.
    #[error("subscriptions that do not exist: {0:?}")]
    UnknownSubscriptions(Vec<usize>),
    #[error("no enabled subscription")]
    NothingToScan,
    #[error("the same scan is under way: {}", .0.id)]
    UnderWay(Box<job::Model>),
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl From<ScanRefused> for StartRefused {
    fn from(refused: ScanRefused) -> Self {
        let reason = |code, detail: &str, job| Self::Reason { code, detail: detail.to_owned(), job };
        match refused {
            ScanRefused::UnknownSubscriptions(_) => {
                reason("unknown_subscription", "A subscription of its body does not exist any more.", None)
            }
            ScanRefused::NothingToScan => {
                reason("no_subscription", "There was nothing to scan: no enabled subscription.", None)
            }
            ScanRefused::UnderWay(job) => reason("conflict", "The same scan was under way.", Some(job.id)),
            ScanRefused::Database(error) => Self::Database(error),
        }
    }
}

/// Begins a scan in the caller's transaction, or joins the one under way. A refusal has written nothing.
pub async fn scan(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    trigger: Trigger,
    mut request: ScanRequest,
) -> Result<Enqueued, ScanRefused> {
    let subscriptions = chosen(&**write, visible, request.subscriptions.as_deref()).await?;
    // "all" is not the same for everybody: who sees some must not join the scan of who sees more
    if *visible != Scope::All && request.subscriptions.is_none() {
        request.subscriptions = Some(subscriptions.clone());
    }
    let body = canonical(&request);
    let payload = Scan { mode: request.mode, subscriptions, only: None };
    let mut new = NewJob::new(&payload, requester.clone(), trigger)
        .map_err(|error| DbErr::Json(error.to_string()))?
        .priority(request.priority)
        .not_before(request.run_at)
        .request(body.clone());
    if request.on_conflict != OnConflict::Queue {
        new = new.unique(body.to_string());
    }
    match begin(&**write, &new, &payload, requester).await? {
        Enqueued::Open(job) if request.on_conflict == OnConflict::Reject => Err(ScanRefused::UnderWay(Box::new(job))),
        begun => Ok(begun),
    }
}

/// What makes two requests the same: all that was asked for but `onConflict`.
fn canonical(request: &ScanRequest) -> Value {
    let mut subscriptions = request.subscriptions.clone();
    if let Some(ids) = &mut subscriptions {
        ids.sort_unstable();
        ids.dedup();
    }
    let mut body = json!({"mode": request.mode, "subscriptions": subscriptions});
    if let Some(fields) = body.as_object_mut() {
        if request.priority != 0 {
            fields.insert("priority".to_owned(), if request.priority > 0 { "high" } else { "low" }.into());
        }
        if let Some(instant) = request.run_at {
            fields.insert("runAt".to_owned(), instant.to_rfc3339_opts(SecondsFormat::AutoSi, false).into());
        }
    }
    body
}

/// Writes the job and, when it is a new one, the row of its scan and the audit event.
pub(super) async fn begin(
    db: &impl ConnectionTrait,
    new: &NewJob,
    payload: &Scan,
    requester: Requester,
) -> Result<Enqueued, DbErr> {
    let job = match queue::enqueue(db, new).await? {
        Enqueued::New(job) => job,
        open => return Ok(open),
    };
    scan::ActiveModel {
        id: Set(job.id),
        mode: Set(payload.mode),
        subscriptions: Set(json!(payload.subscriptions)),
        created_at: Set(job.created_at),
        floor_seconds: Set(None),
    }
    .insert(db)
    .await?;
    let planned = payload.subscriptions.iter().collect::<BTreeSet<_>>().into_iter();
    let planned = planned.map(|id| job_subscription::ActiveModel { job_id: Set(job.id), subscription_id: Set(*id) });
    job_subscription::Entity::insert_many(planned).exec_without_returning(db).await?;
    let actor = Actor { actor_type: requester.actor, id: requester.id, name: requester.name };
    Event::new(EventType::ScanRequested, actor, "scan")
        .subject(job.id)
        .job(job.id)
        .request(requester.request_id.unwrap_or_default())
        .detail("mode", payload.mode.as_str())
        .detail("subscriptions", json!(payload.subscriptions))
        .detail("retryOf", job.retry_of.map(|id| id.to_string()))
        .write(db)
        .await?;
    Ok(Enqueued::New(job))
}

/// The enabled ones among those asked for.
pub(super) async fn chosen(
    db: &impl ConnectionTrait,
    visible: &Scope,
    wanted: Option<&[Uuid]>,
) -> Result<Vec<Uuid>, ScanRefused> {
    let mut select = subscription::live().filter(visible.on(subscription::Column::Id));
    if let Some(wanted) = wanted {
        select = select.filter(subscription::Column::Id.is_in(wanted.iter().copied()));
    }
    let found = select.order_by_asc(subscription::Column::Id).all(db).await?;
    let unknown = missing(wanted.unwrap_or_default(), &found);
    if !unknown.is_empty() {
        return Err(ScanRefused::UnknownSubscriptions(unknown));
    }
    let enabled: Vec<Uuid> = found.into_iter().filter(|one| one.enabled).map(|one| one.id).collect();
    if enabled.is_empty() { Err(ScanRefused::NothingToScan) } else { Ok(enabled) }
}

/// The positions of those that do not exist, or that may not be seen.
///
/// # Errors
/// When the database cannot tell.
pub async fn unknown(db: &impl ConnectionTrait, visible: &Scope, wanted: &[Uuid]) -> Result<Vec<usize>, DbErr> {
    let select = subscription::live().filter(visible.on(subscription::Column::Id));
    let found = select.filter(subscription::Column::Id.is_in(wanted.iter().copied())).all(db).await?;
    Ok(missing(wanted, &found))
}

fn missing(wanted: &[Uuid], found: &[subscription::Model]) -> Vec<usize> {
    let missing = |id: &Uuid| !found.iter().any(|subscription| subscription.id == *id);
    wanted.iter().enumerate().filter(|(_, id)| missing(id)).map(|(n, _)| n).collect()
}
