//! What was drawn of each principal's rate limits.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = vec![text_key("bucket"), time("ends_at"), bigint("drawn", 0), bigint("granted", 0)];
        create(manager, "rate_limit", columns).await?;
        run(manager, &["CREATE INDEX rate_limit_end ON rate_limit (ends_at)"]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["rate_limit"]).await
    }
}
