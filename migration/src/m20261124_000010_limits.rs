//! Jobs that stand aside because their kind or their subscription runs as many as it may.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("job").add_column(text_null("over_limit")).to_owned()).await?;
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, DOWN).await?;
        manager.alter_table(Table::alter().table("job").drop_column("over_limit").to_owned()).await
    }
}

/// The line's index leaves out those that stand aside, and no job that never does passes through the new ones. The index of
/// subscriptions keeps both: a job's place is after all of its subscription.
const UP: &[&str] = &[
    "DROP INDEX job_line",
    "CREATE INDEX job_line ON job (priority DESC, turn, due_at, id) \
     WHERE due_at IS NOT NULL AND turn IS NOT NULL AND over_limit IS NULL",
    "CREATE INDEX job_aside ON job (over_limit, priority DESC, turn, due_at, id) WHERE over_limit IS NOT NULL",
    "CREATE INDEX job_aside_turn ON job (priority, turn) WHERE over_limit IS NOT NULL",
];

const DOWN: &[&str] = &[
    "UPDATE job SET state = CASE WHEN worker_label IS NULL THEN 'queued' ELSE 'waiting' END, \
     waiting_for = CASE WHEN worker_label IS NULL THEN NULL ELSE 'worker' END WHERE over_limit IS NOT NULL",
    "DROP INDEX job_aside_turn",
    "DROP INDEX job_aside",
    "DROP INDEX job_line",
    "CREATE INDEX job_line ON job (priority DESC, turn, due_at, id) WHERE due_at IS NOT NULL AND turn IS NOT NULL",
];
