//! What creating requests with an `Idempotency-Key` were answered.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "idempotency", record_columns()).await?;
        run(manager, &["CREATE INDEX idempotency_expiry ON idempotency (expires_at)"]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["idempotency"]).await
    }
}

fn record_columns() -> Vec<ColumnDef> {
    vec![
        // SHA-256 of principal, method, path and key: the parts may be long, and none is ever looked for alone
        text_key("id"),
        text("fingerprint"),
        // the answer; unset only inside the transaction that makes it
        int_null("status"),
        json_null("headers"),
        text_null("body"),
        time("created_at"),
        time("expires_at"),
    ]
}

fn int_null(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).integer().null().take()
}
