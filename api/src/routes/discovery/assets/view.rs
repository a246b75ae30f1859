//! What clients see of an asset.

use crate::{
    timestamp::Timestamp,
    wire::{AssetType, ProviderKind, Status},
};
use chrono::{DateTime, Utc};
use keywright_entities::{asset, asset_version};
use keywright_jobs::domain::{
    inventory::{CertificateFacts, Observed, Thresholds},
    settings::Settings,
};
use poem_openapi::{Object, types::Any};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A secret, key, certificate or credential. Metadata only: there is no field for a value.
#[derive(Debug, Object)]
#[oai(rename = "Asset", rename_all = "camelCase")]
pub struct AssetView {
    pub id: Uuid,
    pub subscription: Uuid,
    pub provider: ProviderKind,
    #[oai(rename = "type")]
    pub asset_type: AssetType,
    /// e.g. `aws.secretsmanager.secret`.
    pub kind: String,
    /// The name of the vault that holds it.
    pub vault: String,
    pub region: String,
    pub name: String,
    /// The provider's own identifier.
    pub external_id: String,
    /// How close to its end it is now.
    pub status: Status,
    /// Its region is no longer looked at.
    pub stale: bool,
    pub enabled: Option<bool>,
    pub created_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
    pub last_rotated_at: Option<Timestamp>,
    pub last_accessed_at: Option<Timestamp>,
    pub last_changed_at: Option<Timestamp>,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
    pub removed_at: Option<Timestamp>,
    /// When its details were read last; null where the list tells everything, or they never were.
    pub detailed_at: Option<Timestamp>,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub certificate: Option<Certificate>,
    /// What else the provider says of it.
    pub attributes: Any<Value>,
}

/// The facts of a certificate (RFC 5280).
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct Certificate {
    pub subject: Option<String>,
    pub issuer: Option<String>,
    /// Lower-case hex.
    pub serial: Option<String>,
    pub sans: Vec<String>,
    pub key_algorithm: String,
    pub key_bits: Option<u32>,
    pub signature_algorithm: Option<String>,
    /// Lower-case hex.
    pub fingerprint_sha256: Option<String>,
    pub self_signed: Option<bool>,
    pub is_ca: Option<bool>,
}

impl From<CertificateFacts> for Certificate {
    fn from(facts: CertificateFacts) -> Self {
        Self {
            subject: facts.subject,
            issuer: facts.issuer,
            serial: facts.serial,
            sans: facts.sans,
            key_algorithm: facts.key_algorithm,
            key_bits: facts.key_bits,
            signature_algorithm: facts.signature_algorithm,
            fingerprint_sha256: facts.fingerprint_sha256,
            self_signed: facts.self_signed,
            is_ca: facts.is_ca,
        }
    }
}

impl AssetView {
    pub fn new(row: asset::Model, thresholds: Thresholds, now: DateTime<Utc>) -> Self {
        let certificate = row.certificate.and_then(|facts| serde_json::from_value::<CertificateFacts>(facts).ok());
        Self {
            id: row.id,
            subscription: row.subscription_id,
            provider: row.provider.into(),
            asset_type: row.asset_type.into(),
            kind: row.kind,
            vault: row.vault,
            region: row.region,
            name: row.name,
            external_id: row.external_id,
            status: thresholds.status(row.expires_at, now).into(),
            stale: row.stale,
            enabled: row.enabled,
            created_at: row.created_at.map(Into::into),
            expires_at: row.expires_at.map(Into::into),
            not_before: row.not_before.map(Into::into),
            last_rotated_at: row.last_rotated_at.map(Into::into),
            last_accessed_at: row.last_accessed_at.map(Into::into),
            last_changed_at: row.last_changed_at.map(Into::into),
            first_seen_at: row.first_seen_at.into(),
            last_seen_at: row.last_seen_at.into(),
            removed_at: row.removed_at.map(Into::into),
            detailed_at: row.detailed_at.map(Into::into),
            owner: row.owner,
            environment: row.environment,
            tags: serde_json::from_value(row.tags).unwrap_or_default(),
            certificate: certificate.map(Into::into),
            attributes: Any(row.attributes),
        }
    }
}

/// The asset as it was in one of its versions.
pub fn view_of_version(
    asset: &asset::Model,
    version: &asset_version::Model,
    settings: &Settings,
    now: DateTime<Utc>,
) -> AssetView {
    let mut row = asset.clone();
    if let Ok(seen) = serde_json::from_value::<Observed>(version.content.clone()) {
        row.owner = seen.owner(&settings.tags).map(str::to_owned);
        row.environment = seen.environment(&settings.tags).map(str::to_owned);
        row.asset_type = seen.asset_type;
        row.name = seen.name;
        row.vault = seen.vault;
        row.enabled = seen.enabled;
        row.created_at = seen.created_at;
        row.expires_at = seen.expires_at;
        row.not_before = seen.not_before;
        row.last_rotated_at = seen.last_rotated_at;
        row.last_accessed_at = seen.last_accessed_at;
        row.last_changed_at = seen.last_changed_at;
        row.tags = json!(seen.tags);
        row.certificate = seen.certificate.map(|facts| json!(facts));
        row.attributes = Value::Object(seen.attributes);
    }
    AssetView::new(row, settings.thresholds, now)
}
