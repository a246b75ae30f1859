//! One certificate in several places, told by its fingerprint.

use super::assets::AssetView;
use crate::{
    auth::{Caller, perm},
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    routes::Tag,
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, scope::Scope};
use keywright_jobs::{
    domain::inventory::Thresholds,
    settings::Live,
    setup::{clock::Clock, database::Database},
};
use poem_openapi::{Object, OpenApi, payload::Json};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Alias, Expr, ExprTrait, Query as Sql, SelectStatement},
};
use std::collections::HashMap;

/// Assets shown with a group; `count` tells how many there are.
const SHOWN: u64 = 100;

/// Duplicates.
pub struct DuplicatesApi {
    pub database: Database,
    pub clock: Clock,
    pub settings: Live,
}

/// A certificate that is in several places.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct DuplicateGroup {
    /// Lower-case hex.
    pub fingerprint_sha256: String,
    /// The places that the caller may see, two or more.
    pub count: u64,
    /// The first 100 of them.
    pub assets: Vec<AssetView>,
}

static GROUPS: Sorting<asset::Model> = Sorting {
    keys: &[SortKey {
        name: "fingerprintSha256",
        column: || asset::Column::Fingerprint.into_expr(),
        // the list holds none without
        nullable: false,
        read: |row| row.fingerprint.clone().into(),
    }],
    default: "fingerprintSha256",
    unique: SortKey {
        name: "id",
        column: || asset::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Discovery")]
impl DuplicatesApi {
    /// List certificates that are in several places
    #[oai(path = "/api/assets/discovery/duplicates", method = "get", operation_id = "listDuplicates")]
    async fn list(
        &self,
        caller: Caller<perm::InventoryRead>,
        list: ListParams,
    ) -> Result<Json<Page<DuplicateGroup>>, ApiError> {
        let visible = caller.visible();
        // a group is told by the first of its assets
        let select = present(&visible)
            .filter(asset::Column::Fingerprint.is_not_null())
            .filter(Expr::exists(same(&visible, |id, other| other.lt(id))).not())
            .filter(Expr::exists(same(&visible, |id, other| other.gt(id))));
        let slice = list.fetch(select, &GROUPS, self.database.reader()).await?;
        let (now, thresholds) = (self.clock.now(), self.settings.current().await?.thresholds);
        let mut groups = HashMap::new();
        for fingerprint in slice.rows.iter().filter_map(|row| row.fingerprint.clone()) {
            groups.insert(fingerprint.clone(), self.group(&visible, fingerprint, thresholds, now).await?);
        }
        Ok(Json(slice.into_page(|row| {
            let fingerprint = row.fingerprint.unwrap_or_default();
            let empty = || DuplicateGroup { fingerprint_sha256: fingerprint.clone(), count: 0, assets: Vec::new() };
            groups.remove(&fingerprint).unwrap_or_else(empty)
        })))
    }
}

impl DuplicatesApi {
    async fn group(
        &self,
        visible: &Scope,
        fingerprint: String,
        thresholds: Thresholds,
        now: DateTime<Utc>,
    ) -> Result<DuplicateGroup, ApiError> {
        use sea_orm::PaginatorTrait;
        let all = present(visible).filter(asset::Column::Fingerprint.eq(fingerprint.as_str()));
        let rows = all.clone().order_by_asc(asset::Column::Id).limit(SHOWN).all(self.database.reader()).await?;
        let count = match rows.len() as u64 {
            SHOWN => all.count(self.database.reader()).await?,
            few => few,
        };
        let assets = rows.into_iter().map(|row| AssetView::new(row, thresholds, now)).collect();
        Ok(DuplicateGroup { fingerprint_sha256: fingerprint, count, assets })
    }
}

fn present(visible: &Scope) -> sea_orm::Select<asset::Entity> {
    let there = Condition::all().add(visible.on(asset::Column::SubscriptionId)).add(asset::Column::RemovedAt.is_null());
    asset::Entity::find().filter(there)
}

/// Assets with the fingerprint of the row at hand whose id, beside the row's, is as `which` says.
fn same(visible: &Scope, which: impl Fn(Expr, Expr) -> Expr) -> SelectStatement {
    let other = Alias::new("other");
    let of = |column: asset::Column| Expr::col((other.clone(), column));
    let row = |column: asset::Column| Expr::col((asset::Entity, column));
    let mut select = Sql::select()
        .expr(Expr::val(1))
        .from_as(asset::Entity, other.clone())
        .and_where(of(asset::Column::Fingerprint).eq(row(asset::Column::Fingerprint)))
        .and_where(of(asset::Column::RemovedAt).is_null())
        .and_where(which(row(asset::Column::Id), of(asset::Column::Id)))
        .to_owned();
    if let Scope::Subscriptions(ids) = visible {
        select.and_where(of(asset::Column::SubscriptionId).is_in(ids.iter().copied()));
    }
    select
}
