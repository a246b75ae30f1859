//! The inventory as it was at an instant, read from the versions that held then.

use super::{
    filter::{AssetFilter, Removed, tagged},
    view::{AssetView, view_of_version},
};
use crate::{
    error::{ApiError, FieldError},
    page::{Key, ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::Status,
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_version, clock, scope::Scope, subscription, types};
use keywright_jobs::{
    domain::{inventory::Thresholds, settings::Settings},
    setup::database::Database,
};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select,
    sea_query::{Expr, ExprTrait},
};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// A text of the version's content. Both databases have this operator.
macro_rules! content {
    ($member:literal) => {
        concat!("asset_version.content ->> '", $member, "'")
    };
}

/// An instant of the content, without the `Z` that all of them end in: the texts have the order of the instants then.
macro_rules! instant {
    ($member:literal) => {
        concat!("rtrim(", content!($member), ", 'Z')")
    };
}

macro_rules! by_instant {
    ($name:literal, $member:literal) => {
        SortKey {
            name: $name,
            column: || Expr::cust(instant!($member)),
            nullable: true,
            read: |row| text(row, $member).map(|at| at.trim_end_matches('Z').to_owned()).into(),
        }
    };
}

macro_rules! by_text {
    ($name:literal, $member:literal) => {
        SortKey {
            name: $name,
            column: || Expr::cust(content!($member)),
            nullable: false,
            read: |row| text(row, $member).map_or(Key::Null, Key::from),
        }
    };
}

static VERSIONS: Sorting<asset_version::Model> = Sorting {
    keys: &[
        SortKey {
            name: "id",
            column: || asset_version::Column::AssetId.into_expr(),
            nullable: false,
            read: |row| row.asset_id.into(),
        },
        by_text!("name", "name"),
        by_text!("vault", "vault"),
        by_instant!("createdAt", "created_at"),
        by_instant!("expiresAt", "expires_at"),
        by_instant!("lastRotatedAt", "last_rotated_at"),
        by_instant!("lastChangedAt", "last_changed_at"),
    ],
    default: "id",
    unique: SortKey {
        name: "version",
        column: || asset_version::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

fn text(row: &asset_version::Model, member: &str) -> Option<String> {
    row.content.get(member).and_then(Value::as_str).map(str::to_owned)
}

/// The instant that a request asks for.
///
/// # Errors
/// 400 for one that is still to come: nobody knows the inventory then.
pub async fn instant(database: &Database, at: Timestamp) -> Result<DateTime<Utc>, ApiError> {
    if at.0 > clock::now(database.reader()).await? {
        return Err(ApiError::invalid("/query/asOf", "range", "That instant is still to come: ask for a past one."));
    }
    Ok(at.0)
}

pub async fn page(
    database: &Database,
    list: ListParams,
    filter: AssetFilter,
    visible: &Scope,
    settings: &Settings,
    at: DateTime<Utc>,
) -> Result<Page<AssetView>, ApiError> {
    let select = select(filter, visible, database.backend(), settings.thresholds, at)?;
    let mut slice = list.fetch(select, &VERSIONS, database.reader()).await?;
    let ids: Vec<Uuid> = slice.rows.iter().map(|version| version.asset_id).collect();
    let rows = asset::Entity::find().filter(asset::Column::Id.is_in(ids)).all(database.reader()).await?;
    let assets: HashMap<Uuid, asset::Model> = rows.into_iter().map(|asset| (asset.id, asset)).collect();
    let pairs = std::mem::take(&mut slice.rows).into_iter();
    let pairs = pairs.filter_map(|version| Some((assets.get(&version.asset_id)?, version))).collect();
    let slice = slice.holding(pairs);
    Ok(slice.into_page(|(asset, version)| view(asset, &version, settings, at)))
}

/// One asset as it was then; `None` when it was not known yet.
pub async fn get(
    database: &Database,
    visible: &Scope,
    id: Uuid,
    settings: &Settings,
    at: DateTime<Utc>,
) -> Result<Option<AssetView>, ApiError> {
    let filter = AssetFilter { removed: Removed::Any, ..AssetFilter::default() };
    let version = select(filter, visible, database.backend(), settings.thresholds, at)?
        .filter(asset_version::Column::AssetId.eq(id))
        .one(database.reader())
        .await?;
    let asset = asset::Entity::find_by_id(id).one(database.reader()).await?;
    Ok(version.zip(asset).map(|(version, asset)| view(&asset, &version, settings, at)))
}

fn view(asset: &asset::Model, version: &asset_version::Model, settings: &Settings, at: DateTime<Utc>) -> AssetView {
    let mut view = view_of_version(asset, version, settings, at);
    view.removed_at = (version.change == types::Change::Removed).then(|| version.valid_from.into());
    // how often it was seen in one version is not kept
    view.last_seen_at = std::cmp::Ord::min(asset.last_seen_at, version.valid_from).into();
    view.detailed_at = view.detailed_at.filter(|detailed| detailed.0 <= at);
    view.stale = false;
    view
}

fn select(
    filter: AssetFilter,
    visible: &Scope,
    backend: DbBackend,
    thresholds: Thresholds,
    at: DateTime<Utc>,
) -> Result<Select<asset_version::Entity>, ApiError> {
    use asset_version::Column::{Change, Region, SubscriptionId, ValidFrom, ValidTo};
    refuse_what_is_only_known_now(&filter)?;
    let mut all = Condition::all()
        .add(visible.on(SubscriptionId))
        .add(ValidFrom.lte(at))
        .add(Condition::any().add(ValidTo.is_null()).add(ValidTo.gt(at)));
    all = match filter.removed {
        Removed::Without => all.add(Change.ne(types::Change::Removed)),
        Removed::Only => all.add(Change.eq(types::Change::Removed)),
        Removed::Any => all,
    };
    if !filter.asset_types.is_empty() {
        let types = filter.asset_types.into_iter().map(|one| types::AssetType::from(one).as_str());
        all = all.add(Expr::cust(content!("asset_type")).is_in(types));
    }
    if !filter.providers.is_empty() {
        let providers = filter.providers.into_iter().map(types::ProviderKind::from);
        let of = subscription::Entity::find().select_only().column(subscription::Column::Id);
        all = all
            .add(SubscriptionId.in_subquery(of.filter(subscription::Column::Provider.is_in(providers)).into_query()));
    }
    if !filter.vaults.is_empty() {
        all = all.add(Expr::cust(content!("vault")).is_in(filter.vaults));
    }
    if !filter.fingerprints.is_empty() {
        let fingerprint = "lower(asset_version.content -> 'certificate' ->> 'fingerprintSha256')";
        all = all.add(Expr::cust(fingerprint).is_in(filter.fingerprints));
    }
    if !filter.regions.is_empty() {
        all = all.add(Region.is_in(filter.regions));
    }
    if !filter.subscriptions.is_empty() {
        all = all.add(SubscriptionId.is_in(filter.subscriptions));
    }
    if !filter.statuses.is_empty() {
        let any = filter.statuses.into_iter().fold(Condition::any(), |any, one| any.add(stood(one, thresholds, at)));
        all = all.add(any);
    }
    if let Some(before) = filter.expires_before {
        all = all.add(end().lt(spelled(before)));
    }
    if let Some(after) = filter.expires_after {
        all = all.add(end().gt(spelled(after)));
    }
    for tag in &filter.tags {
        all = all.add(tagged(tag, |key, value| held(key, value, backend))?);
    }
    Ok(asset_version::Entity::find().filter(all))
}

fn refuse_what_is_only_known_now(filter: &AssetFilter) -> Result<(), ApiError> {
    let given = [
        ("owner", !filter.owners.is_empty(), "Which tags tell the owner is a setting of today: filter by tag."),
        ("q", filter.word.is_some(), "Words are looked for in the names of today only."),
        (
            "seenBy",
            filter.seen_by.is_some(),
            "Only the last scan that saw an asset is known: read that scan's results.",
        ),
    ];
    let refused = given.into_iter().filter(|(_, given, _)| *given);
    let errors: Vec<FieldError> =
        refused.map(|(name, _, why)| FieldError::new(format!("/query/{name}"), "not_with_as_of", why)).collect();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::validation(errors)) }
}

