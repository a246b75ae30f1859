//! How many assets stand how, of a vault or a scope. Removed ones do not count.

use crate::error::ApiError;
use chrono::{DateTime, Utc};
use keywright_entities::{asset, scope_coverage};
use keywright_jobs::{domain::inventory::Thresholds, setup::database::Database};
use poem_openapi::Object;
use sea_orm::{
    ColumnTrait, EntityTrait, QueryFilter, QuerySelect, Select,
    sea_query::{Expr, ExprTrait},
};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// How many assets stand how.
#[derive(Clone, Copy, Debug, Default, Object)]
pub struct StatusCounts {
    pub total: u64,
    pub healthy: u64,
    pub warning: u64,
    pub critical: u64,
    pub expired: u64,
    pub unknown: u64,
}

impl StatusCounts {
    /// From how many there are, have an end, and end by each bound: what lies between two bounds is their difference.
    fn from_bounds(total: i64, dated: i64, expired: i64, critical: i64, warning: i64) -> Self {
        let between = |more: i64, less: i64| u64::try_from(more - less).unwrap_or_default();
        Self {
            total: between(total, 0),
            unknown: between(total, dated),
            healthy: between(dated, warning),
            warning: between(warning, critical),
            critical: between(critical, expired),
            expired: between(expired, 0),
        }
    }
}

pub async fn by_vault(
    database: &Database,
    vaults: Vec<Uuid>,
    thresholds: Thresholds,
    now: DateTime<Utc>,
) -> Result<HashMap<Uuid, StatusCounts>, ApiError> {
    let of = present().column(asset::Column::VaultId).filter(asset::Column::VaultId.is_in(vaults));
    let rows: Vec<(Uuid, i64, i64, i64, i64, i64)> =
        counting(of, thresholds, now).group_by(asset::Column::VaultId).into_tuple().all(database.reader()).await?;
    let counts = rows.into_iter().map(|(vault, total, dated, expired, critical, warning)| {
        (vault, StatusCounts::from_bounds(total, dated, expired, critical, warning))
    });
    Ok(counts.collect())
}

/// A subscription, a region and a kind.
pub type Place = (Uuid, String, String);

/// A place, and what [`StatusCounts::from_bounds`] takes.
type CountedPlace = (Uuid, String, String, i64, i64, i64, i64, i64);

pub async fn by_scope(
    database: &Database,
    scopes: &[scope_coverage::Model],
    thresholds: Thresholds,
    now: DateTime<Utc>,
) -> Result<HashMap<Place, StatusCounts>, ApiError> {
    use asset::Column::{Kind, Region, SubscriptionId};
    // each of these with each: more places than asked for, but a short statement
    let of: BTreeSet<Uuid> = scopes.iter().map(|scope| scope.subscription_id).collect();
    let regions: BTreeSet<&str> = scopes.iter().map(|scope| scope.region.as_str()).collect();
    let kinds: BTreeSet<&str> = scopes.iter().map(|scope| scope.kind.as_str()).collect();
    let of = present()
        .columns([SubscriptionId, Region, Kind])
        .filter(SubscriptionId.is_in(of))
        .filter(Region.is_in(regions))
        .filter(Kind.is_in(kinds));
    let rows: Vec<CountedPlace> = counting(of, thresholds, now)
        .group_by(SubscriptionId)
        .group_by(Region)
        .group_by(Kind)
        .into_tuple()
        .all(database.reader())
        .await?;
    let counts = rows.into_iter().map(|(of, region, kind, total, dated, expired, critical, warning)| {
        ((of, region, kind), StatusCounts::from_bounds(total, dated, expired, critical, warning))
    });
    Ok(counts.collect())
}

fn present() -> Select<asset::Entity> {
    asset::Entity::find().select_only().filter(asset::Column::RemovedAt.is_null())
}

fn counting(of: Select<asset::Entity>, thresholds: Thresholds, now: DateTime<Utc>) -> Select<asset::Entity> {
    let end = asset::Column::ExpiresAt;
    let (critical, warning) = thresholds.bounds(now);
    let up_to = |bound: DateTime<Utc>| Expr::case(end.lte(bound), 1).finally(0).sum();
    of.expr_as(asset::Column::Id.count(), "total")
        .expr_as(end.count(), "dated")
        .expr_as(up_to(now), "expired")
        .expr_as(up_to(critical), "critical")
        .expr_as(up_to(warning), "warning")
}
