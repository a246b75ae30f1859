//! The plan of a rotation on its way into the database.

use super::{
    RotationTarget,
    ledger::Planned,
    look::{self, Facts},
};
use crate::{context::Context, job::JobError};
use chrono::TimeDelta;
use keywright_entities::{asset, clock, rotation_plan};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait};
use serde_json::{Value, json};
use uuid::Uuid;

/// For how long a plan may be agreed to.
pub const PLAN_LIFE: TimeDelta = TimeDelta::hours(24);

/// A plan that is about to be stored.
#[derive(Clone)]
pub struct NewPlan {
    pub as_it_is: Planned,
    asset: Uuid,
    subscription: Uuid,
    policy: Option<Uuid>,
    content: Value,
}

impl NewPlan {
    /// Stores it, or finds it stored by an earlier try of the same job.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn save(self, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        if rotation_plan::Entity::find_by_id(self.as_it_is.plan).one(db).await?.is_some() {
            return Ok(());
        }
        let now = clock::micros(clock::now(db).await?);
        let row = rotation_plan::ActiveModel {
            id: Set(self.as_it_is.plan),
            subscription_id: Set(self.subscription),
            asset_id: Set(self.asset),
            policy_id: Set(self.policy),
            plan_hash: Set(self.as_it_is.plan_hash),
            identity: Set(self.as_it_is.identity),
            target: Set(json!(self.as_it_is.target)),
            content: Set(self.content),
            created_at: Set(now),
            expires_at: Set(now + PLAN_LIFE),
        };
        row.insert(db).await.map(|_| ())
    }
}

/// What the job's plan is, by what was found.
///
/// # Errors
/// When the database does not tell what the plan needs.
pub async fn planned(
    context: &Context,
    asset: &asset::Model,
    target: &RotationTarget,
    facts: &Facts,
    policy: Option<Uuid>,
) -> Result<NewPlan, JobError> {
    let owner = Some(facts.in_use.owner.clone());
    let target = RotationTarget { owner, ..target.clone() };
    let plan = look::plan(context.database.reader(), asset, &target, facts).await?;
    let plan_hash = look::hash(asset, &target, facts)?;
    let content = json!({
        "plan": plan,
        "strategy": facts.strategy,
        "callDeadline": facts.times.0,
        "settle": facts.times.1,
    });
    let as_it_is = Planned { identity: facts.in_use.identity.clone(), target, plan: context.job.id, plan_hash };
    Ok(NewPlan { as_it_is, asset: asset.id, subscription: asset.subscription_id, policy, content })
}
