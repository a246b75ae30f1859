//! What jobs found out that is no record of its own: whether a subscription works, which accounts there are.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let job = ColumnDef::new("job_id").uuid().not_null().primary_key().take();
        create(manager, "job_report", vec![job, json("content")]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["job_report"]).await
    }
}
