//! What is known of each scope: written when its scopes are told and when looking at one ends, in those transactions, so that
//! nothing is lost when the jobs are forgotten.

use super::{
    scan::{ANY, every},
    scope::ScopeListing,
};
use crate::{
    domain::inventory::{ProviderKind, ScopeId},
    job::Job,
    queue::{TOO_LATE, outcome::Reason},
    setup::ids,
};
use chrono::{DateTime, Utc};
use keywright_entities::{clock, job, scope_coverage, subscription, types::JobState};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, UpdateMany,
    sea_query::{Expr, OnConflict},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Rows in one statement, far below SQLite's 32,766 values.
const BATCH: usize = 500;

/// These are the scopes of the subscription now; others are looked at no more.
pub(super) async fn planned(
    db: &impl ConnectionTrait,
    of: Uuid,
    provider: ProviderKind,
    scopes: &[ScopeId],
) -> Result<(), DbErr> {
    let rows = scope_coverage::Entity::find().filter(scope_coverage::Column::SubscriptionId.eq(of)).all(db).await?;
    let mut known: BTreeMap<ScopeId, (Uuid, bool)> =
        rows.into_iter().map(|row| (ScopeId { region: row.region, kind: row.kind }, (row.id, row.planned))).collect();
    let (mut new, mut back) = (Vec::new(), Vec::new());
    for scope in scopes {
        match known.remove(scope) {
            None => new.push(scope.clone()),
            Some((id, false)) => back.push(id),
            Some((_, true)) => {}
        }
    }
    // a subscription that tells its scopes is no longer one that does not
    let untold = known.remove(&every());
    if let Some((id, _)) = untold {
        scope_coverage::Entity::delete_by_id(id).exec(db).await?;
    }
    let gone: Vec<Uuid> = known.into_values().filter(|(_, planned)| *planned).map(|(id, _)| id).collect();
    for (ids, planned) in [(back, true), (gone, false)] {
        for ids in ids.chunks(BATCH) {
            scope_coverage::Entity::update_many()
                .col_expr(scope_coverage::Column::Planned, Expr::value(planned))
                .filter(scope_coverage::Column::Id.is_in(ids.iter().copied()))
                .exec(db)
                .await?;
        }
    }
    let now = clock::now(db).await?;
    for scopes in new.chunks(BATCH) {
        let rows = scopes.iter().map(|scope| row(of, provider, scope, now)).collect();
        insert(db, rows).await?;
    }
    Ok(())
}

/// A new subscription, whose scopes nobody has told yet.
///
/// # Errors
/// When the database cannot write it.
pub async fn expected(db: &impl ConnectionTrait, of: &subscription::Model) -> Result<(), DbErr> {
    insert(db, vec![row(of.id, of.provider, &every(), of.created_at)]).await
}

/// Only these regions of the subscription are looked at from now on. A scan tells the rest when it is planned.
///
/// # Errors
/// When the database cannot write it.
pub async fn narrowed(db: &impl ConnectionTrait, of: Uuid, kept: &[String]) -> Result<(), DbErr> {
    let kept = kept.iter().map(String::as_str).chain([ANY]);
    scope_coverage::Entity::update_many()
        .col_expr(scope_coverage::Column::Planned, Expr::value(false))
        .filter(scope_coverage::Column::SubscriptionId.eq(of))
        .filter(scope_coverage::Column::Region.is_not_in(kept))
        .exec(db)
        .await
        .map(|_| ())
}

/// The subscription is deleted.
///
/// # Errors
/// When the database cannot write it.
pub async fn forget(db: &impl ConnectionTrait, of: Uuid) -> Result<(), DbErr> {
    let rows = scope_coverage::Entity::delete_many().filter(scope_coverage::Column::SubscriptionId.eq(of));
    rows.exec(db).await.map(|_| ())
}

/// The subscription does not tell its scopes.
pub(super) async fn untold(
    db: &impl ConnectionTrait,
    of: &subscription::Model,
    scan: Uuid,
    reason: &Reason,
) -> Result<(), DbErr> {
    let now = clock::now(db).await?;
    insert(db, vec![row(of.id, of.provider, &every(), now)]).await?;
    let why = (Some(reason.code.clone()), Some(reason.detail.clone()), reason.permission.clone());
    outcome(of.id, every(), now, scan, why).exec(db).await.map(|_| ())
}

/// The job waits because the cloud takes no more calls; if it lists a scope, that is seen.
///
/// # Errors
/// When the database cannot write it.
pub async fn throttled(db: &impl ConnectionTrait, job: Uuid) -> Result<(), DbErr> {
    const TEXT: &str = "UPDATE scope_coverage SET throttled_at = {now} WHERE throttled_at IS NULL \
        AND (subscription_id, region, kind) = \
        (SELECT subscription_id, region, scope_kind FROM job WHERE id = $1 AND kind = $2)";
    let values = [job.into(), ScopeListing::KIND.into()];
    db.execute_raw(clock::statement(db.get_database_backend(), TEXT, values)).await.map(|_| ())
}

