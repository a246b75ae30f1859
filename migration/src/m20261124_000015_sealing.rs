//! Stored credentials of subscriptions, and key-encryption keys that a key management service has wrapped.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "subscription_credential", credential_columns()).await?;
        create(
            manager,
            "wrapped_key",
            // not `key_id`: that column tells what a row is sealed under
            vec![text_key("kms"), text("kek_id"), bytes("wrapped"), time("created_at")],
        )
        .await?;
        run(manager, &["CREATE INDEX subscription_credential_key ON subscription_credential (key_id, subscription_id)"])
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["wrapped_key", "subscription_credential"]).await
    }
}

fn credential_columns() -> Vec<ColumnDef> {
    vec![
        ColumnDef::new("subscription_id").uuid().not_null().primary_key().take(),
        bigint("version", 1),
        text("key_id"),
        bytes("sealed"),
        time("stored_at"),
    ]
}
