//! `rotation.plan`: what a rotation would do. Reads; changes nothing.

use super::request::Asked;
use crate::{
    context::Context,
    job::{Done, Job, JobError},
    kinds::discovery::{connect, noted},
    provider::rotation::UNSUPPORTED,
    rotation::{RotationTarget, look, planned::planned},
};
use keywright_entities::{asset, subscription};
use sea_orm::EntityTrait;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub asset: Uuid,
    /// As they were when it was asked for.
    pub asked: Asked,
}

impl Job for Plan {
    const KIND: &'static str = "rotation.plan";
    const TIMEOUT: Duration = Duration::from_secs(900);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        context.report("look", 0, None);
        let db = context.database.reader();
        let asset = asset::Entity::find_by_id(self.asset).one(db).await?.filter(|asset| asset.removed_at.is_none());
        let asset = asset.ok_or_else(|| JobError::fail("asset_gone", "the asset is not there any more"))?;
        let subscription = subscription::by_id(db, asset.subscription_id).await?;
        let subscription = subscription
            .ok_or_else(|| JobError::fail("subscription_deleted", "the subscription was deleted meanwhile"))?;
        let connection = noted(context, subscription.id, connect(context, &subscription).await).await??;
        let Some(rotations) = connection.rotations.as_deref() else {
            let detail = format!("nothing of {} is rotated by this version", subscription.provider);
            return Err(JobError::fail(UNSUPPORTED, detail));
        };
        let target = RotationTarget::of(&asset, self.asked.terms.clone());
        let open = async |owner: Option<&str>| rotations.open(&target.entry, &target.terms.method, owner).await;
        let parts = open(None).await?;
        let facts = look::look(&parts, async |owner: &str| open(Some(owner)).await).await?;
        let plan = planned(context, &asset, &target, &facts, self.asked.policy).await?;
        context
            .persist(move |db, _| {
                let plan = plan.clone();
                Box::pin(async move { plan.save(db).await })
            })
            .await?;
        Ok(Done::Succeeded)
    }
}
