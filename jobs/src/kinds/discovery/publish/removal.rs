//! What a listing did not see, and what a deleted subscription leaves behind.

use super::{BATCH, Place, Tally, in_scope, related::forget_relations};
use crate::{
    context::Context, job::JobError, kinds::discovery::scope::Checkpoint, queue::outcome::sum_counts, setup::ids,
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_version, clock, job, types::Change};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Select,
    sea_query::{Expr, ExprTrait},
};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// After the last page: what the listing did not see is gone.
///
/// "Not seen" means last seen before the listing began, by whatever scan: another scan of this scope may have run while this
/// one waited for a retry.
pub async fn remove_unseen(context: &Context, place: &Arc<Place>) -> Result<(), JobError> {
    loop {
        let removed = context
            .persist(|db, job| {
                let place = Arc::clone(place);
                Box::pin(async move { remove_batch(db, &job, &place).await })
            })
            .await?;
        if removed < BATCH {
            return Ok(());
        }
    }
}

async fn remove_batch(db: &DatabaseTransaction, job: &job::Model, place: &Place) -> Result<usize, DbErr> {
    let checkpoint = Checkpoint::of(job);
    let Some(since) = checkpoint.since.filter(|_| checkpoint.listed) else { return Ok(0) };
    let unseen = in_scope(place)
        .filter(asset::Column::LastSeenAt.lt(since))
        .filter(could_be_read(db.get_database_backend(), place.job));
    let gone = batch_to_remove(db, unseen).await?;
    if gone.is_empty() {
        return Ok(0);
    }
    let now = clock::now(db).await?;
    mark_removed(db, &gone, now, Some((place.scan, place.job))).await?;
    let tally = Tally { removed: gone.len() as u64, ..Tally::default() };
    let counts = sum_counts(job.counts.clone(), Some(&tally.json(0)));
    Context::save(db, job, json!(checkpoint), counts).await?;
    Ok(gone.len())
}

/// An asset at a place that could not be read, such as a server that is down today, is not known to be gone. A warning's path is
/// the asset's external id or what it begins with; only `path_missing` says that there is nothing any more.
fn could_be_read(backend: DbBackend, listing: Uuid) -> Expr {
    // the builder numbers values for PostgreSQL only: on SQLite `$1` would be the first value of the whole statement
    let job = if backend == DbBackend::Postgres { "$1" } else { "?" };
    let told = "told.code <> 'path_missing' AND (\
        told.path = asset.external_id \
        OR substr(asset.external_id, 1, length(told.path) + 1) IN (told.path || '#', told.path || '/'))";
    let told = format!("SELECT 1 FROM scan_warning told WHERE told.job_id = {job} AND {told}");
    Expr::cust_with_values(format!("NOT EXISTS ({told})"), [listing])
}

async fn batch_to_remove(db: &DatabaseTransaction, of: Select<asset::Entity>) -> Result<Vec<asset::Model>, DbErr> {
    of.filter(asset::Column::RemovedAt.is_null()).order_by_asc(asset::Column::Id).limit(BATCH as u64).all(db).await
}

/// Marks all assets of a subscription as removed, because it is deleted.
pub async fn remove_all_of(db: &DatabaseTransaction, subscription: Uuid) -> Result<(), DbErr> {
    let now = clock::now(db).await?;
    loop {
        let of = asset::Entity::find().filter(asset::Column::SubscriptionId.eq(subscription));
        let gone = batch_to_remove(db, of).await?;
        if gone.is_empty() {
            return Ok(());
        }
        mark_removed(db, &gone, now, None).await?;
    }
}

/// Marks assets as removed and writes that as a version of each; `by` is the scan and the scope's job that found it out.
async fn mark_removed(
    db: &DatabaseTransaction,
    gone: &[asset::Model],
    now: DateTime<Utc>,
    by: Option<(Uuid, Uuid)>,
) -> Result<(), DbErr> {
    let ids: Vec<Uuid> = gone.iter().map(|asset| asset.id).collect();
    let last = asset_version::Entity::find()
        .filter(asset_version::Column::AssetId.is_in(ids.iter().copied()))
        .filter(asset_version::Column::ValidTo.is_null())
        .all(db)
        .await?;
    let versions = last.iter().map(|version| asset_version::ActiveModel {
        id: Set(ids::new()),
        asset_id: Set(version.asset_id),
        version: Set(version.version + 1),
        subscription_id: Set(version.subscription_id),
        region: Set(version.region.clone()),
        kind: Set(version.kind.clone()),
        scan_id: Set(by.map(|(scan, _)| scan)),
        job_id: Set(by.map(|(_, job)| job)),
        change: Set(Change::Removed),
        valid_from: Set(now),
        valid_to: Set(None),
        content: Set(version.content.clone()),
    });
    let versions: Vec<_> = versions.collect();
    asset_version::Entity::update_many()
        .col_expr(asset_version::Column::ValidTo, Expr::value(now))
        .filter(asset_version::Column::AssetId.is_in(ids.iter().copied()))
        .filter(asset_version::Column::ValidTo.is_null())
        .exec(db)
        .await?;
    forget_relations(db, &ids).await?;
    asset::Entity::update_many()
        .col_expr(asset::Column::RemovedAt, Expr::value(now))
        .col_expr(asset::Column::Version, Expr::col(asset::Column::Version).add(1))
        .filter(asset::Column::Id.is_in(ids))
        .exec(db)
        .await?;
    if !versions.is_empty() {
        asset_version::Entity::insert_many(versions).exec_without_returning(db).await?;
    }
    Ok(())
}
