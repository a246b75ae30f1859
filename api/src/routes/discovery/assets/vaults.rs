//! Vaults, with how many assets of each status they hold.

use crate::{
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    wire::ProviderKind,
};
use chrono::{DateTime, Duration, Utc};
use keywright_entities::{asset, scope::Scope, subscription, types, vault};
use keywright_jobs::{domain::inventory::Thresholds, setup::database::Database};
use poem_openapi::Object;
use sea_orm::{
    ColumnTrait, EntityTrait, QueryFilter, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait},
};
use std::collections::HashMap;
use uuid::Uuid;

/// A container of assets: a vault, a folder, a service in a region.
#[derive(Debug, Object)]
#[oai(rename = "Vault", rename_all = "camelCase")]
pub struct VaultView {
    pub id: Uuid,
    pub name: String,
    pub provider: ProviderKind,
    pub subscription: Uuid,
    pub region: String,
    pub counts: StatusCounts,
}

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

static VAULTS: Sorting<vault::Model> = Sorting {
    keys: &[
        SortKey {
            name: "name",
            column: || vault::Column::Name.into_expr(),
            nullable: false,
            read: |row| row.name.clone().into(),
        },
        SortKey {
            name: "createdAt",
            column: || vault::Column::CreatedAt.into_expr(),
            nullable: false,
            read: |row| row.created_at.into(),
        },
    ],
    default: "name",
    unique: SortKey {
        name: "id",
        column: || vault::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

pub async fn page(
    database: &Database,
    list: ListParams,
    visible: &Scope,
    subscription: Option<Uuid>,
    provider: Option<ProviderKind>,
    thresholds: Thresholds,
    now: DateTime<Utc>,
) -> Result<Page<VaultView>, ApiError> {
    let subscriptions = subscription::live().select_only().column(subscription::Column::Id).into_query();
    let mut select = vault::Entity::find()
        .filter(visible.on(vault::Column::SubscriptionId))
        .filter(vault::Column::SubscriptionId.in_subquery(subscriptions));
    if let Some(subscription) = subscription {
        select = select.filter(vault::Column::SubscriptionId.eq(subscription));
    }
    if let Some(provider) = provider {
        select = select.filter(vault::Column::Provider.eq(types::ProviderKind::from(provider)));
    }
    let slice = list.fetch(select, &VAULTS, database.reader()).await?;
    let ids: Vec<Uuid> = slice.rows.iter().map(|vault| vault.id).collect();
    let counts = counts(database, ids, thresholds, now).await?;
    Ok(slice.into_page(|row| VaultView {
        counts: counts.get(&row.id).copied().unwrap_or_default(),
        id: row.id,
        name: row.name,
        provider: row.provider.into(),
        subscription: row.subscription_id,
        region: row.region,
    }))
}

async fn counts(
    database: &Database,
    vaults: Vec<Uuid>,
    thresholds: Thresholds,
    now: DateTime<Utc>,
) -> Result<HashMap<Uuid, StatusCounts>, ApiError> {
    let end = asset::Column::ExpiresAt;
    let critical = now + Duration::days(thresholds.critical_days);
    let warning = now + Duration::days(thresholds.warning_days);
    // counts up to each bound; what lies between two bounds is their difference
    let up_to = |bound: DateTime<Utc>| Expr::case(end.lte(bound), 1).finally(0).sum();
    let rows: Vec<(Uuid, i64, i64, i64, i64, i64)> = asset::Entity::find()
        .select_only()
        .column(asset::Column::VaultId)
        .expr_as(asset::Column::Id.count(), "total")
        .expr_as(end.count(), "dated")
        .expr_as(up_to(now), "expired")
        .expr_as(up_to(critical), "critical")
        .expr_as(up_to(warning), "warning")
        .filter(asset::Column::VaultId.is_in(vaults))
        .filter(asset::Column::RemovedAt.is_null())
        .group_by(asset::Column::VaultId)
        .into_tuple()
        .all(database.reader())
        .await?;
    let between = |more: i64, less: i64| u64::try_from(more - less).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|(vault, total, dated, expired, critical, warning)| {
            let counts = StatusCounts {
                total: between(total, 0),
                unknown: between(total, dated),
                healthy: between(dated, warning),
                warning: between(warning, critical),
                critical: between(critical, expired),
                expired: between(expired, 0),
            };
            (vault, counts)
        })
        .collect())
}
