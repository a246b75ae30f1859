//! What the lists of assets walk along: an index for every order in which they come, and for the filters that are asked for most with
//! the default order.
//!
//! None holds a column that a scan moves of every asset that it sees again (`last_seen_at`, `last_scan_id`): PostgreSQL then writes a
//! row without a look at any index.

use crate::columns::run;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns) in INDICES {
            run(manager, &[&format!("CREATE INDEX {name} ON asset ({columns}, id) WHERE removed_at IS NULL")]).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDICES {
            run(manager, &[&format!("DROP INDEX {name}")]).await?;
        }
        Ok(())
    }
}

const INDICES: &[(&str, &str)] = &[
    ("asset_created", "created_at"),
    ("asset_rotated", "last_rotated_at"),
    ("asset_changed", "last_changed_at"),
    ("asset_of_seen", "subscription_id, first_seen_at"),
    ("asset_of_name", "subscription_id, name_key"),
    ("asset_of_expires", "subscription_id, expires_at"),
    ("asset_type_seen", "asset_type, first_seen_at"),
    ("asset_type_name", "asset_type, name_key"),
    ("asset_in_seen", "region, first_seen_at"),
    ("asset_vault_seen", "vault, first_seen_at"),
    ("asset_owner_seen", "owner, first_seen_at"),
];
