//! Which subscriptions an open job is about before it has parts that name them in their rows.

use crate::columns::*;
use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "job_subscription", vec![uuid("job_id"), uuid("subscription_id")]).await?;
        run(manager, INDICES).await?;
        run(manager, if manager.get_database_backend() == DbBackend::Postgres { POSTGRES } else { SQLITE }).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["job_subscription"]).await
    }
}

const INDICES: &[&str] = &[
    "CREATE UNIQUE INDEX job_subscription_job ON job_subscription (job_id, subscription_id)",
    "CREATE INDEX job_subscription_subscription ON job_subscription (subscription_id)",
];

const POSTGRES: &[&str] = &["INSERT INTO job_subscription (job_id, subscription_id) \
    SELECT DISTINCT id, jsonb_array_elements_text(payload -> 'subscriptions')::uuid FROM job \
    WHERE kind = 'discovery.scan' AND completed_at IS NULL"];

const SQLITE: &[&str] = &["INSERT INTO job_subscription (job_id, subscription_id) \
    SELECT DISTINCT job.id, unhex(named.value, '-') FROM job, json_each(job.payload, '$.subscriptions') AS named \
    WHERE job.kind = 'discovery.scan' AND job.completed_at IS NULL"];
