//! How far the line was served, told by those who claim: asking the jobs themselves passes index entries of all that have left the
//! line and that PostgreSQL may not forget while anybody keeps an old snapshot.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let priority = ColumnDef::new("priority").integer().not_null().primary_key().take();
        create(manager, "line_head", vec![priority, bigint("turn", 0)]).await?;
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, DOWN).await?;
        drop(manager, &["line_head"]).await
    }
}

const UP: &[&str] = &[
    "INSERT INTO line_head (priority, turn) SELECT p.priority, COALESCE((SELECT MAX(turn) FROM job \
     WHERE lease_until IS NOT NULL AND job.priority = p.priority), 0) \
     FROM (SELECT 1 AS priority UNION ALL SELECT 0 UNION ALL SELECT -1) AS p",
    "DROP INDEX job_aside_turn",
    "DROP INDEX job_running",
    "CREATE INDEX job_held ON job (worker_id) WHERE lease_until IS NOT NULL",
];

const DOWN: &[&str] = &[
    "DROP INDEX job_held",
    "CREATE INDEX job_running ON job (priority, turn) WHERE lease_until IS NOT NULL",
    "CREATE INDEX job_aside_turn ON job (priority, turn) WHERE over_limit IS NOT NULL",
];
