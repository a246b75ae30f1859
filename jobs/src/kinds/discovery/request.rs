//! Asking for a scan: the job, the scan's row and the audit event are there together or not at all.

use super::scan::Scan;
use crate::{
    audit::{Actor, Event, EventType},
    kinds::StartRefused,
    queue::{self, Enqueued, NewJob, Requester},
    setup::database::{Database, Write},
};
use keywright_entities::{
    job, scan,
    scope::Scope,
    subscription,
    types::{ScanMode, Trigger},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, QueryFilter, QueryOrder};
use serde::Deserialize;
use serde_json::{Value, json};
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

/// Begins a scan, or joins the one under way.
pub async fn scan(
    database: &Database,
    visible: &Scope,
    requester: Requester,
    request: ScanRequest,
) -> Result<Enqueued, ScanRefused> {
    let write = database.begin().await?;
    let begun = scan_in(&write, visible, requester, Trigger::Api, request).await?;
    write.commit().await?;
    Ok(begun)
}

/// The same in the caller's transaction. A refusal has written nothing.
pub async fn scan_in(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    trigger: Trigger,
    request: ScanRequest,
) -> Result<Enqueued, ScanRefused> {
    let subscriptions = chosen(&**write, visible, request.subscriptions.as_deref()).await?;
    let mut wanted = request.subscriptions.clone();
    if let Some(ids) = &mut wanted {
        ids.sort_unstable();
        ids.dedup();
    }
    let body = json!({"mode": request.mode, "subscriptions": wanted});
    let payload = Scan { mode: request.mode, subscriptions: subscriptions.clone() };
    let actor = Actor { actor_type: requester.actor, id: requester.id.clone(), name: requester.name.clone() };
    let request_id = requester.request_id.clone().unwrap_or_default();
    let mut new = NewJob::new(&payload, requester, trigger)
        .map_err(|error| DbErr::Json(error.to_string()))?
        .request(body.clone());
    if request.on_conflict != OnConflict::Queue {
        new = new.unique(body.to_string());
    }
    let enqueued = queue::enqueue(&**write, &new).await?;
    let job = match enqueued {
        Enqueued::New(job) => job,
        Enqueued::Open(job) if request.on_conflict == OnConflict::Reject => {
            return Err(ScanRefused::UnderWay(Box::new(job)));
        }
        open => return Ok(open),
    };
    scan::ActiveModel {
        id: Set(job.id),
        mode: Set(request.mode),
        subscriptions: Set(json!(subscriptions)),
        created_at: Set(job.created_at),
    }
    .insert(&**write)
    .await?;
    Event::new(EventType::ScanRequested, actor, "scan")
        .subject(job.id)
        .job(job.id)
        .request(request_id)
        .detail("mode", request.mode.as_str())
        .detail("subscriptions", json!(subscriptions))
        .write(&**write)
        .await?;
    Ok(Enqueued::New(job))
}

/// The enabled ones among those asked for.
async fn chosen(db: &impl ConnectionTrait, visible: &Scope, wanted: Option<&[Uuid]>) -> Result<Vec<Uuid>, ScanRefused> {
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
