//! An observation as rows: the asset as it is now, and the version of it.

use super::{
    Place,
    prepared::{Entry, identifying, sortable},
};
use crate::domain::inventory::Observed;
use crate::setup::ids;
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_version, types::Change};
use sea_orm::ActiveValue::Set;
use serde_json::{Value as Json, json};
use uuid::Uuid;

#[allow(clippy::too_many_arguments, reason = "one value per column that the observation does not carry")]
pub(super) fn row(
    place: &Place,
    id: Uuid,
    vault: Uuid,
    entry: &Entry,
    first_seen_at: DateTime<Utc>,
    now: DateTime<Utc>,
    version: i64,
    detailed_at: Option<DateTime<Utc>>,
) -> asset::ActiveModel {
    let observed = &entry.observed;
    let (owner, environment) = whose(place, observed);
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
        name_key: Set(sortable(&observed.name.to_lowercase()).to_owned()),
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
        owner: Set(owner),
        environment: Set(environment),
        tags: Set(json!(observed.tags)),
        certificate: Set(observed.certificate.as_ref().map(|facts| json!(facts))),
        attributes: Set(Json::Object(observed.attributes.clone())),
        fingerprint: Set(fingerprint(observed)),
        content_hash: Set(entry.hash.clone()),
        version: Set(version),
        last_scan_id: Set(place.scan),
        listed_hash: Set(entry.listed.as_ref().and_then(|listed| listed.hash.clone())),
        details: Set(entry.listed.as_ref().and_then(|listed| listed.details.clone())),
        detailed_at: Set(detailed_at),
    }
}

fn fingerprint(observed: &Observed) -> Option<String> {
    let facts = observed.certificate.as_ref()?;
    facts.fingerprint_sha256.as_deref().map(|hex| identifying(&hex.to_lowercase()).into_owned())
}

/// The asset's owner and environment, by the tags that tell them now.
pub(super) fn whose(place: &Place, observed: &Observed) -> (Option<String>, Option<String>) {
    let owner = observed.owner(&place.tags).map(|owner| identifying(owner).into_owned());
    (owner, observed.environment(&place.tags).map(str::to_owned))
}

pub(super) fn version_row(
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
