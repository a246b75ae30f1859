//! What happened to jobs, in an order that all processes agree on. Triggers write it, so that an event exists exactly when the
//! change does, whichever statement made it and whoever wrote that statement.

use crate::columns::*;
use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
        let number = ColumnDef::new("seq").big_integer().not_null().primary_key().take();
        // SQLite has one writer: its rows come in the order of their commits, so that the row's own number will do
        let number = if sqlite { number.clone().auto_increment().take() } else { number };
        create(manager, "job_event", std::iter::once(number).chain(columns()).collect()).await?;
        run(manager, &["CREATE INDEX job_event_owner ON job_event (owner_id, seq)"]).await?;
        if sqlite {
            return run(manager, &[&sqlite_trigger("made", ""), &sqlite_trigger("changed", CHANGED)]).await;
        }
        let order = ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key().take();
        create(manager, "job_event_unnumbered", std::iter::once(order).chain(columns()).collect()).await?;
        run(manager, &[SHORT_LIVED, &postgres_function(), POSTGRES_MADE, &postgres_changed()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Sqlite {
            run(manager, &["DROP TRIGGER job_event_changed", "DROP TRIGGER job_event_made"]).await?;
            return drop(manager, &["job_event"]).await;
        }
        let function = "DROP FUNCTION job_event_write()";
        run(manager, &["DROP TRIGGER job_event_changed ON job", "DROP TRIGGER job_event_made ON job", function])
            .await?;
        drop(manager, &["job_event_unnumbered", "job_event"]).await
    }
}

fn columns() -> Vec<ColumnDef> {
    vec![
        // the job in whose stream it appears: the parent of a part, else the job itself
        uuid("owner_id"),
        uuid("job_id"),
        // of the owner
        text("kind"),
        uuid_null("owner_subscription_id"),
        // the rest is the job's row at that moment
        uuid_null("subscription_id"),
        text("state"),
        text_null("waiting_for"),
        int("attempt", 0),
        int("rescues", 0),
        bigint("version", 0),
        json_null("counts"),
        json_null("scopes"),
        text_null("error_code"),
        text_null("error_detail"),
        text_null("error_permission"),
        text_null("scope_region"),
        text_null("scope_kind"),
        time("at"),
    ]
}

const COLUMNS: &str = "owner_id, job_id, kind, owner_subscription_id, subscription_id, state, waiting_for, attempt, rescues, \
    version, counts, scopes, error_code, error_detail, error_permission, scope_region, scope_kind, at";

/// The values of an event, of the job's new row; `object` makes a JSON object, `now` is the database's clock. A job that is no
/// part asks nothing else.
fn event(object: &str, now: &str) -> String {
    let of_parent = |column: &str, own: &str| {
        format!(
            "CASE WHEN NEW.parent_id IS NULL THEN NEW.{column} \
             ELSE COALESCE((SELECT {column} FROM job WHERE id = NEW.parent_id), {own}) END"
        )
    };
    let (kind, subscription) = (of_parent("kind", "NEW.kind"), of_parent("subscription_id", "NULL"));
    format!(
        "VALUES (COALESCE(NEW.parent_id, NEW.id), NEW.id, {kind}, {subscription}, \
         NEW.subscription_id, NEW.state, NEW.waiting_for, NEW.attempt, NEW.rescues, NEW.version, NEW.counts, \
         CASE WHEN NEW.children_total > 0 THEN {object}('total', NEW.children_total, 'succeeded', NEW.children_succeeded, \
           'failed', NEW.children_failed, 'denied', NEW.children_denied, 'canceled', NEW.children_canceled, \
           'pending', NEW.children_open) END, \
         NEW.error_code, NEW.error_detail, NEW.error_permission, NEW.scope_region, NEW.scope_kind, {now})"
    )
}

const CHANGED: &str = "WHEN OLD.state IS NOT NEW.state OR OLD.waiting_for IS NOT NEW.waiting_for";

fn sqlite_trigger(name: &str, when: &str) -> String {
    // in the driver's spelling of instants
    let now = "(replace(strftime('%Y-%m-%dT%H:%M:%f','now'),'.000','') || '+00:00')";
    let after = if when.is_empty() { "INSERT" } else { "UPDATE OF state, waiting_for" };
    let event = event("json_object", now);
    format!(
        "CREATE TRIGGER job_event_{name} AFTER {after} ON job FOR EACH ROW {when} \
         BEGIN INSERT INTO job_event ({COLUMNS}) {event}; END"
    )
}

/// Rows wait here for their number: transactions commit in another order than they write in.
fn postgres_function() -> String {
    let event = event("jsonb_build_object", "statement_timestamp()");
    format!(
        "CREATE FUNCTION job_event_write() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN INSERT INTO job_event_unnumbered ({COLUMNS}) {event}; RETURN NULL; END $$"
    )
}

const POSTGRES_MADE: &str =
    "CREATE TRIGGER job_event_made AFTER INSERT ON job FOR EACH ROW EXECUTE FUNCTION job_event_write()";

fn postgres_changed() -> String {
    let when = CHANGED.replace("IS NOT", "IS DISTINCT FROM").replacen("WHEN ", "WHEN (", 1);
    format!(
        "CREATE TRIGGER job_event_changed AFTER UPDATE OF state, waiting_for ON job FOR EACH ROW {when}) \
         EXECUTE FUNCTION job_event_write()"
    )
}

/// No row stays for long, so vacuum comes by number, not by share, and does not pause.
const SHORT_LIVED: &str = "ALTER TABLE job_event_unnumbered SET (autovacuum_vacuum_scale_factor = 0, \
    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)";
