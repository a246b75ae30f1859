//! Schedules, and what came of each of their instants.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "schedule", schedule_columns()).await?;
        create(manager, "schedule_run", run_columns()).await?;
        run(manager, INDICES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["schedule_run", "schedule"]).await
    }
}

fn schedule_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("name"),
        text("cron"),
        text("time_zone"),
        text("kind"),
        json("body"),
        text("catch_up"),
        boolean("enabled", true),
        uuid("owner_id"),
        // set exactly while an instant is to come or to be dealt with
        time_null("next_fire_at"),
        time_null("blocked_at"),
        uuid_null("last_run_id"),
        time("created_at"),
        time("updated_at"),
        bigint("version", 1),
    ]
}

fn run_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        uuid("schedule_id"),
        time("due_at"),
        time("fired_at"),
        text("outcome"),
        uuid_null("job_id"),
        text_null("reason_code"),
        text_null("reason_detail"),
    ]
}

const INDICES: &[&str] = &[
    "CREATE INDEX schedule_due ON schedule (next_fire_at, id) WHERE next_fire_at IS NOT NULL",
    "CREATE INDEX schedule_created ON schedule (created_at, id)",
    "CREATE INDEX schedule_name ON schedule (name, id)",
    // an instant is dealt with once, whatever goes wrong above
    "CREATE UNIQUE INDEX schedule_run_instant ON schedule_run (schedule_id, due_at)",
    "CREATE INDEX schedule_run_fired ON schedule_run (fired_at)",
];
