//! What people ask of a rotation. Whatever they ask, the record says it before anybody acts on it.

use super::{
    Opened,
    ledger::{self, Also, Change, Written},
};
use crate::{
    audit::Actor,
    domain::rotation::{self as machine, NotNow, Resolution, Rotation, State},
    kinds::rotation::apply::Apply,
    queue::{self, Enqueued, NewJob, Requester, control},
};
use chrono::{DateTime, Utc};
use keywright_entities::{clock, job, rotation, scope::Scope, types::Trigger};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum Refused {
    #[error("there is no such rotation")]
    NotFound,
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The former credential is to become the current one again.
    RollBack,
    /// A rotation that stands still goes on, goes back, or is left as it is.
    Resolve { resolution: Resolution, reason: String },
}

impl Wish {
    fn what(&self) -> &'static str {
        match self {
            Self::RollBack => "roll back",
            Self::Resolve { resolution: Resolution::Resume, .. } => "resume",
            Self::Resolve { resolution: Resolution::Compensate, .. } => "compensate",
            Self::Resolve { resolution: Resolution::Abandon, .. } => "abandon",
        }
    }

    fn details(&self) -> Value {
        match self {
            Self::RollBack => json!({}),
            Self::Resolve { reason, .. } => json!({"reason": reason}),
        }
    }

    fn of(&self, record: &Rotation, now: DateTime<Utc>) -> Result<Rotation, NotNow> {
        match self {
            Self::RollBack => machine::roll_back(record, now),
            Self::Resolve { resolution, .. } => machine::resolve(record, *resolution, now),
        }
    }
}

/// Asks in the caller's transaction; the job that drives it goes on at once, or a new one does.
///
/// # Errors
/// [`Refused`]. Nothing was written then.
pub async fn ask(
    db: &impl ConnectionTrait,
    visible: &Scope,
    id: Uuid,
    wish: &Wish,
    requester: &Requester,
) -> Result<rotation::Model, Refused> {
    let seen =
        rotation::visible(visible).filter(rotation::Column::Id.eq(id)).one(db).await?.ok_or(Refused::NotFound)?;
    let job = control::held_still(db, seen.job_id).await?;
    let row = rotation::by_id_locked(db, id).await?.ok_or(Refused::NotFound)?;
    let opened = Opened::read(row).map_err(DbErr::from)?;
    let now = clock::micros(clock::now(db).await?);
    let record = wish.of(&opened.record, now)?;
    let job = job.filter(|job| !job.state.is_done());
    let next = match &job {
        Some(_) => None,
        None if record.state.is_over() => None,
        None => Some(driving(db, &opened.row, requester).await?),
    };
    let actor = Actor { actor_type: requester.actor, id: requester.id.clone(), name: requester.name.clone() };
    let also = Also { job: next, ..Also::default() };
    let (what, details) = (wish.what().to_owned(), wish.details());
    let change = Change { of: &opened, record: &record, what, outcome: None, details, by: None, actor, also };
    // it is locked
    if ledger::write(db, change).await? == Written::Moved {
        return Err(DbErr::RecordNotUpdated.into());
    }
    if let Some(job) = job {
        control::hurry(db, job.id).await?;
    }
    rotation::Entity::find_by_id(id).one(db).await?.ok_or(Refused::NotFound)
}

/// A new job that drives a rotation whose last one has ended.
async fn driving(db: &impl ConnectionTrait, row: &rotation::Model, requester: &Requester) -> Result<Uuid, DbErr> {
    let payload = Apply { rotation: Some(row.id) };
    let new = NewJob::new(&payload, requester.clone(), Trigger::Api).map_err(|error| DbErr::Json(error.to_string()))?;
    let new = new
        .of_subscription(row.subscription_id)
        .retrying(row.job_id)
        .unique(row.asset_id.to_string())
        .request(json!({"rotation": row.id}));
    let (Enqueued::New(job) | Enqueued::Open(job)) = queue::enqueue(db, &new).await?;
    Ok(job.id)
}

/// What came of asking that a rotation's job be canceled.
#[derive(Debug)]
pub enum Canceled {
    /// Nothing was begun: the queue may end the job as any other.
    ByQueue,
    /// The rotation goes back, and its job ends when it has.
    GoesBack,
    /// The same, because somebody asked before.
    Already,
    Refused(NotNow),
}

/// Asks, in the caller's transaction, that the rotation of this job be given up.
///
/// # Errors
/// When the database does not take it.
pub async fn cancel(db: &impl ConnectionTrait, job: &job::Model, actor: Actor) -> Result<Canceled, DbErr> {
    let Some(row) = rotation::of_job_locked(db, job.id).await? else { return Ok(Canceled::ByQueue) };
    let opened = Opened::read(row)?;
    let record = &opened.record;
    if record.state == State::Planned && record.begun.is_none() && record.orphan.is_none() && job.is_unheld() {
        return Ok(Canceled::ByQueue);
    }
    if record.cancel_asked && !record.state.is_over() {
        return Ok(Canceled::Already);
    }
    let asked = match machine::ask_cancel(record) {
        Ok(asked) => asked,
        Err(refused) => return Ok(Canceled::Refused(refused)),
    };
    let (what, details, also) = ("cancel".to_owned(), json!({}), Also::default());
    let change = Change { of: &opened, record: &asked, what, outcome: None, details, by: None, actor, also };
    ledger::write(db, change).await?;
    control::hurry(db, job.id).await?;
    Ok(Canceled::GoesBack)
}

/// Whether a rotation whose attempt is about to wait has something to do: what somebody asked for meanwhile.
///
/// # Errors
/// When the database does not tell.
pub async fn asked_meanwhile(db: &impl ConnectionTrait, job: Uuid) -> Result<bool, DbErr> {
    let Some(row) = rotation::of_job_locked(db, job).await? else { return Ok(false) };
    let now = clock::now(db).await?;
    let record = Opened::read(row)?.record;
    Ok(match machine::next(&record, now) {
        machine::Step::Stop => record.state.is_over(),
        machine::Step::Wait(until) => until <= now,
        _ => true,
    })
}
