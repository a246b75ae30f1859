//! Rotation: policies, plans, what is under way, everything that happened, and sealed candidates.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "rotation_policy", policy_columns()).await?;
        create(manager, "rotation_plan", plan_columns()).await?;
        create(manager, "rotation", rotation_columns()).await?;
        create(manager, "rotation_step", step_columns()).await?;
        create(manager, "rotation_secret", secret_columns()).await?;
        create(manager, "rotation_credential", credential_columns()).await?;
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &TABLES).await
    }
}

const TABLES: [&str; 6] =
    ["rotation_credential", "rotation_secret", "rotation_step", "rotation", "rotation_plan", "rotation_policy"];

fn policy_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("name"),
        boolean("enabled", true),
        // how it is done, as the API shows it
        json("content"),
        time("created_at"),
        time("updated_at"),
        bigint("version", 1),
    ]
}

fn plan_columns() -> Vec<ColumnDef> {
    vec![
        id(), // that of the job that made it
        uuid("subscription_id"),
        uuid("asset_id"),
        uuid_null("policy_id"),
        text("plan_hash"),
        text("identity"),
        json("target"),
        json("content"),
        time("created_at"),
        time("expires_at"),
    ]
}

fn rotation_columns() -> Vec<ColumnDef> {
    vec![
        id(), // that of its first job
        uuid("subscription_id"),
        uuid("asset_id"),
        uuid_null("policy_id"),
        uuid_null("plan_id"),
        text_null("plan_hash"),
        text_null("identity"),
        // the identity and the asset while it is open, so that there is one at a time
        text_null("open_identity"),
        uuid_null("open_asset"),
        text("state"),
        json("target"),
        json("record"),
        // the job that drives it now
        uuid("job_id"),
        text("requested_by_type"),
        text_null("requested_by_id"),
        text_null("requested_by_name"),
        time("created_at"),
        time("updated_at"),
        time_null("promoted_at"),
        time_null("ended_at"),
        bigint("version", 1),
    ]
}

fn step_columns() -> Vec<ColumnDef> {
    vec![
        uuid("rotation_id"),
        bigint("number", 0),
        time("at"),
        uuid_null("job_id"),
        bigint("epoch", 0),
        text("what"),
        text("before"),
        text("after"),
        text_null("outcome"),
        json("details"),
    ]
}

fn secret_columns() -> Vec<ColumnDef> {
    let mut rotation = uuid("rotation_id");
    rotation.primary_key();
    vec![rotation, bigint("version", 1), text("key_id"), bytes("sealed"), time("created_at")]
}

fn credential_columns() -> Vec<ColumnDef> {
    vec![text("identity"), text("external_id"), uuid("rotation_id"), time("recorded_at")]
}

const UP: &[&str] = &[
    "CREATE UNIQUE INDEX rotation_policy_name ON rotation_policy (name)",
    "CREATE INDEX rotation_plan_hash ON rotation_plan (plan_hash)",
    "CREATE INDEX rotation_plan_expiry ON rotation_plan (expires_at)",
    "CREATE UNIQUE INDEX rotation_open_identity ON rotation (open_identity) WHERE open_identity IS NOT NULL",
    "CREATE UNIQUE INDEX rotation_open_asset ON rotation (open_asset) WHERE open_asset IS NOT NULL",
    "CREATE INDEX rotation_created ON rotation (created_at, id)",
    "CREATE INDEX rotation_asset ON rotation (asset_id, created_at, id)",
    "CREATE INDEX rotation_subscription ON rotation (subscription_id, created_at, id)",
    "CREATE INDEX rotation_state ON rotation (state, created_at, id)",
    "CREATE INDEX rotation_job ON rotation (job_id)",
    "CREATE INDEX rotation_ended ON rotation (asset_id, ended_at)",
    "CREATE UNIQUE INDEX rotation_step_number ON rotation_step (rotation_id, number)",
    "CREATE UNIQUE INDEX rotation_credential_id ON rotation_credential (identity, external_id)",
];
