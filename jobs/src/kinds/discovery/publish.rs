//! Writing what a listing saw: page by page, idempotently, each change as a new version.

mod prepared;
mod related;
mod removal;
mod rows;

pub use prepared::{Entry, Prepared, Reached, plain, prepare};
pub use removal::{remove_all_of, remove_unseen};

use super::{refusal, scope::Checkpoint};
use crate::{
    audit::Event,
    context::Context,
    domain::inventory::{ProviderKind, ScopeId, TagKeys, Warning},
    egress,
    job::JobError,
    queue::outcome::sum_counts,
    setup::ids,
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_version, clock, job, scan_warning, types::Change, vault};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait,
    FromQueryResult, QueryFilter, QuerySelect, Select, UpdateMany, sea_query::Expr, sea_query::OnConflict,
};
use serde_json::{Value as Json, json};
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

use related::Relations;
use rows::{row, version_row, whose};

/// Rows in one statement: 500 × 34 columns stay below SQLite's 32,766 values.
const BATCH: usize = 500;

/// Where the listing stands in the world.
pub struct Place {
    pub scan: Uuid,
    /// The scope's job.
    pub job: Uuid,
    pub subscription: Uuid,
    pub provider: ProviderKind,
    pub scope: ScopeId,
    /// By which tags the settings tell owner and environment.
    pub tags: TagKeys,
}

/// Publishes part `number` of a listing, a page or less; returns how many assets the listing has found so far.
pub async fn page(context: &Context, place: &Arc<Place>, number: u64, page: Prepared) -> Result<u64, JobError> {
    let page = Arc::new(page);
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
    for (external_id, entry) in &page.assets {
        let observed = &entry.observed;
        let Some(vault) = vaults.get(&observed.vault).copied() else { continue };
        let version =
            |asset: Uuid, number: i64, change: Change| version_row(place, asset, number, change, now, &entry.content);
        let detailed = entry.listed.as_ref().is_some_and(|listed| listed.detailed);
        let detailed_at = |before: Option<DateTime<Utc>>| if detailed { Some(now) } else { before };
        match known.get(external_id) {
            None => {
                let id = ids::new();
                write.new.push(row(place, id, vault, entry, now, now, 1, detailed_at(None)));
                write.versions.push(version(id, 1, Change::Created));
                write.relations.of_new(id, observed);
                tally.created += 1;
            }
            // once per listing: named on two pages, or listed again after a page token expired
            Some(before) if before.last_scan_id == place.scan && before.last_seen_at >= since => {}
            Some(before) if before.content_hash == entry.hash && before.removed_at.is_none() => {
                tally.unchanged += 1;
                // no change of the asset, but of what its row tells: its last use, by which tags owners are told, what came of the list
                let told = (before.owner.clone(), before.environment.clone()) == whose(place, observed)
                    && before.last_accessed_at == observed.last_accessed_at
                    && entry
                        .listed
                        .as_ref()
                        .is_none_or(|listed| (&before.listed_hash, &before.details) == (&listed.hash, &listed.details));
                match (told, detailed) {
                    (true, false) => write.seen.push(before.id),
                    (true, true) => write.detailed.push(before.id),
                    (false, _) => {
                        let at = detailed_at(before.detailed_at);
                        let (first, version) = (before.first_seen_at, before.version);
                        write.changed.push(row(place, before.id, vault, entry, first, now, version, at));
                    }
                }
            }
            Some(before) => {
                let (change, number) = match before.removed_at {
                    Some(_) => (Change::Created, before.version + 1),
                    None => (Change::Changed, before.version + 1),
                };
                tally.count(change);
                let at = detailed_at(before.detailed_at);
                write.changed.push(row(place, before.id, vault, entry, before.first_seen_at, now, number, at));
                write.closed.push(before.id);
                write.relations.of_changed(before.id, observed);
                write.versions.push(version(before.id, number, change));
            }
        }
    }
    write.apply(db, place, now).await?;
    let once = page.once.iter().filter(|warning| checkpoint.told.insert(format!("{} {}", warning.code, warning.path)));
    let warnings: Vec<Warning> = page.warnings.iter().chain(once).cloned().collect();
    write_warnings(db, place, &warnings).await?;
    checkpoint.pages = number + 1;
    if let Reached::Page(next) = &page.reached {
        checkpoint.next.clone_from(next);
        checkpoint.listed = next.is_none();
    }
    let counts = sum_counts(job.counts.clone(), Some(&tally.json(warnings.len())));
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
    /// Seen again, and looked at closely again.
    detailed: Vec<Uuid>,
    /// Their current version ends now.
    closed: Vec<Uuid>,
    versions: Vec<asset_version::ActiveModel>,
    relations: Relations,
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
            seen(ids, place, now).exec(db).await?;
        }
        for ids in self.detailed.chunks(BATCH) {
            seen(ids, place, now).col_expr(asset::Column::DetailedAt, Expr::value(now)).exec(db).await?;
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
        self.relations.apply(db, place.subscription).await
    }
}

fn seen(ids: &[Uuid], place: &Place, now: DateTime<Utc>) -> UpdateMany<asset::Entity> {
    asset::Entity::update_many()
        .col_expr(asset::Column::LastSeenAt, Expr::value(now))
        .col_expr(asset::Column::LastScanId, Expr::value(place.scan))
        .col_expr(asset::Column::Stale, Expr::value(false))
        .filter(asset::Column::Id.is_in(ids.iter().copied()))
}

async fn vault_ids(
    db: &DatabaseTransaction,
    place: &Place,
    page: &Prepared,
    now: DateTime<Utc>,
) -> Result<HashMap<String, Uuid>, DbErr> {
    let mut names: Vec<&str> = page.assets.values().map(|entry| entry.observed.vault.as_str()).collect();
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

/// What is known of the details of an asset.
#[derive(Clone, Debug, Default, FromQueryResult)]
pub struct Known {
    external_id: String,
    pub listed_hash: Option<String>,
    pub details: Option<Json>,
    pub detailed_at: Option<DateTime<Utc>>,
    pub removed_at: Option<DateTime<Utc>>,
}

/// What is known of the details of these assets, by external id.
///
/// # Errors
/// When the database cannot tell.
pub async fn known_details<'a>(
    db: &impl ConnectionTrait,
    place: &Place,
    external_ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Known>, DbErr> {
    use asset::Column::{DetailedAt, Details, ExternalId, ListedHash, RemovedAt};
    let external_ids: Vec<&str> = external_ids.collect();
    let mut known = HashMap::with_capacity(external_ids.len());
    for batch in external_ids.chunks(BATCH) {
        let rows = in_scope(place)
            .select_only()
            .columns([ExternalId, ListedHash, Details, DetailedAt, RemovedAt])
            .filter(ExternalId.is_in(batch.iter().copied()))
            .into_model::<Known>()
            .all(db)
            .await?;
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
        let refused = batch.iter().filter(|warning| warning.code == egress::REFUSED);
        let told = refused.map(|warning| refusal(place.subscription, place.job, &warning.detail));
        Event::write_all(told, db).await?;
    }
    Ok(())
}
