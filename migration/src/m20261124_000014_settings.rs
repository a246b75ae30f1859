//! Settings, what the licence has seen and counted, and what waits for somebody else's approval.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "settings", settings_columns()).await?;
        create(manager, "licence_seen", vec![text_key("id"), time("highest_at")]).await?;
        create(manager, "licence_use", vec![text_key("id"), bigint("used", 0)]).await?;
        create(manager, "approval", approval_columns()).await?;
        manager.alter_table(Table::alter().table("job").add_column(uuid_null("approval_id")).to_owned()).await?;
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("job").drop_column("approval_id").to_owned()).await?;
        drop(manager, &["approval", "licence_use", "licence_seen", "settings"]).await
    }
}

fn settings_columns() -> Vec<ColumnDef> {
    vec![
        text_key("id"),
        // only what differs from the defaults, which may change with the program
        json("content"),
        time_null("updated_at"),
        bigint("version", 1),
    ]
}

fn approval_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("action"),
        text("subject_type"),
        text_null("subject_id"),
        text("plan_hash"),
        json("plan"),
        uuid_null("subscription_id"),
        uuid_null("job_id"),
        text("state"),
        text("requested_by_type"),
        text_null("requested_by_id"),
        text_null("requested_by_name"),
        // the person behind a token or a schedule: who may not decide
        uuid_null("requested_by_user"),
        text_null("request_id"),
        time("created_at"),
        time("expires_at"),
        time_null("decided_at"),
        text_null("decided_by_type"),
        text_null("decided_by_id"),
        text_null("decided_by_name"),
        text_null("comment"),
        bigint("version", 1),
    ]
}

const UP: &[&str] = &[
    // there is one row, and it is always there to be locked
    "INSERT INTO settings (id, content, version) VALUES ('settings', '{}', 1)",
    "CREATE INDEX approval_created ON approval (created_at, id)",
    "CREATE INDEX approval_expiry ON approval (expires_at) WHERE state = 'pending'",
    "CREATE INDEX approval_plan ON approval (plan_hash) WHERE state = 'pending'",
    "CREATE UNIQUE INDEX approval_job ON approval (job_id) WHERE job_id IS NOT NULL",
];
