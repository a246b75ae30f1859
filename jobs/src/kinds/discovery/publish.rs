//! Writing what a listing saw: page by page, idempotently, each change as a new version.

use super::scope::Checkpoint;
use crate::{
    context::Context,
    domain::inventory::{Observed, Page, ProviderKind, ScopeId, Warning},
    job::JobError,
    queue::outcome::sum_counts,
    setup::ids,
};
use chrono::{DateTime, Utc};
use keywright_entities::{
    asset, asset_version,
    clock::{self, micros},
    job, scan_warning,
    types::Change,
    vault,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Select, sea_query::Expr, sea_query::ExprTrait, sea_query::OnConflict,
};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use uuid::Uuid;

/// Rows in one statement: 500 × 32 columns stay below SQLite's 32,766 values.
const BATCH: usize = 500;

/// Where the listing stands in the world.
pub struct Place {
    pub scan: Uuid,
    /// The scope's job.
    pub job: Uuid,
    pub subscription: Uuid,
    pub provider: ProviderKind,
    pub scope: ScopeId,
}

/// A page, made ready outside the transaction.
struct Prepared {
    /// By external id: a provider that names one thing twice on a page means one thing.
    assets: BTreeMap<String, (Observed, Json, String)>,
    warnings: Vec<Warning>,
    next: Option<String>,
}

fn prepare(page: Page) -> Result<Prepared, JobError> {
    let mut assets = BTreeMap::new();
    for mut observed in page.assets {
        for time in [
            &mut observed.created_at,
            &mut observed.expires_at,
            &mut observed.not_before,
            &mut observed.last_rotated_at,
            &mut observed.last_accessed_at,
            &mut observed.last_changed_at,
        ] {
            *time = time.map(micros);
        }
        let content = serde_json::to_value(&observed).map_err(|error| JobError::fail("asset_unwritable", error))?;
        let hash = content_hash(&content);
        assets.insert(observed.external_id.clone(), (observed, content, hash));
    }
    Ok(Prepared { assets, warnings: page.warnings, next: page.next })
}

/// SHA-256 over what the provider says; that something was used is no change of it.
fn content_hash(content: &Json) -> String {
    let mut content = content.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("last_accessed_at");
    }
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.to_string().as_bytes()))
}

/// Publishes page `number` of a listing; returns how many assets the listing has found so far.
pub async fn page(context: &Context, place: &Arc<Place>, number: u64, page: Page) -> Result<u64, JobError> {
    let page = Arc::new(prepare(page)?);
    context
        .persist(|db, job| {
            let (place, page) = (Arc::clone(place), Arc::clone(&page));
            Box::pin(async move { publish(db, &job, &place, number, &page).await })
        })
        .await
}

async fn publish(
    db: &DatabaseTransaction,
    job: &job::Model,
    place: &Place,
    number: u64,
    page: &Prepared,
) -> Result<u64, DbErr> {
    let mut checkpoint = Checkpoint::of(job);
    // the commit whose answer was lost had happened
    if checkpoint.pages > number {
        return Ok(found(job.counts.as_ref()));
    }
    let now = clock::now(db).await?;
    let since = *checkpoint.since.get_or_insert(now);
    let vaults = vault_ids(db, place, page, now).await?;
    let known = known_assets(db, place, page).await?;
    let mut tally = Tally::default();
    let mut write = Writes::default();
    for (external_id, (observed, content, hash)) in &page.assets {
        let Some(vault) = vaults.get(&observed.vault).copied() else { continue };
        let version =
            |asset: Uuid, number: i64, change: Change| version_row(place, asset, number, change, now, content);
        match known.get(external_id) {
            None => {
                let id = ids::new();
                write.new.push(row(place, id, vault, observed, hash, now, now, 1));
                write.versions.push(version(id, 1, Change::Created));
                tally.created += 1;
            }
            Some(before) if before.content_hash == *hash && before.removed_at.is_none() => {
                // listed again after its page token expired
                if before.last_scan_id == place.scan && before.last_seen_at >= since {
                    continue;
                }
                tally.unchanged += 1;
                if before.last_accessed_at == observed.last_accessed_at {
                    write.seen.push(before.id);
                } else {
                    write.changed.push(row(
                        place,
                        before.id,
                        vault,
                        observed,
                        hash,
                        before.first_seen_at,
                        now,
                        before.version,
                    ));
                }
            }
            Some(before) => {
                let (change, number) = match before.removed_at {
                    Some(_) => (Change::Created, before.version + 1),
                    None => (Change::Changed, before.version + 1),
                };
                tally.count(change);
                write.changed.push(row(place, before.id, vault, observed, hash, before.first_seen_at, now, number));
                write.closed.push(before.id);
                write.versions.push(version(before.id, number, change));
            }
        }
    }
    write.apply(db, place, now).await?;
    write_warnings(db, place, &page.warnings).await?;
    checkpoint.pages = number + 1;
    checkpoint.next.clone_from(&page.next);
    checkpoint.listed = page.next.is_none();
    let counts = sum_counts(job.counts.clone(), Some(&tally.json(page.warnings.len())));
    let total = found(Some(&counts));
    Context::save(db, job, json!(checkpoint), counts).await?;
    Ok(total)
}

