//! Asking for a package: the job, the package's row with all that is fixed now, and the audit event, together or not at all.

use super::BuildPackage;
use crate::{
    audit::{Actor, Event, EventType},
    domain::evidence::{DEFAULT_PERIOD, LONGEST_PERIOD, Request},
    kinds::{RetryRefused, discovery::request::OnConflict},
    queue::{self, Enqueued, NewJob, Requester},
    settings,
    setup::database::Write,
};
use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use keywright_entities::{
    clock, evidence_package, job,
    scope::Scope,
    subscription,
    types::{JobState, Trigger},
    user_account,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    sea_query::ExprTrait,
};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// The older spelling joins a package that was asked for at most so long ago.
const RECENT: TimeDelta = TimeDelta::minutes(15);

/// What the process that asks adds to a request.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// As the cover names it; empty when the operator has not said.
    pub organisation: String,
    /// [`keywright_stores::objects::Objects::identity`] of the store in which it will look for the package.
    pub store: String,
}

/// Why a package was not begun.
#[derive(Debug, Error)]
pub enum EvidenceRefused {
    /// Positions in the request's list.
    #[error("subscriptions that do not exist: {0:?}")]
    UnknownSubscriptions(Vec<usize>),
    #[error("{pointer}: {detail}")]
    Period { pointer: &'static str, detail: &'static str },
    #[error("the same package is being built: {}", .0.id)]
    UnderWay(Box<job::Model>),
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Begins a package in the caller's transaction, or joins the one that is being built. A refusal has written nothing.
///
/// # Errors
/// [`EvidenceRefused`].
pub async fn package(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    surroundings: &Surroundings,
    request: Request,
    on_conflict: OnConflict,
) -> Result<Enqueued, EvidenceRefused> {
    let asked = Asked { visible, requester, surroundings, trigger: Trigger::Api, retry_of: None };
    match asked.begin(&**write, request, on_conflict != OnConflict::Queue).await? {
        Enqueued::Open(job) if on_conflict == OnConflict::Reject => Err(EvidenceRefused::UnderWay(Box::new(job))),
        begun => Ok(begun),
    }
}

/// The caller's newest package of the same request that was asked for a short while ago and has not failed.
///
/// # Errors
/// When the database cannot tell.
pub async fn recent(
    db: &impl ConnectionTrait,
    visible: &Scope,
    requester: &Requester,
    request: &Request,
) -> Result<Option<evidence_package::Model>, DbErr> {
    let since = clock::now(db).await? - RECENT;
    for package in evidence_package::recent(db, &key(visible, requester, request), since).await? {
        let job = job::by_id(db, package.id).await?;
        if package.built_at.is_some() || job.is_some_and(|job| !job.state.is_done()) {
            return Ok(Some(package));
        }
    }
    Ok(None)
}

/// Begins, in the caller's transaction, a new package for the request of one that ended.
///
/// # Errors
/// [`RetryRefused`].
pub async fn retry(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    of: &job::Model,
) -> Result<Enqueued, RetryRefused> {
    if of.state == JobState::Succeeded {
        return Err(RetryRefused::NothingFailed);
    }
    let old = evidence_package::by_id(&**write, of.id).await?.ok_or(RetryRefused::Gone)?;
    let request = serde_json::from_value(old.request).map_err(|_| RetryRefused::Gone)?;
    let organisation = old.frozen.get("organisation").and_then(Value::as_str).unwrap_or_default().to_owned();
    let surroundings = Surroundings { organisation, store: old.store };
    let asked =
        Asked { visible, requester, surroundings: &surroundings, trigger: Trigger::Retry, retry_of: Some(of.id) };
    match asked.begin(&**write, request, true).await {
        Ok(begun) => Ok(begun),
        Err(EvidenceRefused::Database(error)) => Err(error.into()),
        Err(_) => Err(RetryRefused::Gone),
    }
}

struct Asked<'a> {
    visible: &'a Scope,
    requester: Requester,
    surroundings: &'a Surroundings,
    trigger: Trigger,
    retry_of: Option<Uuid>,
}