/// Looking at a scope has ended.
pub async fn ended(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    let Ok(listing) = serde_json::from_value::<ScopeListing>(job.payload.clone()) else { return Ok(()) };
    // what was deleted meanwhile has no scopes
    let Some(subscription) = subscription::by_id(db, listing.subscription).await? else { return Ok(()) };
    if job.error_code.as_deref() != Some(TOO_LATE) {
        no_more_throttled(db, subscription.id, &listing.scope).await?;
    }
    // a canceled one tells nothing about the scope, and one that told what its scopes are has none of its own
    if job.state == JobState::Canceled || job.state == JobState::Succeeded && listing.scope == every() {
        return Ok(());
    }
    let now = match job.completed_at {
        Some(at) => at,
        None => clock::now(db).await?,
    };
    insert(db, vec![row(subscription.id, subscription.provider, &listing.scope, now)]).await?;
    let read = job.state == JobState::Succeeded;
    let reason = (job.error_code.clone(), job.error_detail.clone(), job.error_permission.clone());
    let reason = if read { (None, None, None) } else { reason };
    let mut update = outcome(subscription.id, listing.scope, now, listing.scan, reason);
    if read {
        update = update
            .col_expr(scope_coverage::Column::ScannedAt, Expr::value(now))
            .col_expr(scope_coverage::Column::ScannedBy, Expr::value(listing.scan));
    }
    update.exec(db).await.map(|_| ())
}

async fn no_more_throttled(db: &impl ConnectionTrait, of: Uuid, scope: &ScopeId) -> Result<(), DbErr> {
    scope_coverage::Entity::update_many()
        .col_expr(scope_coverage::Column::ThrottledAt, Expr::value(None::<DateTime<Utc>>))
        .filter(scope_coverage::Column::SubscriptionId.eq(of))
        .filter(scope_coverage::Column::Region.eq(scope.region.as_str()))
        .filter(scope_coverage::Column::Kind.eq(scope.kind.as_str()))
        .filter(scope_coverage::Column::ThrottledAt.is_not_null())
        .exec(db)
        .await
        .map(|_| ())
}

fn outcome(
    of: Uuid,
    scope: ScopeId,
    now: DateTime<Utc>,
    scan: Uuid,
    (code, detail, permission): (Option<String>, Option<String>, Option<String>),
) -> UpdateMany<scope_coverage::Entity> {
    // scans that overlap may end in another order than they looked
    let later =
        Condition::any().add(scope_coverage::Column::EndedAt.is_null()).add(scope_coverage::Column::EndedAt.lte(now));
    scope_coverage::Entity::update_many()
        .col_expr(scope_coverage::Column::EndedAt, Expr::value(now))
        .col_expr(scope_coverage::Column::EndedBy, Expr::value(scan))
        .col_expr(scope_coverage::Column::ErrorCode, Expr::value(code))
        .col_expr(scope_coverage::Column::ErrorDetail, Expr::value(detail))
        .col_expr(scope_coverage::Column::ErrorPermission, Expr::value(permission))
        .filter(scope_coverage::Column::SubscriptionId.eq(of))
        .filter(scope_coverage::Column::Region.eq(scope.region))
        .filter(scope_coverage::Column::Kind.eq(scope.kind))
        .filter(later)
}

fn row(of: Uuid, provider: ProviderKind, scope: &ScopeId, now: DateTime<Utc>) -> scope_coverage::ActiveModel {
    scope_coverage::ActiveModel {
        id: Set(ids::new()),
        subscription_id: Set(of),
        provider: Set(provider),
        region: Set(scope.region.clone()),
        kind: Set(scope.kind.clone()),
        planned: Set(true),
        created_at: Set(now),
        scanned_at: Set(None),
        scanned_by: Set(None),
        ended_at: Set(None),
        ended_by: Set(None),
        throttled_at: Set(None),
        error_code: Set(None),
        error_detail: Set(None),
        error_permission: Set(None),
    }
}

/// Rows for scopes that have none.
async fn insert(db: &impl ConnectionTrait, rows: Vec<scope_coverage::ActiveModel>) -> Result<(), DbErr> {
    let place = [scope_coverage::Column::SubscriptionId, scope_coverage::Column::Region, scope_coverage::Column::Kind];
    scope_coverage::Entity::insert_many(rows)
        .on_conflict(OnConflict::columns(place).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map(|_| ())
}
