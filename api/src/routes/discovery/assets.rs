//! The inventory: assets as they are now, and the vaults that hold them.

mod as_of;
pub(super) mod counts;
mod filter;
mod history;
mod relations;
mod vaults;
mod view;

pub use view::{AssetView, view_of_version};

use crate::{
    auth::{Caller, perm},
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    routes::Tag,
    timestamp::Timestamp,
    wire::{AssetType, ProviderKind, Status},
};
use filter::{AssetFilter, Removed};
use history::VersionView;
use keywright_entities::{asset, scope::Scope};
use keywright_jobs::{
    settings::Live,
    setup::{clock::Clock, database::Database},
};
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
    payload::Json,
};
use relations::{Direction, RelationView};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;
use vaults::VaultView;

/// Assets and vaults.
pub struct AssetsApi {
    pub database: Database,
    pub clock: Clock,
    pub settings: Live,
}

/// A sort key of a column of the asset's row.
macro_rules! by {
    ($name:literal, $column:ident, $field:ident, $nullable:literal) => {
        SortKey {
            name: $name,
            column: || asset::Column::$column.into_expr(),
            nullable: $nullable,
            read: |row| row.$field.clone().into(),
        }
    };
}

static ASSETS: Sorting<asset::Model> = Sorting {
    keys: &[
        by!("firstSeenAt", FirstSeenAt, first_seen_at, false),
        by!("lastSeenAt", LastSeenAt, last_seen_at, false),
        by!("createdAt", CreatedAt, created_at, true),
        by!("expiresAt", ExpiresAt, expires_at, true),
        by!("lastRotatedAt", LastRotatedAt, last_rotated_at, true),
        by!("lastChangedAt", LastChangedAt, last_changed_at, true),
        by!("name", NameKey, name_key, false),
        by!("vault", Vault, vault, false),
    ],
    default: "firstSeenAt",
    unique: by!("id", Id, id, false),
};

#[OpenApi(tag = "Tag::Discovery")]
impl AssetsApi {
    /// List assets
    #[oai(path = "/api/assets/discovery/assets", method = "get", operation_id = "listAssets")]
    #[allow(clippy::too_many_arguments, reason = "one argument per documented parameter")]
    async fn list(
        &self,
        caller: Caller<perm::InventoryRead>,
        list: ListParams,
        /// Only assets of these types.
        #[oai(name = "type")]
        asset_type: Query<Option<Vec<AssetType>>>,
        /// Only assets that stand like this now.
        status: Query<Option<Vec<Status>>>,
        /// Only assets in vaults of this name.
        vault: Query<Option<Vec<String>>>,
        /// Only assets of these subscriptions.
        subscription: Query<Option<Vec<Uuid>>>,
        /// Only assets of these providers.
        provider: Query<Option<Vec<ProviderKind>>>,
        /// Only assets in these regions.
        region: Query<Option<Vec<String>>>,
        /// Only assets that end before this instant.
        #[oai(name = "expiresBefore")]
        expires_before: Query<Option<Timestamp>>,
        /// Only assets that end after this instant.
        #[oai(name = "expiresAfter")]
        expires_after: Query<Option<Timestamp>>,
        /// Only assets of these owners.
        owner: Query<Option<Vec<String>>>,
        /// Only assets with all of these tags, each as `KEY:VALUE`.
        tag: Query<Option<Vec<String>>>,
        /// Only assets with a word in their name that begins like this, in any case.
        #[oai(validator(min_length = 1, max_length = 256))]
        q: Query<Option<String>>,
        /// Only certificates of these fingerprints (SHA-256 in hex).
        #[oai(name = "fingerprintSha256")]
        fingerprint: Query<Option<Vec<String>>>,
        /// Default `false`.
        removed: Query<Option<Removed>>,
        /// Only assets that this scan was the last to see.
        #[oai(name = "seenBy")]
        seen_by: Query<Option<Uuid>>,
        /// The inventory as it was at this instant, status included. Not with `owner`, `q`, `seenBy`.
        #[oai(name = "asOf")]
        as_of: Query<Option<Timestamp>>,
        /// `firstSeenAt` (default), `lastSeenAt`, `createdAt`, `expiresAt`, `lastRotatedAt`, `lastChangedAt`, `name`, `vault`; with
        /// `asOf` `id` (default) and all of these but the first two.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<AssetView>>, ApiError> {
        let _ = sort;
        let filter = AssetFilter {
            asset_types: asset_type.0.unwrap_or_default(),
            statuses: status.0.unwrap_or_default(),
            vaults: vault.0.unwrap_or_default(),
            subscriptions: subscription.0.unwrap_or_default(),
            providers: provider.0.unwrap_or_default(),
            regions: region.0.unwrap_or_default(),
            expires_before: expires_before.0.map(|at| at.0),
            expires_after: expires_after.0.map(|at| at.0),
            owners: owner.0.unwrap_or_default(),
            tags: tag.0.unwrap_or_default(),
            word: q.0,
            fingerprints: fingerprint.0.unwrap_or_default().iter().map(|hex| hex.to_lowercase()).collect(),
            removed: removed.0.unwrap_or_default(),
            seen_by: seen_by.0,
        };
        let settings = self.settings.current().await?;
        if let Some(at) = as_of.0 {
            let at = as_of::instant(&self.database, at).await?;
            return as_of::page(&self.database, list, filter, &caller.visible(), &settings, at).await.map(Json);
        }
        let (now, thresholds) = (self.clock.now(), settings.thresholds);
        let select = filter.select(&caller.visible(), self.database.backend(), thresholds, now)?;
        let slice = list.fetch(select, &ASSETS, self.database.reader()).await?;
        Ok(Json(slice.into_page(|row| AssetView::new(row, thresholds, now))))
    }

