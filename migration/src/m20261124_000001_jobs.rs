//! The job table (delivery and status in one row), the workers, and the outbox of audit events.

use crate::columns::*;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "job", job_columns()).await?;
        create(manager, "worker", worker_columns()).await?;
        create(manager, "audit_outbox", audit_columns()).await?;
        run(manager, INDICES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop(manager, &["audit_outbox", "worker", "job"]).await
    }
}

fn job_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("kind"),
        int("payload_version", 1),
        json("payload"),
        json("request"),
        text("state"),
        text_null("waiting_for"),
        int("priority", 0),
        time("created_at"),
        time("run_at"),
        // set exactly while the job may be claimed
        time_null("due_at"),
        time_null("started_at"),
        time_null("heartbeat_at"),
        time_null("completed_at"),
        time_null("deadline_at"),
        // rises with every claim, rescue and give-back, and never restarts: the fence of every write of an attempt
        bigint("epoch", 0),
        // set exactly while an attempt holds the job
        time_null("lease_until"),
        uuid_null("worker_id"),
        int("attempt", 0),
        int("max_attempts", 5),
        // from the first start to the last end, retries included
        int("timeout_seconds", 3600),
        int("rescues", 0),
        text_null("unique_key"),
        text_null("lock_key"),
        text_null("worker_label"),
        uuid_null("subscription_id"),
        uuid_null("parent_id"),
        uuid_null("retry_of"),
        text_null("scope_region"),
        text_null("scope_kind"),
        json_null("checkpoint"),
        json_null("progress"),
        json_null("counts"),
        int("children_total", 0),
        int("children_open", 0),
        int("children_succeeded", 0),
        int("children_failed", 0),
        int("children_denied", 0),
        int("children_canceled", 0),
        text_null("error_code"),
        text_null("error_detail"),
        text_null("error_permission"),
        text_null("result_type"),
        text_null("result_href"),
        text("requested_by_type"),
        text_null("requested_by_id"),
        text_null("requested_by_name"),
        text("trigger"),
        text_null("request_id"),
        bigint("version", 1),
    ]
}

fn worker_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        text("name"),
        text("version"),
        json("labels"),
        json("identity"),
        int("concurrency", 1),
        time("started_at"),
        time("last_seen_at"),
        time_null("last_claim_at"),
    ]
}

fn audit_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        // given later by the sequencer; unsequenced rows are found by its absence, never by their id
        ColumnDef::new("seq").big_integer().null().take(),
        time("at"),
        text("type"),
        text("actor_type"),
        text_null("actor_id"),
        text_null("actor_name"),
        text("subject_type"),
        text_null("subject_id"),
        text("outcome"),
        text_null("request_id"),
        uuid_null("job_id"),
        json("details"),
    ]
}

const INDICES: &[&str] = &[
    "CREATE INDEX job_due ON job (priority DESC, due_at, id) WHERE due_at IS NOT NULL",
    "CREATE INDEX job_lease ON job (lease_until) WHERE lease_until IS NOT NULL",
    "CREATE INDEX job_late ON job (deadline_at) WHERE due_at IS NOT NULL AND deadline_at IS NOT NULL",
    "CREATE UNIQUE INDEX job_unique ON job (kind, unique_key) WHERE unique_key IS NOT NULL AND completed_at IS NULL",
    "CREATE UNIQUE INDEX job_lock ON job (lock_key) WHERE lock_key IS NOT NULL AND lease_until IS NOT NULL",
    "CREATE INDEX job_parent ON job (parent_id, created_at, id) WHERE parent_id IS NOT NULL",
    "CREATE INDEX job_recent ON job (created_at DESC, id DESC) WHERE parent_id IS NULL",
    "CREATE INDEX job_recent_kind ON job (kind, created_at DESC, id DESC) WHERE parent_id IS NULL",
    "CREATE INDEX job_recent_state ON job (state, created_at DESC, id DESC) WHERE parent_id IS NULL",
    "CREATE INDEX job_open_subscription ON job (subscription_id) WHERE completed_at IS NULL AND subscription_id IS NOT NULL",
    "CREATE INDEX worker_seen ON worker (last_seen_at)",
    "CREATE UNIQUE INDEX audit_outbox_seq ON audit_outbox (seq) WHERE seq IS NOT NULL",
    "CREATE INDEX audit_outbox_unsequenced ON audit_outbox (id) WHERE seq IS NULL",
    "CREATE INDEX audit_outbox_job ON audit_outbox (job_id) WHERE job_id IS NOT NULL",
];
