//! The audit log: its tree, its checkpoints, the names of those who act, and that nothing of it is changed afterwards.

use crate::columns::*;
use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create(manager, "audit_log", log_columns()).await?;
        create(manager, "audit_checkpoint", checkpoint_columns()).await?;
        create(manager, "audit_name", name_columns()).await?;
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        let (bytes, random) = match postgres {
            true => ("bytea", "replace(gen_random_uuid()::text, '-', '')"),
            false => ("blob", "lower(hex(randomblob(16)))"),
        };
        let tile = format!(
            "CREATE TABLE audit_tile (level integer NOT NULL, idx bigint NOT NULL, hashes {bytes} NOT NULL, PRIMARY KEY (level, idx))"
        );
        let log = format!("INSERT INTO audit_log (id, origin) VALUES ('log', 'keywright/' || {random})");
        run(manager, &[tile.as_str(), log.as_str()]).await?;
        run(manager, COLUMNS).await?;
        run(manager, if postgres { POSTGRES } else { SQLITE }).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = manager.get_database_backend() == DbBackend::Postgres;
        run(manager, if postgres { POSTGRES_DOWN } else { SQLITE_DOWN }).await?;
        run(manager, COLUMNS_DOWN).await?;
        drop(manager, &["audit_tile", "audit_name", "audit_checkpoint", "audit_log"]).await
    }
}

/// One row: the log itself.
fn log_columns() -> Vec<ColumnDef> {
    vec![
        text_key("id"),
        // the log's name, which no other log has
        text("origin"),
        bigint("size", 0),
        // who appends, and until when nobody else does
        uuid_null("holder"),
        bigint("epoch", 0),
        time_null("lease_until"),
    ]
}

fn checkpoint_columns() -> Vec<ColumnDef> {
    vec![ColumnDef::new("size").big_integer().not_null().primary_key().take(), text("note"), time("created_at")]
}

fn name_columns() -> Vec<ColumnDef> {
    vec![
        id(),
        // whose name it is: the type of actor and its id
        text("person"),
        // both are erased together
        text_null("name"),
        ColumnDef::new("salt").blob().null().take(),
        // what the events hold of it; missing in the row that says that a person was erased
        ColumnDef::new("commitment").blob().null().take(),
        time_null("erased_at"),
    ]
}

const COLUMNS: &[&str] = &[
    "CREATE UNIQUE INDEX audit_name_person ON audit_name (person, name)",
    "ALTER TABLE audit_outbox ADD COLUMN actor_name_id uuid",
    "ALTER TABLE audit_outbox ADD COLUMN subject_name_id uuid",
    // the keys that sign access tokens, and those that sign evidence
    "ALTER TABLE signing_key ADD COLUMN purpose text NOT NULL DEFAULT 'token'",
    // in which the key before vouches for this one
    "ALTER TABLE signing_key ADD COLUMN voucher text",
    "DROP INDEX signing_key_current",
    "CREATE UNIQUE INDEX signing_key_current ON signing_key (purpose, algorithm) WHERE retires_at IS NULL",
];

const COLUMNS_DOWN: &[&str] = &[
    "DROP INDEX signing_key_current",
    "DELETE FROM signing_key WHERE purpose <> 'token'",
    "CREATE UNIQUE INDEX signing_key_current ON signing_key (algorithm) WHERE retires_at IS NULL",
    "ALTER TABLE signing_key DROP COLUMN voucher",
    "ALTER TABLE signing_key DROP COLUMN purpose",
    "ALTER TABLE audit_outbox DROP COLUMN subject_name_id",
    "ALTER TABLE audit_outbox DROP COLUMN actor_name_id",
];

