//! What became of one asset: its versions, each with what it changed.

use super::view::view_of_version;
use crate::{
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::Change,
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_version, types};
use keywright_jobs::{domain::settings::Settings, setup::database::Database};
use poem_openapi::{
    Object,
    types::{Any, ToJSON},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// A time in which nothing of an asset changed.
#[derive(Debug, Object)]
#[oai(rename = "AssetVersion", rename_all = "camelCase")]
pub struct VersionView {
    /// From 1 on, without gaps.
    pub version: i64,
    /// What began it: `created` also when the asset came back after it had been removed.
    pub change: Change,
    pub valid_from: Timestamp,
    /// Null on the version that holds now.
    pub valid_to: Option<Timestamp>,
    /// The scan that found it out; null where the removal of its subscription removed the asset.
    pub scan: Option<Uuid>,
    /// What differs from the version before. Empty for the first one and for `removed`.
    pub changes: Vec<FieldChange>,
}

/// One value that changed.
#[derive(Debug, PartialEq, Object)]
pub struct FieldChange {
    /// Where in the asset, as a JSON pointer (RFC 6901): `/expiresAt`, `/tags/owner`; also `/relations`.
    pub pointer: String,
    /// Null when there was none.
    pub before: Any<Value>,
    /// Null when there is none any more.
    pub after: Any<Value>,
}

static VERSIONS: Sorting<asset_version::Model> = Sorting {
    keys: &[SortKey {
        name: "version",
        column: || asset_version::Column::Version.into_expr(),
        nullable: false,
        read: |row| row.version.into(),
    }],
    default: "-version",
    unique: SortKey {
        name: "id",
        column: || asset_version::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

/// Members of an asset that tell which it is, or that move without any change of it.
const NO_CHANGE: [&str; 12] = [
    "id",
    "subscription",
    "provider",
    "kind",
    "region",
    "externalId",
    "status",
    "stale",
    "firstSeenAt",
    "lastSeenAt",
    "removedAt",
    "detailedAt",
];

pub async fn page(
    database: &Database,
    list: ListParams,
    asset: &asset::Model,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Page<VersionView>, ApiError> {
    let of_asset = || asset_version::Entity::find().filter(asset_version::Column::AssetId.eq(asset.id));
    let slice = list.fetch(of_asset(), &VERSIONS, database.reader()).await?;
    let described = |version: &asset_version::Model| metadata(asset, version, settings, now);
    let mut by_number: HashMap<i64, Value> = slice.rows.iter().map(|row| (row.version, described(row))).collect();
    let before_page = slice.rows.last().map(|oldest| oldest.version - 1);
    let before_page = of_asset().filter(asset_version::Column::Version.eq(before_page.unwrap_or_default()));
    if let Some(row) = before_page.one(database.reader()).await? {
        by_number.insert(row.version, described(&row));
    }
    Ok(slice.into_page(|row| {
        let both = by_number.get(&(row.version - 1)).zip(by_number.get(&row.version));
        let both = both.filter(|_| row.change != types::Change::Removed);
        VersionView {
            version: row.version,
            change: row.change.into(),
            valid_from: row.valid_from.into(),
            valid_to: row.valid_to.map(Into::into),
            scan: row.scan_id,
            changes: both.map(|(before, after)| differences(before, after)).unwrap_or_default(),
        }
    }))
}

/// What the version says of the asset, by the names that clients know.
fn metadata(asset: &asset::Model, version: &asset_version::Model, settings: &Settings, now: DateTime<Utc>) -> Value {
    let mut described = view_of_version(asset, version, settings, now).to_json().unwrap_or_default();
    if let Some(members) = described.as_object_mut() {
        members.retain(|name, _| !NO_CHANGE.contains(&name.as_str()));
        members.insert("relations".to_owned(), version.content.get("relations").cloned().unwrap_or_else(|| json!([])));
    }
    described
}

/// Objects are compared member by member, all else as a whole.
fn differences(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

fn compare(pointer: &str, before: &Value, after: &Value, found: &mut Vec<FieldChange>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let step = name.replace('~', "~0").replace('/', "~1");
                let of = |members: &serde_json::Map<String, Value>| members.get(name).cloned().unwrap_or_default();
                compare(&format!("{pointer}/{step}"), &of(old), &of(new), found);
            }
        }
        _ => found.push(FieldChange {
            pointer: pointer.to_owned(),
            before: Any(before.clone()),
            after: Any(after.clone()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_differ_by_member_and_pointers_are_escaped() {
        let before = json!({"same": 1, "list": [1], "tags": {"a/b": "1", "c~d": "2", "gone": "3"}, "facts": null});
        let after =
            json!({"same": 1, "list": [1, 2], "tags": {"a/b": "x", "c~d": "y", "new": null}, "facts": {"k": 1}});
        let found = differences(&before, &after);
        let found: Vec<_> =
            found.iter().map(|one| (one.pointer.as_str(), one.before.0.clone(), one.after.0.clone())).collect();
        assert_eq!(
            found,
            [
                ("/facts", json!(null), json!({"k": 1})),
                ("/list", json!([1]), json!([1, 2])),
                ("/tags/a~1b", json!("1"), json!("x")),
                ("/tags/c~0d", json!("2"), json!("y")),
                ("/tags/gone", json!("3"), json!(null)),
            ]
        );
        assert_eq!(differences(&before, &before), []);
    }
}
