//! `discovery.scan`: which scopes are there? One child each.

use super::{connect, noted, scope::ScopeListing};
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
const ANY: &str = "*";
/// How many subscriptions are asked for their scopes at once.
const PARALLEL: usize = 8;

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
        let children: Vec<Vec<NewJob>> = futures::stream::iter(plans).buffered(PARALLEL).try_collect().await?;
        Ok(Done::FannedOut(children.into_iter().flatten().collect()))
    }
}

impl Scan {
    async fn plan(&self, context: &Context, id: Uuid) -> Result<Vec<NewJob>, JobError> {
        // deleted since the scan was asked for: nothing of it is left to look at
        let Some(subscription) = subscription::by_id(context.database.reader(), id).await? else {
            return Ok(Vec::new());
        };
        match noted(context, id, scopes(context, &subscription).await).await? {
            Ok(scopes) => {
                mark_stale(context, id, scopes.clone()).await?;
                let wanted = scopes.into_iter().filter(|scope| self.wants(id, scope));
                wanted.map(|scope| self.child(context, &subscription, scope, None)).collect()
            }
            Err(ProviderError::Stopped(stopped)) => Err(stopped.into()),
            Err(error) => match JobError::from(error) {
                // the other subscriptions do not wait for ever for one that is away
                JobError::Retry { code, detail, after } if context.job.attempt < context.job.max_attempts => {
                    Err(JobError::Retry { code, detail, after })
                }
                JobError::Retry { code, detail, .. } => {
                    self.unreadable(context, &subscription, Reason { code, detail, permission: None })
                }
                JobError::Fail { code, detail, permission } => {
                    self.unreadable(context, &subscription, Reason { code, detail, permission })
                }
                other => Err(other),
            },
        }
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
    fn unreadable(
        &self,
        context: &Context,
        subscription: &subscription::Model,
        reason: Reason,
    ) -> Result<Vec<NewJob>, JobError> {
        let scope = ScopeId { region: ANY.to_owned(), kind: ANY.to_owned() };
        Ok(vec![self.child(context, subscription, scope, Some(reason))?])
    }

    fn child(
        &self,
        context: &Context,
        subscription: &subscription::Model,
        scope: ScopeId,
        failed: Option<Reason>,
    ) -> Result<NewJob, JobError> {
        let label = subscription.provider_settings().get("worker").and_then(|label| label.as_str()).map(str::to_owned);
        let lock = format!("scope:{}/{}/{}", subscription.id, scope.region, scope.kind);
        let listing =
            ScopeListing { scan: context.job.id, subscription: subscription.id, scope: scope.clone(), mode: self.mode };
        let requester = Requester {
            request_id: context.job.request_id.clone(),
            traceparent: context.job.traceparent.clone(),
            ..Requester::system()
        };
        let child = NewJob::new(&listing, requester, context.job.trigger)
            .map_err(|error| JobError::fail("payload_invalid", error))?
            .child_of(context.job.id)
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
async fn mark_stale(context: &Context, subscription: Uuid, scopes: Vec<ScopeId>) -> Result<(), JobError> {
    let scopes = Arc::new(scopes);
    context
        .persist(|db, _| {
            let scopes = Arc::clone(&scopes);
            Box::pin(async move {
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