/// An event changes once: when it is given its number, and its names go to where they can be erased.
const SQLITE: &[&str] = &[
    "CREATE TRIGGER audit_outbox_once BEFORE UPDATE ON audit_outbox FOR EACH ROW \
     WHEN OLD.seq IS NOT NULL OR NEW.seq IS NULL OR NEW.actor_name IS NOT NULL OR NEW.id IS NOT OLD.id OR NEW.at IS NOT OLD.at \
       OR NEW.type IS NOT OLD.type OR NEW.actor_type IS NOT OLD.actor_type OR NEW.actor_id IS NOT OLD.actor_id \
       OR NEW.subject_type IS NOT OLD.subject_type OR NEW.subject_id IS NOT OLD.subject_id OR NEW.outcome IS NOT OLD.outcome \
       OR NEW.request_id IS NOT OLD.request_id OR NEW.job_id IS NOT OLD.job_id \
       OR (NEW.details IS NOT OLD.details AND NEW.details IS NOT json_remove(OLD.details, '$.name')) \
     BEGIN SELECT RAISE(ABORT, 'audit events are never changed'); END",
    "CREATE TRIGGER audit_outbox_kept BEFORE DELETE ON audit_outbox FOR EACH ROW \
     BEGIN SELECT RAISE(ABORT, 'audit events are never deleted'); END",
    "CREATE TRIGGER audit_tile_grows BEFORE UPDATE ON audit_tile FOR EACH ROW \
     WHEN NEW.level <> OLD.level OR NEW.idx <> OLD.idx OR substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes \
     BEGIN SELECT RAISE(ABORT, 'hashes of the audit log are never changed'); END",
    "CREATE TRIGGER audit_tile_kept BEFORE DELETE ON audit_tile FOR EACH ROW \
     BEGIN SELECT RAISE(ABORT, 'hashes of the audit log are never deleted'); END",
    "CREATE TRIGGER audit_checkpoint_once BEFORE UPDATE ON audit_checkpoint FOR EACH ROW \
     BEGIN SELECT RAISE(ABORT, 'checkpoints are never changed'); END",
    "CREATE TRIGGER audit_checkpoint_kept BEFORE DELETE ON audit_checkpoint FOR EACH ROW \
     BEGIN SELECT RAISE(ABORT, 'checkpoints are never deleted'); END",
];

const SQLITE_DOWN: &[&str] = &[
    "DROP TRIGGER audit_checkpoint_kept",
    "DROP TRIGGER audit_checkpoint_once",
    "DROP TRIGGER audit_tile_kept",
    "DROP TRIGGER audit_tile_grows",
    "DROP TRIGGER audit_outbox_kept",
    "DROP TRIGGER audit_outbox_once",
];

const POSTGRES: &[&str] = &[
    "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ \
     BEGIN RAISE EXCEPTION '% is never changed or deleted afterwards', TG_TABLE_NAME; END $$",
    "CREATE TRIGGER audit_outbox_once BEFORE UPDATE ON audit_outbox FOR EACH ROW \
     WHEN (OLD.seq IS NOT NULL OR NEW.seq IS NULL OR NEW.actor_name IS NOT NULL OR NEW.details <> OLD.details \
         AND NEW.details <> OLD.details - 'name' \
       OR (NEW.id, NEW.at, NEW.type, NEW.actor_type, NEW.actor_id, NEW.subject_type, NEW.subject_id, NEW.outcome, NEW.request_id, NEW.job_id) \
         IS DISTINCT FROM \
         (OLD.id, OLD.at, OLD.type, OLD.actor_type, OLD.actor_id, OLD.subject_type, OLD.subject_id, OLD.outcome, OLD.request_id, OLD.job_id)) \
     EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_outbox_kept BEFORE DELETE ON audit_outbox FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_outbox_whole BEFORE TRUNCATE ON audit_outbox EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_tile_grows BEFORE UPDATE ON audit_tile FOR EACH ROW \
     WHEN (NEW.level <> OLD.level OR NEW.idx <> OLD.idx OR substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes) \
     EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_tile_kept BEFORE DELETE ON audit_tile FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_tile_whole BEFORE TRUNCATE ON audit_tile EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_checkpoint_once BEFORE UPDATE ON audit_checkpoint FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_checkpoint_kept BEFORE DELETE ON audit_checkpoint FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_checkpoint_whole BEFORE TRUNCATE ON audit_checkpoint EXECUTE FUNCTION audit_refuse()",
    // each event is written twice, and what waits for its number is found by walking over those that did
    "ALTER TABLE audit_outbox SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, \
     autovacuum_vacuum_cost_delay = 0)",
];

const POSTGRES_DOWN: &[&str] = &[
    "ALTER TABLE audit_outbox RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay)",
    "DROP TRIGGER audit_checkpoint_whole ON audit_checkpoint",
    "DROP TRIGGER audit_checkpoint_kept ON audit_checkpoint",
    "DROP TRIGGER audit_checkpoint_once ON audit_checkpoint",
    "DROP TRIGGER audit_tile_whole ON audit_tile",
    "DROP TRIGGER audit_tile_kept ON audit_tile",
    "DROP TRIGGER audit_tile_grows ON audit_tile",
    "DROP TRIGGER audit_outbox_whole ON audit_outbox",
    "DROP TRIGGER audit_outbox_kept ON audit_outbox",
    "DROP TRIGGER audit_outbox_once ON audit_outbox",
    "DROP FUNCTION audit_refuse()",
];
