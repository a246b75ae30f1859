//! The trace in which a job was asked for, and an index of open jobs that are neither due nor held.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("job").add_column(text_null("traceparent")).to_owned()).await?;
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, DOWN).await?;
        manager.alter_table(Table::alter().table("job").drop_column("traceparent").to_owned()).await
    }
}

/// Parents of open parts, and what rests: no job on its way from the line to its end passes through here.
const UP: &[&str] = &[
    "CREATE INDEX job_at_rest ON job (kind, state) WHERE completed_at IS NULL AND due_at IS NULL AND lease_until IS NULL",
];

const DOWN: &[&str] = &["DROP INDEX job_at_rest"];
