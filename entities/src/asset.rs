//! Assets as they are now. What they were is in `asset_version`.

use crate::types::{AssetType, ProviderKind};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "asset")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub subscription_id: Uuid,
    pub provider: ProviderKind,
    pub asset_type: AssetType,
    pub kind: String,
    pub vault_id: Uuid,
    pub vault: String,
    pub region: String,
    pub name: String,
    /// The name in lower case, for sorting and prefix search.
    pub name_key: String,
    pub external_id: String,
    pub enabled: Option<bool>,
    pub created_at: Option<DateTimeUtc>,
    pub expires_at: Option<DateTimeUtc>,
    pub not_before: Option<DateTimeUtc>,
    pub last_rotated_at: Option<DateTimeUtc>,
    pub last_accessed_at: Option<DateTimeUtc>,
    pub last_changed_at: Option<DateTimeUtc>,
    pub first_seen_at: DateTimeUtc,
    pub last_seen_at: DateTimeUtc,
    pub removed_at: Option<DateTimeUtc>,
    /// Its region is no longer looked at.
    pub stale: bool,
    pub owner: Option<String>,
    pub environment: Option<String>,
    pub tags: Json,
    pub certificate: Option<Json>,
    pub attributes: Json,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint: Option<String>,
    /// SHA-256 over what the provider says, to tell changed from unchanged.
    pub content_hash: String,
    /// The number of the version that is valid now.
    pub version: i64,
    /// The scan that saw it last.
    pub last_scan_id: Uuid,
    /// SHA-256 over the list entry alone, where the kind has details: while it stays, so do they.
    pub listed_hash: Option<String>,
    /// What its details make of the list entry, as a merge patch (RFC 7396) of the content.
    pub details: Option<Json>,
    /// When its details were read last, all of them.
    pub detailed_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
