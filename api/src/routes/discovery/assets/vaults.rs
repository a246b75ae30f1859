//! Vaults, with how many assets of each status they hold.

use super::counts::{self, StatusCounts};
use crate::{
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    wire::ProviderKind,
};
use chrono::{DateTime, Utc};
use keywright_entities::{scope::Scope, subscription, types, vault};
use keywright_jobs::{domain::inventory::Thresholds, setup::database::Database};
use poem_openapi::Object;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
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
    let counts = counts::by_vault(database, ids, thresholds, now).await?;
    Ok(slice.into_page(|row| VaultView {
        counts: counts.get(&row.id).copied().unwrap_or_default(),
        id: row.id,
        name: row.name,
        provider: row.provider.into(),
        subscription: row.subscription_id,
        region: row.region,
    }))
}
