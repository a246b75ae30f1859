//! The line of jobs that may be claimed: places that let subscriptions take turns, jobs that are due later beside it, and pauses.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for mut column in columns() {
            manager.alter_table(Table::alter().table("job").add_column(&mut column).to_owned()).await?;
        }
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, DOWN).await?;
        for column in ["resume_at", "paused_at", "turn"] {
            manager.alter_table(Table::alter().table("job").drop_column(column).to_owned()).await?;
        }
        Ok(())
    }
}

fn columns() -> Vec<ColumnDef> {
    vec![
        // the job's place in the line of its priority: set when it becomes due, and kept while it runs
        ColumnDef::new("turn").big_integer().null().take(),
        // set while somebody wants the job to rest
        time_null("paused_at"),
        // when a job that rests would have been due
        time_null("resume_at"),
    ]
}

const UP: &[&str] = &[
    "UPDATE job SET turn = 0 WHERE due_at IS NOT NULL OR lease_until IS NOT NULL",
    "DROP INDEX job_due",
    "DROP INDEX job_lease",
    "CREATE INDEX job_line ON job (priority DESC, turn, due_at, id) WHERE due_at IS NOT NULL AND turn IS NOT NULL",
    "CREATE INDEX job_line_subscription ON job (priority, subscription_id, turn) WHERE due_at IS NOT NULL AND turn IS NOT NULL",
    "CREATE INDEX job_later ON job (due_at) WHERE due_at IS NOT NULL AND turn IS NULL",
    "CREATE INDEX job_running ON job (priority, turn) WHERE lease_until IS NOT NULL",
];

const DOWN: &[&str] = &[
    "UPDATE job SET state = 'queued', waiting_for = NULL, due_at = resume_at \
     WHERE paused_at IS NOT NULL AND resume_at IS NOT NULL AND completed_at IS NULL AND lease_until IS NULL",
    "DROP INDEX job_running",
    "DROP INDEX job_later",
    "DROP INDEX job_line_subscription",
    "DROP INDEX job_line",
    "CREATE INDEX job_due ON job (priority DESC, due_at, id) WHERE due_at IS NOT NULL",
    "CREATE INDEX job_lease ON job (lease_until) WHERE lease_until IS NOT NULL",
];