fn end() -> Expr {
    Expr::cust(instant!("expires_at"))
}

/// As the content spells instants, without the `Z`.
fn spelled(at: DateTime<Utc>) -> String {
    let text = serde_json::to_value(at).unwrap_or_default();
    text.as_str().unwrap_or_default().trim_end_matches('Z').to_owned()
}

/// The same bounds as [`Thresholds::status`].
fn stood(status: Status, thresholds: Thresholds, at: DateTime<Utc>) -> Condition {
    let (critical, warning) = thresholds.bounds(at);
    let (critical, warning) = (spelled(critical), spelled(warning));
    let all = Condition::all();
    match status {
        Status::Unknown => all.add(end().is_null()),
        Status::Expired => all.add(end().lte(spelled(at))),
        Status::Critical => all.add(end().gt(spelled(at))).add(end().lte(critical)),
        Status::Warning => all.add(end().gt(critical)).add(end().lte(warning)),
        Status::Healthy => all.add(end().gt(warning)),
    }
}

fn held(key: &str, value: &str, backend: DbBackend) -> Expr {
    match backend {
        DbBackend::Sqlite => Expr::cust_with_values(
            "EXISTS (SELECT 1 FROM json_each(asset_version.content, '$.tags') held WHERE held.key = ? AND held.value = ?)",
            [key, value],
        ),
        _ => Expr::cust_with_values("asset_version.content -> 'tags' ->> $1", [key]).eq(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelled_instants_have_the_order_of_the_instants() {
        let instants = [
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:00:00.000001Z",
            "1970-01-01T00:00:00.100Z",
            "1970-01-01T00:00:00.100001Z",
            "1970-01-01T00:00:01Z",
            "9999-12-31T23:59:59.999999Z",
        ];
        let spelled: Vec<String> = instants.iter().map(|at| spelled(at.parse().unwrap())).collect();
        assert!(spelled.is_sorted(), "{spelled:?}");
        assert_eq!(spelled.last().map(String::as_str), Some("9999-12-31T23:59:59.999999"));
    }
}
