//! Subscriptions, scans and what they found. Assets are versioned from the start: `asset` is now, `asset_version` is ever.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "subscription", subscription_columns()).await?;
        create(manager, "scan", vec![id(), text("mode"), json("subscriptions"), time("created_at")]).await?;
        create(
            manager,
            "scan_warning",
            vec![id(), uuid("scan_id"), uuid("job_id"), text("path"), text("code"), text("detail")],
        )
        .await?;
        create(
            manager,
            "vault",
            vec![id(), uuid("subscription_id"), text("provider"), text("region"), text("name"), time("created_at")],
        )
        .await?;
        create(manager, "asset", asset_columns()).await?;
        create(manager, "asset_version", asset_version_columns()).await?;
        run(manager, INDICES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["asset_version", "asset", "vault", "scan_warning", "scan", "subscription"]).await
    }
}

fn subscription_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("provider"),
        text("external_id"),
        text("name"),
        boolean("enabled", true),
        json("regions"),
        json("tags"),
        json("settings"),
        text("auth_mode"),
        time("auth_updated_at"),
        time("created_at"),
        time("updated_at"),
        time_null("deleted_at"),
        time_null("last_scan_at"),
        text_null("last_scan_state"),
        bigint("version", 1),
    ]
}

fn asset_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        uuid("subscription_id"),
        text("provider"),
        text("asset_type"),
        text("kind"),
        uuid("vault_id"),
        text("vault"),
        text("region"),
        text("name"),
        // lower case, for the sort and the prefix search
        text("name_key"),
        text("external_id"),
        boolean_null("enabled"),
        time_null("created_at"),
        time_null("expires_at"),
        time_null("not_before"),
        time_null("last_rotated_at"),
        time_null("last_accessed_at"),
        time_null("last_changed_at"),
        time("first_seen_at"),
        time("last_seen_at"),
        time_null("removed_at"),
        boolean("stale", false),
        text_null("owner"),
        text_null("environment"),
        json("tags"),
        json_null("certificate"),
        json("attributes"),
        text("content_hash"),
        bigint("version", 1),
        uuid("last_scan_id"),
    ]
}

fn asset_version_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        uuid("asset_id"),
        bigint("version", 1),
        uuid("subscription_id"),
        text("region"),
        text("kind"),
        // no scan where the deletion of a subscription removed the asset
        uuid_null("scan_id"),
        uuid_null("job_id"),
        text("change"),
        time("valid_from"),
        // unset on the version that is valid now
        time_null("valid_to"),
        json("content"),
    ]
}

const INDICES: &[&str] = &[
    "CREATE UNIQUE INDEX subscription_identity ON subscription (provider, external_id) WHERE deleted_at IS NULL",
    "CREATE INDEX subscription_created ON subscription (created_at, id)",
    "CREATE INDEX scan_created ON scan (created_at DESC, id DESC)",
    "CREATE INDEX scan_warning_scan ON scan_warning (scan_id, id)",
    "CREATE INDEX scan_warning_job ON scan_warning (job_id)",
    "CREATE UNIQUE INDEX vault_identity ON vault (subscription_id, region, name)",
    "CREATE INDEX vault_name ON vault (name, id)",
    "CREATE UNIQUE INDEX asset_identity ON asset (subscription_id, region, kind, external_id)",
    "CREATE INDEX asset_first_seen ON asset (first_seen_at, id) WHERE removed_at IS NULL",
    "CREATE INDEX asset_name ON asset (name_key, id) WHERE removed_at IS NULL",
    "CREATE INDEX asset_expires ON asset (expires_at, id) WHERE removed_at IS NULL",
    "CREATE INDEX asset_type ON asset (asset_type, expires_at, id) WHERE removed_at IS NULL",
    "CREATE INDEX asset_vault ON asset (vault_id, id)",
    "CREATE INDEX asset_vault_name ON asset (vault, id) WHERE removed_at IS NULL",
    "CREATE INDEX asset_owner ON asset (owner, id) WHERE removed_at IS NULL AND owner IS NOT NULL",
    "CREATE INDEX asset_removed ON asset (removed_at, id) WHERE removed_at IS NOT NULL",
    "CREATE UNIQUE INDEX asset_version_number ON asset_version (asset_id, version)",
    "CREATE INDEX asset_version_scan ON asset_version (scan_id, id)",
    "CREATE INDEX asset_version_place ON asset_version (subscription_id, region, kind, id)",
    "CREATE INDEX asset_version_time ON asset_version (valid_from, asset_id)",
];
