//! Finding what has had its time, and keeping the job table small on PostgreSQL.

use crate::columns::*;
use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, INDICES).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            run(manager, POSTGRES).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            run(manager, POSTGRES_DOWN).await?;
        }
        run(manager, DOWN).await
    }
}

const INDICES: &[&str] = &[
    "CREATE INDEX job_ended ON job (kind, completed_at) WHERE completed_at IS NOT NULL",
    "CREATE INDEX session_expiry ON session (expires_at)",
    "CREATE INDEX refresh_token_expiry ON refresh_token (expires_at)",
];

const DOWN: &[&str] = &["DROP INDEX refresh_token_expiry", "DROP INDEX session_expiry", "DROP INDEX job_ended"];

/// Each job's row is written several times in its life: vacuum comes when a hundredth of the rows is dead, not a fifth, and does
/// not pause; progress and versions find room on their own page.
const POSTGRES: &[&str] = &[
    "ALTER TABLE job SET (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, \
     autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)",
];

const POSTGRES_DOWN: &[&str] =
    &["ALTER TABLE job RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, \
     autovacuum_analyze_scale_factor, autovacuum_vacuum_cost_delay)"];
