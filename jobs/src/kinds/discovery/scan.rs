//! `discovery.scan`: which scopes are there? One child each.

use super::{connect, coverage, noted, scope::ScopeListing};
use crate::{
    context::Context,
    domain::{
        floor::{self, Calls},
        inventory::ScopeId,
    },
    job::{Done, Job, JobError},
    provider::ProviderError,
    queue::{NewJob, Requester, outcome::Reason},
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use keywright_entities::{asset, job, job_subscription, scan, subscription, types::ScanMode};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, sea_query::Expr};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// In place of a region or kind: whichever there are.
pub(super) const ANY: &str = "*";
/// How many subscriptions are asked for their scopes at once.
const PARALLEL: usize = 8;
/// How long a subscription may take to tell its scopes before the others go on without it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scan {
    pub mode: ScanMode,
    pub subscriptions: Vec<Uuid>,
    /// Only these scopes, of those that there are; a region or kind `*` stands for all of the subscription's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<Only>>,
}

/// One scope of one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Only {
    pub subscription: Uuid,
    pub scope: ScopeId,
}

impl Job for Scan {
    const KIND: &'static str = "discovery.scan";
    const TIMEOUT: Duration = Duration::from_secs(24 * 3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        context.report("plan", 0, None);
        let plans: Vec<_> = self.subscriptions.iter().map(|id| self.plan(context, *id).boxed()).collect();
        let plans: Vec<Plan> = futures::stream::iter(plans).buffered(PARALLEL).try_collect().await?;
        // where nobody can tell anything yet, the scan itself waits
        if let Some(Plan::NotYet(why, _)) = plans.first()
            && plans.iter().all(|plan| matches!(plan, Plan::NotYet(..)))
        {
            return Err(why.clone());
        }
        let parts = plans.into_iter().flat_map(|plan| match plan {
            Plan::Parts(parts) => parts,
            Plan::NotYet(_, part) => vec![*part],
        });
        Ok(Done::FannedOut(parts.collect()))
    }
}

/// What is known of a subscription when a scan is planned.
enum Plan {
    Parts(Vec<NewJob>),
    /// It is throttled or away, as the error says: a part that will find out what its parts are.
    NotYet(JobError, Box<NewJob>),
}

/// The scope that stands for all those of a subscription.
pub(super) fn every() -> ScopeId {
    ScopeId { region: ANY.to_owned(), kind: ANY.to_owned() }
}

/// Plans a subscription that did not tell its scopes when its scan was planned: they become parts of that scan now.
pub(super) async fn late(context: &Context, part: &ScopeListing) -> Result<Done, JobError> {
    let scan = job::by_id(context.database.reader(), part.scan).await?;
    let scan = scan.ok_or_else(|| JobError::fail("scan_deleted", "the scan that this was a part of is gone"))?;
    let scan: Scan = serde_json::from_value(scan.payload)
        .map_err(|error| JobError::fail("payload_invalid", format!("the scan's payload cannot be read: {error}")))?;
    let Some(subscription) = subscription::by_id(context.database.reader(), part.subscription).await? else {
        return Err(JobError::fail("subscription_deleted", "the subscription was deleted while it was scanned"));
    };
    let told = noted(context, subscription.id, scopes(context, &subscription).await).await??;
    Ok(Done::HandedOver(scan.parts(context, &subscription, told).await?))
}

impl Scan {
    async fn plan(&self, context: &Context, id: Uuid) -> Result<Plan, JobError> {
        // deleted since the scan was asked for: nothing of it is left to look at
        let Some(subscription) = subscription::by_id(context.database.reader(), id).await? else {
            return Ok(Plan::Parts(Vec::new()));
        };
        let asked = tokio::time::timeout(self.patience(), scopes(context, &subscription));
        let Ok(told) = asked.await else {
            return Ok(Plan::Parts(vec![self.child(context, &subscription, every(), None)?]));
        };
        match noted(context, id, told).await? {
            Ok(scopes) => Ok(Plan::Parts(self.parts(context, &subscription, scopes).await?)),
            Err(ProviderError::Stopped(stopped)) => Err(stopped.into()),
            Err(error) => match JobError::from(error) {
                // the other subscriptions do not wait for one that is throttled or away, nor a scan for ever
                JobError::Retry { code, detail, .. } if context.job.attempt >= context.job.max_attempts => {
                    self.unreadable(context, &subscription, Reason { code, detail, permission: None }).await
                }
                why @ (JobError::Retry { .. } | JobError::Snooze { .. }) => {
                    Ok(Plan::NotYet(why, Box::new(self.child(context, &subscription, every(), None)?)))
                }
                JobError::Fail { code, detail, permission } => {
                    self.unreadable(context, &subscription, Reason { code, detail, permission }).await
                }
                JobError::Stopped(stopped) => Err(stopped.into()),
            },
        }
    }

    /// A scan of one subscription has nobody to go on with.
    fn patience(&self) -> Duration {
        if self.subscriptions.len() > 1 { PATIENCE } else { Self::TIMEOUT }
    }

    /// A part for each of these scopes that is wanted.
    async fn parts(
        &self,
        context: &Context,
        subscription: &subscription::Model,
        scopes: Vec<ScopeId>,
    ) -> Result<Vec<NewJob>, JobError> {
        mark_stale(context, subscription, scopes.clone()).await?;
        let wanted = scopes.into_iter().filter(|scope| self.wants(subscription.id, scope));
        wanted.map(|scope| self.child(context, subscription, scope, None)).collect()
    }