    /// Get an asset
    #[oai(path = "/api/assets/discovery/assets/:id", method = "get", operation_id = "getAsset")]
    async fn get(
        &self,
        caller: Caller<perm::InventoryRead>,
        id: Path<Uuid>,
        /// The asset as it was at this instant, status included; 404 when it was not known yet.
        #[oai(name = "asOf")]
        as_of: Query<Option<Timestamp>>,
    ) -> Result<Json<AssetView>, ApiError> {
        let settings = self.settings.current().await?;
        let found = match as_of.0 {
            Some(at) => {
                let at = as_of::instant(&self.database, at).await?;
                as_of::get(&self.database, &caller.visible(), id.0, &settings, at).await?
            }
            None => {
                let row = self.find(&caller.visible(), id.0).await?;
                Some(AssetView::new(row, settings.thresholds, self.clock.now()))
            }
        };
        found.map(Json).ok_or_else(|| ApiError::not_found("asset"))
    }

    /// List the versions of an asset, newest first
    #[oai(path = "/api/assets/discovery/assets/:id/history", method = "get", operation_id = "listAssetVersions")]
    async fn history(
        &self,
        caller: Caller<perm::InventoryRead>,
        id: Path<Uuid>,
        list: ListParams,
    ) -> Result<Json<Page<VersionView>>, ApiError> {
        let asset = self.find(&caller.visible(), id.0).await?;
        let settings = self.settings.current().await?;
        history::page(&self.database, list, &asset, &settings, self.clock.now()).await.map(Json)
    }

    /// List what an asset hangs together with
    #[oai(path = "/api/assets/discovery/assets/:id/relations", method = "get", operation_id = "listAssetRelations")]
    async fn relations(
        &self,
        caller: Caller<perm::InventoryRead>,
        id: Path<Uuid>,
        list: ListParams,
        /// Only relations of which the asset is this end.
        direction: Query<Option<Direction>>,
    ) -> Result<Json<Page<RelationView>>, ApiError> {
        let visible = caller.visible();
        let asset = self.find(&visible, id.0).await?;
        relations::page(&self.database, list, &asset, &visible, direction.0).await.map(Json)
    }

    /// List vaults
    ///
    /// With how many assets of each status they hold; removed assets do not count.
    #[oai(path = "/api/assets/discovery/vaults", method = "get", operation_id = "listVaults")]
    async fn vaults(
        &self,
        caller: Caller<perm::InventoryRead>,
        list: ListParams,
        /// Only vaults of this subscription.
        subscription: Query<Option<Uuid>>,
        /// Only vaults of this provider.
        provider: Query<Option<ProviderKind>>,
        /// `name` (default), `createdAt`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<VaultView>>, ApiError> {
        let _ = sort;
        let (now, thresholds) = (self.clock.now(), self.settings.current().await?.thresholds);
        let visible = caller.visible();
        vaults::page(&self.database, list, &visible, subscription.0, provider.0, thresholds, now).await.map(Json)
    }
}

impl AssetsApi {
    async fn find(&self, visible: &Scope, id: Uuid) -> Result<asset::Model, ApiError> {
        let found = asset::Entity::find_by_id(id).filter(visible.on(asset::Column::SubscriptionId));
        found.one(self.database.reader()).await?.ok_or_else(|| ApiError::not_found("asset"))
    }
}