impl Asked<'_> {
    async fn begin(
        self,
        db: &impl ConnectionTrait,
        request: Request,
        unique: bool,
    ) -> Result<Enqueued, EvidenceRefused> {
        let now = clock::micros(clock::now(db).await?);
        let (from, as_of) = period(&request, now)?;
        let subscriptions = self.chosen(db, request.subscriptions.as_deref(), from).await?;
        let ids: Vec<Uuid> = subscriptions.iter().map(|one| one.id).collect();
        let key = key(self.visible, &self.requester, &request);
        let payload = BuildPackage { subscriptions: ids.clone() };
        let echo = serde_json::to_value(&request).map_err(|error| DbErr::Json(error.to_string()))?;
        let mut new = NewJob::new(&payload, self.requester.clone(), self.trigger)
            .map_err(|error| DbErr::Json(error.to_string()))?
            .request(echo.clone());
        if unique {
            new = new.unique(key.clone());
        }
        if let Some(old) = self.retry_of {
            new = new.retrying(old);
        }
        let job = match queue::enqueue(db, &new).await? {
            Enqueued::New(job) => job,
            open => return Ok(open),
        };
        let frozen = self.frozen(db, &subscriptions).await?;
        evidence_package::ActiveModel {
            id: Set(job.id),
            created_at: Set(now),
            period_from: Set(from),
            as_of: Set(as_of),
            requested_by_type: Set(self.requester.actor),
            requested_by_id: Set(self.requester.id.clone()),
            requested_by_name: Set(self.requester.name.clone()),
            restricted: Set(*self.visible != Scope::All),
            subscriptions: Set(json!(ids)),
            request: Set(echo.clone()),
            request_key: Set(key),
            frozen: Set(frozen),
            store: Set(self.surroundings.store.clone()),
            ..Default::default()
        }
        .insert(db)
        .await?;
        let actor = Actor { actor_type: self.requester.actor, id: self.requester.id, name: self.requester.name };
        Event::new(EventType::EvidenceRequested, actor, "evidence")
            .subject(job.id)
            .job(job.id)
            .request(self.requester.request_id.unwrap_or_default())
            .detail("request", echo)
            .write(db)
            .await?;
        Ok(Enqueued::New(job))
    }

    /// Also those that were deleted within the period: evidence still speaks of them.
    async fn chosen(
        &self,
        db: &impl ConnectionTrait,
        wanted: Option<&[Uuid]>,
        from: DateTime<Utc>,
    ) -> Result<Vec<subscription::Model>, EvidenceRefused> {
        use subscription::Column;
        let mut select = subscription::Entity::find()
            .filter(self.visible.on(Column::Id))
            .filter(Column::DeletedAt.is_null().or(Column::DeletedAt.gte(from)));
        if let Some(wanted) = wanted {
            select = select.filter(Column::Id.is_in(wanted.iter().copied()));
        }
        let found = select.order_by_asc(Column::Id).all(db).await?;
        let missing = |id: &Uuid| !found.iter().any(|one| one.id == *id);
        let unknown: Vec<usize> =
            wanted.unwrap_or_default().iter().enumerate().filter(|(_, id)| missing(id)).map(|(n, _)| n).collect();
        if unknown.is_empty() { Ok(found) } else { Err(EvidenceRefused::UnknownSubscriptions(unknown)) }
    }

    async fn frozen(&self, db: &impl ConnectionTrait, subscriptions: &[subscription::Model]) -> Result<Value, DbErr> {
        let subscriptions: Vec<Value> = subscriptions.iter().map(frozen_subscription).collect();
        let set = settings::read(db).await?;
        let mut frozen = json!({
            "organisation": self.surroundings.organisation,
            "subscriptions": subscriptions,
            "thresholds": set.thresholds,
            "tags": set.tags,
        });
        if *self.visible == Scope::All
            && let Some(fields) = frozen.as_object_mut()
        {
            let set = serde_json::to_value(set).map_err(|error| DbErr::Json(error.to_string()))?;
            let users = user_account::Entity::find().order_by_asc(user_account::Column::Id).all(db).await?;
            fields.insert("settings".to_owned(), set);
            fields.insert("users".to_owned(), users.iter().map(frozen_user).collect());
        }
        Ok(frozen)
    }
}

fn frozen_subscription(row: &subscription::Model) -> Value {
    json!({
        "id": row.id,
        "provider": row.provider,
        "externalId": row.external_id,
        "name": row.name,
        "enabled": row.enabled,
        "regions": row.region_list(),
        "authMode": row.auth_mode,
        "createdAt": spelled(row.created_at),
        "updatedAt": spelled(row.updated_at),
        "deletedAt": row.deleted_at.map(spelled),
        "lastScanAt": row.last_scan_at.map(spelled),
        "lastScanState": row.last_scan_state,
    })
}

/// By reference: what a person is called stays where it can be erased.
fn frozen_user(row: &user_account::Model) -> Value {
    json!({
        "id": row.id,
        "role": row.role,
        "disabled": row.disabled,
        "restricted": row.subscriptions.is_some(),
        "signIn": if row.is_sso() { "sso" } else { "password" },
        "createdAt": spelled(row.created_at),
        "updatedAt": spelled(row.updated_at),
    })
}

/// An instant as packages spell it.
pub(super) fn spelled(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, false)
}

fn period(request: &Request, now: DateTime<Utc>) -> Result<(DateTime<Utc>, DateTime<Utc>), EvidenceRefused> {
    let refused = |pointer, detail| EvidenceRefused::Period { pointer, detail };
    let to = request.to.map_or(now, clock::micros);
    let from = request.from.map_or(to - DEFAULT_PERIOD, clock::micros);
    if to > now {
        return Err(refused("/period/to", "A period ends now or earlier."));
    }
    if from >= to {
        return Err(refused("/period/from", "A period begins before it ends."));
    }
    if to - from > LONGEST_PERIOD {
        return Err(refused("/period/from", "A period is at most three years long."));
    }
    Ok((from, to))
}

/// In what the same question of the same caller is the same.
fn key(visible: &Scope, requester: &Requester, request: &Request) -> String {
    let mut request = request.clone();
    if let Some(ids) = &mut request.subscriptions {
        ids.sort_unstable();
        ids.dedup();
    }
    let seen = match visible {
        Scope::All => Value::Null,
        Scope::Subscriptions(ids) => {
            let mut ids = ids.clone();
            ids.sort_unstable();
            json!(ids)
        }
    };
    let text = json!([requester.actor, requester.id, seen, request]).to_string();
    hex::encode(digest(&SHA256, text.as_bytes()))
}