fn found(counts: Option<&Json>) -> u64 {
    counts.and_then(|counts| counts.get("found")).and_then(Json::as_u64).unwrap_or(0)
}

#[derive(Default)]
struct Tally {
    created: u64,
    changed: u64,
    unchanged: u64,
    removed: u64,
}

impl Tally {
    fn count(&mut self, change: Change) {
        match change {
            Change::Created => self.created += 1,
            Change::Changed => self.changed += 1,
            Change::Unchanged => self.unchanged += 1,
            Change::Removed => self.removed += 1,
        }
    }

    fn json(&self, warnings: usize) -> Json {
        json!({
            "found": self.created + self.changed + self.unchanged,
            "created": self.created,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "warnings": warnings,
        })
    }
}

/// What one transaction does to the inventory.
#[derive(Default)]
struct Writes {
    new: Vec<asset::ActiveModel>,
    changed: Vec<asset::ActiveModel>,
    /// Only seen again.
    seen: Vec<Uuid>,
    /// Their current version ends now.
    closed: Vec<Uuid>,
    versions: Vec<asset_version::ActiveModel>,
}

impl Writes {
    async fn apply(mut self, db: &DatabaseTransaction, place: &Place, now: DateTime<Utc>) -> Result<(), DbErr> {
        for ids in self.closed.chunks(BATCH) {
            asset_version::Entity::update_many()
                .col_expr(asset_version::Column::ValidTo, Expr::value(now))
                .filter(asset_version::Column::AssetId.is_in(ids.iter().copied()))
                .filter(asset_version::Column::ValidTo.is_null())
                .exec(db)
                .await?;
        }
        for ids in self.seen.chunks(BATCH) {
            asset::Entity::update_many()
                .col_expr(asset::Column::LastSeenAt, Expr::value(now))
                .col_expr(asset::Column::LastScanId, Expr::value(place.scan))
                .col_expr(asset::Column::Stale, Expr::value(false))
                .filter(asset::Column::Id.is_in(ids.iter().copied()))
                .exec(db)
                .await?;
        }
        for changed in self.changed {
            changed.update(db).await?;
        }
        while !self.new.is_empty() {
            let batch: Vec<_> = self.new.drain(..self.new.len().min(BATCH)).collect();
            asset::Entity::insert_many(batch).exec_without_returning(db).await?;
        }
        while !self.versions.is_empty() {
            let batch: Vec<_> = self.versions.drain(..self.versions.len().min(BATCH)).collect();
            asset_version::Entity::insert_many(batch).exec_without_returning(db).await?;
        }
        Ok(())
    }
}