    fn wants(&self, subscription: Uuid, scope: &ScopeId) -> bool {
        let all = |word: &str, of: &str| word == ANY || word == of;
        self.only.as_ref().is_none_or(|only| {
            only.iter().any(|one| {
                one.subscription == subscription
                    && all(&one.scope.region, &scope.region)
                    && all(&one.scope.kind, &scope.kind)
            })
        })
    }

    /// A subscription that does not even tell its scopes is one failed scope, so that it is seen and counted.
    async fn unreadable(
        &self,
        context: &Context,
        subscription: &subscription::Model,
        reason: Reason,
    ) -> Result<Plan, JobError> {
        let (of, why, scan) = (subscription.clone(), reason.clone(), context.job.id);
        context
            .persist(|db, _| {
                let (of, why) = (of.clone(), why.clone());
                Box::pin(async move { coverage::untold(db, &of, scan, &why).await })
            })
            .await?;
        Ok(Plan::Parts(vec![self.child(context, subscription, every(), Some(reason))?]))
    }

    fn child(
        &self,
        context: &Context,
        subscription: &subscription::Model,
        scope: ScopeId,
        failed: Option<Reason>,
    ) -> Result<NewJob, JobError> {
        let label = subscription.provider_settings().get("worker").and_then(|label| label.as_str()).map(str::to_owned);
        let scan = context.job.parent_id.unwrap_or(context.job.id);
        let lock = format!("scope:{}/{}/{}", subscription.id, scope.region, scope.kind);
        let listing = ScopeListing { scan, subscription: subscription.id, scope: scope.clone(), mode: self.mode };
        let requester = Requester {
            request_id: context.job.request_id.clone(),
            traceparent: context.job.traceparent.clone(),
            ..Requester::system()
        };
        let child = NewJob::new(&listing, requester, context.job.trigger)
            .map_err(|error| JobError::fail("payload_invalid", error))?
            .child_of(scan)
            .of_subscription(subscription.id)
            .scope(scope.region, scope.kind)
            .priority(context.job.priority)
            .lock(lock)
            .on_workers(label);
        Ok(match failed {
            Some(reason) => child.failed_already(reason),
            None => child,
        })
    }
}

async fn scopes(context: &Context, subscription: &subscription::Model) -> Result<Vec<ScopeId>, ProviderError> {
    let connection = connect(context, subscription).await?;
    connection.inventory.scopes().await
}

/// Assets in places that are no longer looked at are neither there nor gone: they are stale.
async fn mark_stale(context: &Context, of: &subscription::Model, scopes: Vec<ScopeId>) -> Result<(), JobError> {
    let (subscription, provider, scopes) = (of.id, of.provider, Arc::new(scopes));
    context
        .persist(|db, _| {
            let scopes = Arc::clone(&scopes);
            Box::pin(async move {
                coverage::planned(db, subscription, provider, &scopes).await?;
                let mut looked_at = Condition::any();
                for scope in scopes.iter() {
                    looked_at = looked_at.add(
                        Condition::all()
                            .add(asset::Column::Region.eq(scope.region.as_str()))
                            .add(asset::Column::Kind.eq(scope.kind.as_str())),
                    );
                }
                let elsewhere = if scopes.is_empty() { Condition::all() } else { looked_at.not() };
                asset::Entity::update_many()
                    .col_expr(asset::Column::Stale, Expr::value(true))
                    .filter(asset::Column::SubscriptionId.eq(subscription))
                    .filter(asset::Column::RemovedAt.is_null())
                    .filter(elsewhere)
                    .exec(db)
                    .await
                    .map(|_| ())
            })
        })
        .await
}

/// Writes how fast the scan could have been at best, from what it and its parts asked for.
async fn tell_floor(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    let made = job::Entity::find()
        .select_only()
        .column(job::Column::Calls)
        .filter(Condition::any().add(job::Column::ParentId.eq(job.id)).add(job::Column::Id.eq(job.id)))
        .filter(job::Column::Calls.is_not_null());
    let made: Vec<Json> = made.into_tuple().all(db).await?;
    let ledgers = made.into_iter().filter_map(|calls| serde_json::from_value::<Calls>(calls).ok()).map(Calls::all);
    let Some(seconds) = floor::seconds(ledgers) else { return Ok(()) };
    scan::Entity::update_many()
        .col_expr(scan::Column::FloorSeconds, Expr::value(seconds))
        .filter(scan::Column::Id.eq(job.id))
        .exec(db)
        .await
        .map(|_| ())
}

/// Tells the subscriptions how their last scan went, which is not about them any more.
pub async fn ended(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    job_subscription::Entity::delete_many().filter(job_subscription::Column::JobId.eq(job.id)).exec(db).await?;
    let Ok(scan) = serde_json::from_value::<Scan>(job.payload.clone()) else {
        return Ok(());
    };
    tell_floor(db, job).await?;
    subscription::Entity::update_many()
        .col_expr(subscription::Column::LastScanAt, Expr::value(job.completed_at))
        .col_expr(subscription::Column::LastScanState, Expr::value(job.state.as_str()))
        .filter(subscription::Column::Id.is_in(scan.subscriptions))
        .exec(db)
        .await
        .map(|_| ())
}
