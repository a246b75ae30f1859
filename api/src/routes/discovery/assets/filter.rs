//! Which assets a list asks for, as one condition on both databases.

use crate::{
    error::ApiError,
    wire::{AssetType, ProviderKind, Status},
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, scope::Scope, types};
use keywright_jobs::domain::inventory::Thresholds;
use poem_openapi::Enum;
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, Select,
    sea_query::{Expr, ExprTrait, LikeExpr},
};
use uuid::Uuid;

/// Whether removed assets are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Enum)]
pub enum Removed {
    /// Only what is there.
    #[default]
    #[oai(rename = "false")]
    Without,
    /// Only what is gone.
    #[oai(rename = "true")]
    Only,
    /// Both.
    #[oai(rename = "any")]
    Any,
}

/// What a list is narrowed by; a list within a field is "one of these", and fields narrow each other.
#[derive(Clone, Debug, Default)]
pub struct AssetFilter {
    pub asset_types: Vec<AssetType>,
    pub statuses: Vec<Status>,
    pub vaults: Vec<String>,
    pub subscriptions: Vec<Uuid>,
    pub providers: Vec<ProviderKind>,
    pub regions: Vec<String>,
    pub expires_before: Option<DateTime<Utc>>,
    pub expires_after: Option<DateTime<Utc>>,
    pub owners: Vec<String>,
    /// Each as `KEY:VALUE`; all of them must be there.
    pub tags: Vec<String>,
    pub word: Option<String>,
    /// In lower case.
    pub fingerprints: Vec<String>,
    pub removed: Removed,
    pub seen_by: Option<Uuid>,
}

/// Each colon of a tag is one more place to look at.
const MOST_COLONS: usize = 16;

/// What parts a name into words, beside its beginning.
const SEPARATORS: &[&str] = &[" ", "/", "-", "_", ".", ":"];

impl AssetFilter {
    /// # Errors
    /// 400 for a tag without a colon.
    pub fn select(
        self,
        visible: &Scope,
        backend: DbBackend,
        thresholds: Thresholds,
        now: DateTime<Utc>,
    ) -> Result<Select<asset::Entity>, ApiError> {
        let mut all = Condition::all().add(visible.on(asset::Column::SubscriptionId));
        all = match self.removed {
            Removed::Without => all.add(asset::Column::RemovedAt.is_null()),
            Removed::Only => all.add(asset::Column::RemovedAt.is_not_null()),
            Removed::Any => all,
        };
        if !self.asset_types.is_empty() {
            all = all.add(asset::Column::AssetType.is_in(self.asset_types.into_iter().map(types::AssetType::from)));
        }
        if !self.providers.is_empty() {
            all = all.add(asset::Column::Provider.is_in(self.providers.into_iter().map(types::ProviderKind::from)));
        }
        for (column, texts) in [
            (asset::Column::Vault, self.vaults),
            (asset::Column::Region, self.regions),
            (asset::Column::Owner, self.owners),
            (asset::Column::Fingerprint, self.fingerprints),
        ] {
            if !texts.is_empty() {
                all = all.add(column.is_in(texts));
            }
        }
        if !self.subscriptions.is_empty() {
            all = all.add(asset::Column::SubscriptionId.is_in(self.subscriptions));
        }
        if !self.statuses.is_empty() {
            let any =
                self.statuses.into_iter().fold(Condition::any(), |any, one| any.add(stands(one, thresholds, now)));
            all = all.add(any);
        }
        if let Some(before) = self.expires_before {
            all = all.add(asset::Column::ExpiresAt.lt(before));
        }
        if let Some(after) = self.expires_after {
            all = all.add(asset::Column::ExpiresAt.gt(after));
        }
        if let Some(scan) = self.seen_by {
            all = all.add(asset::Column::LastScanId.eq(scan));
        }
        for tag in &self.tags {
            all = all.add(tagged(tag, |key, value| holds(key, value, backend))?);
        }
        if let Some(word) = self.word {
            all = all.add(has_word(&word));
        }
        Ok(asset::Entity::find().filter(all))
    }
}

/// The same bounds as [`Thresholds::status`].
fn stands(status: Status, thresholds: Thresholds, now: DateTime<Utc>) -> Condition {
    let end = asset::Column::ExpiresAt;
    let (critical, warning) = thresholds.bounds(now);
    let all = Condition::all();
    match status {
        Status::Unknown => all.add(end.is_null()),
        Status::Expired => all.add(end.lte(now)),
        Status::Critical => all.add(end.gt(now)).add(end.lte(critical)),
        Status::Warning => all.add(end.gt(critical)).add(end.lte(warning)),
        Status::Healthy => all.add(end.gt(warning)),
    }
}

/// `KEY:VALUE`. Keys contain colons themselves (`aws:cloudformation:stack-name`), so any of the colons may end the key.
/// `holds` says that the tag of a key has a value.
pub fn tagged(tag: &str, holds: impl Fn(&str, &str) -> Expr) -> Result<Condition, ApiError> {
    let splits: Vec<(&str, &str)> =
        tag.match_indices(':').filter_map(|(at, _)| Some((tag.get(..at)?, tag.get(at + 1..)?))).collect();
    if splits.is_empty() {
        return Err(ApiError::invalid("/query/tag", "format", "A tag is KEY:VALUE."));
    }
    if splits.len() > MOST_COLONS {
        return Err(ApiError::invalid("/query/tag", "too_long", "A tag has at most 16 colons."));
    }
    Ok(splits.into_iter().fold(Condition::any(), |any, (key, value)| any.add(holds(key, value))))
}

fn holds(key: &str, value: &str, backend: DbBackend) -> Expr {
    match backend {
        // a path of JSON has no spelling for every key
        DbBackend::Sqlite => Expr::cust_with_values(
            "EXISTS (SELECT 1 FROM json_each(asset.tags) held WHERE held.key = ? AND held.value = ?)",
            [key, value],
        ),
        _ => Expr::cust_with_values("asset.tags ->> $1", [key]).eq(value),
    }
}

/// A word of the name begins like this, in any case.
fn has_word(word: &str) -> Condition {
    let word = word.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let like = |pattern: String| asset::Column::NameKey.like(LikeExpr::new(pattern).escape('\\'));
    let first = Condition::any().add(like(format!("{word}%")));
    SEPARATORS.iter().fold(first, |any, separator| {
        let separator = separator.replace('_', "\\_");
        any.add(like(format!("%{separator}{word}%")))
    })
}
