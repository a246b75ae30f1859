//! Schema of the Keywright database: one code for SQLite and PostgreSQL, up and down.
//!
//! A migration that has shipped is never edited; a change is a new file with a later timestamp, added to the list below.

pub use sea_orm_migration::prelude::*;

mod columns;
mod m20261124_000001_jobs;
mod m20261124_000002_inventory;
mod m20261124_000003_identity;
mod m20261124_000004_line;
mod m20261124_000006_schedules;
mod m20261124_000007_retention;
mod m20261124_000008_job_events;
mod m20261124_000009_observe;
mod m20261124_000010_limits;
mod m20261124_000010_planned;
mod m20261124_000011_access;
mod m20261124_000012_rate_limits;
mod m20261124_000013_idempotency;
mod m20261124_000014_settings;
mod m20261124_000015_sealing;
mod m20261124_000016_line_head;
mod m20261124_000017_single_sign_on;
mod m20261124_000018_details;
mod m20261124_000020_call_budgets;
mod m20261124_000021_beside;
mod m20261124_000022_audit_log;
mod m20261124_000023_evidence;
mod m20261124_000024_job_reports;
mod m20261124_000025_orders;
mod m20261124_000026_rotation;

pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_jobs::Migration),
            Box::new(m20261124_000002_inventory::Migration),
            Box::new(m20261124_000003_identity::Migration),
            Box::new(m20261124_000004_line::Migration),
            Box::new(m20261124_000006_schedules::Migration),
            Box::new(m20261124_000007_retention::Migration),
            Box::new(m20261124_000008_job_events::Migration),
            Box::new(m20261124_000009_observe::Migration),
            Box::new(m20261124_000010_limits::Migration),
            Box::new(m20261124_000010_planned::Migration),
            Box::new(m20261124_000011_access::Migration),
            Box::new(m20261124_000012_rate_limits::Migration),
            Box::new(m20261124_000013_idempotency::Migration),
            Box::new(m20261124_000014_settings::Migration),
            Box::new(m20261124_000015_sealing::Migration),
            Box::new(m20261124_000016_line_head::Migration),
            Box::new(m20261124_000017_single_sign_on::Migration),
            Box::new(m20261124_000018_details::Migration),
            Box::new(m20261124_000020_call_budgets::Migration),
            Box::new(m20261124_000021_beside::Migration),
            Box::new(m20261124_000022_audit_log::Migration),
            Box::new(m20261124_000023_evidence::Migration),
            Box::new(m20261124_000024_job_reports::Migration),
            Box::new(m20261124_000025_orders::Migration),
            Box::new(m20261124_000026_rotation::Migration),
        ]
    }
}
