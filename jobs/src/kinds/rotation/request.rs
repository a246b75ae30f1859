//! Asking for a plan or a rotation: the job, the rotation's row and the audit event are there together or not at all.

use super::{apply::Apply, plan::Plan};
use crate::{
    approvals::{self, Ask, Unaskable},
    audit::{Actor, Event, EventType},
    domain::rotation::{Pace, Rotation, Strategy, Terms},
    job::Job,
    kinds::{Again, RetryRefused},
    queue::{self, Enqueued, NewJob, Requester},
    rotation::RotationTarget,
    setup::database::Write,
};
use keywright_entities::{
    asset, clock, job, rotation, rotation_plan, rotation_policy,
    scope::Scope,
    subscription,
    types::{JobState, Trigger},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// The action that an approval names.
pub const ROTATE: &str = "rotation.rotate";

/// How it is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub terms: Terms,
    pub policy: Option<Uuid>,
}

/// Why it was not begun. The transaction is to be rolled back.
#[derive(Debug, Error)]
pub enum Refused {
    #[error("there is no such asset")]
    NoAsset,
    #[error("there is no such policy")]
    NoPolicy,
    #[error("the policy is disabled")]
    PolicyDisabled,
    #[error("there is no such plan")]
    NoPlan,
    /// What it was made for has changed, or its time is over.
    #[error("the plan does not hold any more: {0}")]
    Stale(&'static str),
    #[error("the subscription is disabled")]
    SubscriptionDisabled,
    /// The kinds that this method rotates.
    #[error("{kind} is not rotated by {method}")]
    Unsupported { kind: String, method: &'static str, kinds: &'static [&'static str] },
    /// Somebody else must approve, and approves a plan.
    #[error("the policy wants an approval, which is given to a plan")]
    PlanFirst,
    /// Another rotation of the same identity is open.
    #[error("another rotation of the same identity is open")]
    Busy(Uuid),
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// What is rotated, of what is visible.
struct Chosen {
    asset: asset::Model,
    asked: Asked,
}

/// Begins to plan, or joins the same that is under way.
pub async fn plan(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    asset: Uuid,
    policy: Option<Uuid>,
) -> Result<Enqueued, Refused> {
    let chosen = chosen(&**write, visible, asset, policy).await?;
    begin_plan(write, requester, Trigger::Api, chosen, None).await
}

async fn begin_plan(
    write: &Write,
    requester: Requester,
    trigger: Trigger,
    chosen: Chosen,
    retry_of: Option<Uuid>,
) -> Result<Enqueued, Refused> {
    let Chosen { asset, asked } = chosen;
    let request = json!({"asset": asset.id, "policy": asked.policy});
    let payload = Plan { asset: asset.id, asked };
    let unique = json!(payload).to_string();
    let mut new = NewJob::new(&payload, requester.clone(), trigger)
        .map_err(|error| DbErr::Json(error.to_string()))?
        .of_subscription(asset.subscription_id)
        .unique(unique)
        .request(request);
    if let Some(of) = retry_of {
        new = new.retrying(of);
    }
    let begun = queue::enqueue(&**write, &new).await?;
    if let Enqueued::New(job) = &begun {
        event(EventType::RotationPlanRequested, &requester, &asset, job.id).write(&**write).await?;
    }
    Ok(begun)
}

/// Begins the rotation that a plan describes.
pub async fn rotate_planned(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    user: Option<Uuid>,
    plan_hash: &str,
) -> Result<Enqueued, Refused> {
    let db = &**write;
    let plan = rotation_plan::by_hash(db, visible, plan_hash).await?.ok_or(Refused::NoPlan)?;
    if plan.expires_at <= clock::now(db).await? {
        return Err(Refused::Stale("its 24 hours are over"));
    }
    let chosen = chosen(db, visible, plan.asset_id, plan.policy_id).await.map_err(|refused| match refused {
        Refused::NoAsset => Refused::Stale("the asset is not there any more"),
        Refused::NoPolicy => Refused::Stale("its policy was deleted"),
        other => other,
    })?;
    let target: RotationTarget =
        serde_json::from_value(plan.target.clone()).map_err(|_| Refused::Stale("another version made it"))?;
    if target.terms != chosen.asked.terms {
        return Err(Refused::Stale("its policy was changed"));
    }
    let later = rotation::Entity::find()
        .filter(rotation::Column::AssetId.eq(plan.asset_id))
        .filter(rotation::Column::EndedAt.gt(plan.created_at))
        .one(db)
        .await?;
    if later.is_some() {
        return Err(Refused::Stale("the asset was rotated since"));
    }
    begin(write, requester, user, chosen, Some((plan, target)), Trigger::Api).await
}

/// Begins a rotation that plans for itself first.
pub async fn rotate_unplanned(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    asset: Uuid,
    policy: Uuid,
) -> Result<Enqueued, Refused> {
    let chosen = chosen(&**write, visible, asset, Some(policy)).await?;
    if chosen.asked.terms.approval {
        return Err(Refused::PlanFirst);
    }
    begin(write, requester, None, chosen, None, Trigger::Api).await
}

async fn begin(
    write: &Write,
    requester: Requester,
    user: Option<Uuid>,
    chosen: Chosen,
    plan: Option<(rotation_plan::Model, RotationTarget)>,
    trigger: Trigger,
) -> Result<Enqueued, Refused> {
    let db = &**write;
    let Chosen { asset, asked } = chosen;
    let request = json!({
        "asset": asset.id,
        "policy": asked.policy,
        "planHash": plan.as_ref().map(|(plan, _)| plan.plan_hash.as_str()),
    });
    let new = NewJob::new(&Apply { rotation: None }, requester.clone(), trigger)
        .map_err(|error| DbErr::Json(error.to_string()))?
        .of_subscription(asset.subscription_id)
        .unique(asset.id.to_string())
        .request(request);
    let job = match queue::enqueue(db, &new).await? {
        Enqueued::New(job) => job,
        open @ Enqueued::Open(_) => return Ok(open),
    };
    let identity = plan.as_ref().map(|(plan, _)| plan.identity.clone());
    if let Some(busy) = open_rotation(db, asset.id, identity.as_deref()).await? {
        return Err(Refused::Busy(busy.job_id));
    }
    let now = clock::micros(clock::now(db).await?);
    let (record, target) = match &plan {
        Some((plan, target)) => (planned(plan, now)?, target.clone()),
        None => (unplanned(&asked.terms, now), RotationTarget::of(&asset, asked.terms.clone())),
    };
    let row = rotation::ActiveModel {
        id: Set(job.id),
        subscription_id: Set(asset.subscription_id),
        asset_id: Set(asset.id),
        policy_id: Set(asked.policy),
        plan_id: Set(plan.as_ref().map(|(plan, _)| plan.id)),
        plan_hash: Set(plan.as_ref().map(|(plan, _)| plan.plan_hash.clone())),
        identity: Set(identity.clone()),
        open_identity: Set(identity),
        open_asset: Set(Some(asset.id)),
        state: Set(record.state.as_str().to_owned()),
        target: Set(json!(target)),
        record: Set(json!(record)),
        job_id: Set(job.id),
        requested_by_type: Set(requester.actor),
        requested_by_id: Set(requester.id.clone()),
        requested_by_name: Set(requester.name.clone()),
        created_at: Set(now),
        updated_at: Set(now),
        promoted_at: Set(None),
        ended_at: Set(None),
        version: Set(1),
    };
    row.insert(db).await?;
    event(EventType::RotationRequested, &requester, &asset, job.id).write(db).await?;
    let Some((plan, _)) = plan.filter(|_| target.terms.approval) else { return Ok(Enqueued::New(job)) };
    let ask = Ask {
        action: ROTATE,
        subject: ("rotation", Some(job.id.to_string())),
        plan_hash: plan.plan_hash,
        plan: plan.content.get("plan").cloned().unwrap_or(Value::Null),
        subscription: Some(asset.subscription_id),
        job: Some(job.id),
    };
    approvals::request(write, ask, &requester, user).await.map_err(|refused| match refused {
        Unaskable::Database(error) => error,
        // it was put into the queue just before
        other => DbErr::Custom(other.to_string()),
    })?;
    let job = job::by_id(db, job.id).await?.ok_or(DbErr::RecordNotInserted)?;
    Ok(Enqueued::New(job))
}

/// The open rotation of this asset or identity.
async fn open_rotation(
    db: &impl ConnectionTrait,
    asset: Uuid,
    identity: Option<&str>,
) -> Result<Option<rotation::Model>, DbErr> {
    let of_asset = rotation::Entity::find().filter(rotation::Column::OpenAsset.eq(asset)).one(db).await?;
    match (of_asset, identity) {
        (None, Some(identity)) => {
            rotation::Entity::find().filter(rotation::Column::OpenIdentity.eq(identity)).one(db).await
        }
        (found, _) => Ok(found),
    }
}

/// What a plan says of the strategy, beside what people read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rests {
    plan: Named,
    strategy: Strategy,
    call_deadline: u32,
    settle: u32,
}

#[derive(Deserialize)]
struct Named {
    current: crate::rotation::look::Current,
}

fn planned(plan: &rotation_plan::Model, now: chrono::DateTime<chrono::Utc>) -> Result<Rotation, Refused> {
    let made_elsewhere = |_| Refused::Stale("another version made it");
    let rests: Rests = serde_json::from_value(plan.content.clone()).map_err(made_elsewhere)?;
    let target: RotationTarget = serde_json::from_value(plan.target.clone()).map_err(made_elsewhere)?;
    let pace = target.terms.pace(rests.call_deadline, rests.settle);
    let current = rests.plan.current;
    Ok(Rotation {
        previous_version: Some(current.version),
        ..Rotation::planned(rests.strategy, pace, Some(current.credential), now)
    })
}

/// A record that stands for "nothing is known yet": the attempt plans before the machine is asked.
fn unplanned(terms: &Terms, now: chrono::DateTime<chrono::Utc>) -> Rotation {
    let pace: Pace = terms.pace(0, 0);
    Rotation::planned(Strategy::NOTHING, pace, None, now)
}

async fn chosen(db: &impl ConnectionTrait, visible: &Scope, id: Uuid, policy: Option<Uuid>) -> Result<Chosen, Refused> {
    let asset = asset::Entity::find_by_id(id)
        .filter(visible.on(asset::Column::SubscriptionId))
        .filter(asset::Column::RemovedAt.is_null())
        .one(db)
        .await?
        .ok_or(Refused::NoAsset)?;
    let terms = match policy {
        Some(policy) => {
            let row = rotation_policy::Entity::find_by_id(policy).one(db).await?.ok_or(Refused::NoPolicy)?;
            if !row.enabled {
                return Err(Refused::PolicyDisabled);
            }
            serde_json::from_value(row.content).map_err(|error| DbErr::Json(error.to_string()))?
        }
        None => Terms::default(),
    };
    let kinds = terms.method.kinds();
    if !kinds.contains(&asset.kind.as_str()) {
        return Err(Refused::Unsupported { kind: asset.kind, method: terms.method.as_str(), kinds });
    }
    let subscription = subscription::by_id(db, asset.subscription_id).await?.ok_or(Refused::NoAsset)?;
    if !subscription.enabled {
        return Err(Refused::SubscriptionDisabled);
    }
    Ok(Chosen { asset, asked: Asked { terms, policy } })
}

/// Of an ended plan or rotation makes a new plan: old steps are never resumed so.
pub async fn retry(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    of: &job::Model,
    again: Again,
) -> Result<Enqueued, RetryRefused> {
    if again == Again::Failed && of.state == JobState::Succeeded {
        return Err(RetryRefused::NothingFailed);
    }
    let db = &**write;
    let (asset, policy) = if of.kind == Plan::KIND {
        let plan: Plan = serde_json::from_value(of.payload.clone()).map_err(|_| RetryRefused::Gone)?;
        (plan.asset, plan.asked.policy)
    } else {
        let row = rotation::Entity::find().filter(rotation::Column::JobId.eq(of.id)).one(db).await?;
        let row = row.ok_or(RetryRefused::Gone)?;
        (row.asset_id, row.policy_id)
    };
    let gone = |refused| match refused {
        Refused::Database(error) => RetryRefused::Database(error),
        _ => RetryRefused::Gone,
    };
    let chosen = chosen(db, visible, asset, policy).await.map_err(gone)?;
    begin_plan(write, requester, Trigger::Retry, chosen, Some(of.id)).await.map_err(gone)
}

fn event(event_type: EventType, requester: &Requester, asset: &asset::Model, job: Uuid) -> Event {
    let actor = Actor { actor_type: requester.actor, id: requester.id.clone(), name: requester.name.clone() };
    Event::new(event_type, actor, "asset")
        .subject(asset.id)
        .job(job)
        .request(requester.request_id.clone().unwrap_or_default())
        .detail("asset", asset.external_id.as_str())
}