async fn vault_ids(
    db: &DatabaseTransaction,
    place: &Place,
    page: &Prepared,
    now: DateTime<Utc>,
) -> Result<HashMap<String, Uuid>, DbErr> {
    let mut names: Vec<&str> = page.assets.values().map(|(observed, ..)| observed.vault.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut ids_by_name = HashMap::new();
    for names in names.chunks(BATCH) {
        let rows = names.iter().map(|name| vault::ActiveModel {
            id: Set(ids::new()),
            subscription_id: Set(place.subscription),
            provider: Set(place.provider),
            region: Set(place.scope.region.clone()),
            name: Set((*name).to_owned()),
            created_at: Set(now),
        });
        let known = [vault::Column::SubscriptionId, vault::Column::Region, vault::Column::Name];
        vault::Entity::insert_many(rows)
            .on_conflict(OnConflict::columns(known).do_nothing().to_owned())
            .exec_without_returning(db)
            .await?;
        let found = vault::Entity::find()
            .filter(vault::Column::SubscriptionId.eq(place.subscription))
            .filter(vault::Column::Region.eq(place.scope.region.as_str()))
            .filter(vault::Column::Name.is_in(names.iter().copied()))
            .all(db)
            .await?;
        ids_by_name.extend(found.into_iter().map(|vault| (vault.name, vault.id)));
    }
    Ok(ids_by_name)
}

async fn known_assets(
    db: &DatabaseTransaction,
    place: &Place,
    page: &Prepared,
) -> Result<HashMap<String, asset::Model>, DbErr> {
    let external_ids: Vec<&str> = page.assets.keys().map(String::as_str).collect();
    let mut known = HashMap::with_capacity(external_ids.len());
    for batch in external_ids.chunks(BATCH) {
        let rows = in_scope(place).filter(asset::Column::ExternalId.is_in(batch.iter().copied())).all(db).await?;
        known.extend(rows.into_iter().map(|row| (row.external_id.clone(), row)));
    }
    Ok(known)
}

fn in_scope(place: &Place) -> Select<asset::Entity> {
    asset::Entity::find()
        .filter(asset::Column::SubscriptionId.eq(place.subscription))
        .filter(asset::Column::Region.eq(place.scope.region.as_str()))
        .filter(asset::Column::Kind.eq(place.scope.kind.as_str()))
}

#[allow(clippy::too_many_arguments, reason = "one value per column that the observation does not carry")]
fn row(
    place: &Place,
    id: Uuid,
    vault: Uuid,
    observed: &Observed,
    hash: &str,
    first_seen_at: DateTime<Utc>,
    now: DateTime<Utc>,
    version: i64,
) -> asset::ActiveModel {
    asset::ActiveModel {
        id: Set(id),
        subscription_id: Set(place.subscription),
        provider: Set(place.provider),
        asset_type: Set(observed.asset_type),
        kind: Set(observed.kind.clone()),
        vault_id: Set(vault),
        vault: Set(observed.vault.clone()),
        region: Set(place.scope.region.clone()),
        name: Set(observed.name.clone()),
        name_key: Set(observed.name.to_lowercase()),
        external_id: Set(observed.external_id.clone()),
        enabled: Set(observed.enabled),
        created_at: Set(observed.created_at),
        expires_at: Set(observed.expires_at),
        not_before: Set(observed.not_before),
        last_rotated_at: Set(observed.last_rotated_at),
        last_accessed_at: Set(observed.last_accessed_at),
        last_changed_at: Set(observed.last_changed_at),
        first_seen_at: Set(first_seen_at),
        last_seen_at: Set(now),
        removed_at: Set(None),
        stale: Set(false),
        owner: Set(observed.owner().map(str::to_owned)),
        environment: Set(observed.environment().map(str::to_owned)),
        tags: Set(json!(observed.tags)),
        certificate: Set(observed.certificate.as_ref().map(|facts| json!(facts))),
        attributes: Set(Json::Object(observed.attributes.clone())),
        content_hash: Set(hash.to_owned()),
        version: Set(version),
        last_scan_id: Set(place.scan),
    }
}

fn version_row(
    place: &Place,
    asset: Uuid,
    number: i64,
    change: Change,
    now: DateTime<Utc>,
    content: &Json,
) -> asset_version::ActiveModel {
    asset_version::ActiveModel {
        id: Set(ids::new()),
        asset_id: Set(asset),
        version: Set(number),
        subscription_id: Set(place.subscription),
        region: Set(place.scope.region.clone()),
        kind: Set(place.scope.kind.clone()),
        scan_id: Set(Some(place.scan)),
        job_id: Set(Some(place.job)),
        change: Set(change),
        valid_from: Set(now),
        valid_to: Set(None),
        content: Set(content.clone()),
    }
}

async fn write_warnings(db: &DatabaseTransaction, place: &Place, warnings: &[Warning]) -> Result<(), DbErr> {
    for batch in warnings.chunks(BATCH) {
        let rows = batch.iter().map(|warning| scan_warning::ActiveModel {
            id: Set(ids::new()),
            scan_id: Set(place.scan),
            job_id: Set(place.job),
            path: Set(warning.path.clone()),
            code: Set(warning.code.clone()),
            detail: Set(warning.detail.clone()),
        });
        scan_warning::Entity::insert_many(rows).exec_without_returning(db).await?;
    }
    Ok(())
}

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
    let gone = batch_to_remove(db, in_scope(place).filter(asset::Column::LastSeenAt.lt(since))).await?;
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
