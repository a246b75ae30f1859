//! Evidence packages: what was asked for, fixed when it was, and where the whole package lies once it is built.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let number = |name: &'static str| ColumnDef::new(name).big_integer().null().take();
        let columns = vec![
            id(),
            time("created_at"),
            time("period_from"),
            time("as_of"),
            text("requested_by_type"),
            text_null("requested_by_id"),
            text_null("requested_by_name"),
            boolean("restricted", false),
            json("subscriptions"),
            json("request"),
            // in what the same question of the same caller is the same
            text("request_key"),
            json("frozen"),
            text("store"),
            // all of these are set together, once the package is whole
            time_null("built_at"),
            text_null("object_key"),
            number("size"),
            text_null("sha256"),
            text_null("report_key"),
            number("report_size"),
            text_null("report_sha256"),
            text_null("signing_key"),
            json_null("contents"),
        ];
        create(manager, "evidence_package", columns).await?;
        run(manager, INDICES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["evidence_package"]).await
    }
}

const INDICES: &[&str] = &[
    "CREATE INDEX evidence_package_created ON evidence_package (created_at, id)",
    "CREATE INDEX evidence_package_request ON evidence_package (request_key, created_at)",
];
