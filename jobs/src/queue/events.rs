//! What happened to jobs, in one order for all processes. Triggers of the database write it with the change itself.
//!
//! On PostgreSQL transactions commit in another order than they write in, so whoever remembers the last row that it saw and asks
//! for later ones loses some. There an event has no number until it is committed: [`number`] gives it one, one process at a time.
//! What happens to one job happens under the lock of its row, so that its events are numbered in their order.

use super::prune::{BATCH, PAUSE};
use crate::{kinds, setup::database::Database};
use keywright_entities::{clock, job, job_event, scope::Scope};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QuerySelect, Select, Statement,
    TransactionTrait,
};
use serde_json::Value as Json;
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

/// How long events are kept, in hours.
pub const KEPT_HOURS: i64 = 24;
/// How many events get their numbers in one transaction.
const NUMBERED: u64 = 5000;
/// The advisory lock under which events are numbered.
const LOCK: i64 = 0x6b65_7965_7665_6e74;

/// An event, and the subscriptions that the job in whose stream it appears looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    pub event: job_event::Model,
    pub subscriptions: Arc<[Uuid]>,
}

/// Which jobs are followed, and who may see them.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of these kinds; `None`: of any.
    pub kinds: Option<Vec<String>>,
    /// That look at this one; of their parts only those that do.
    pub subscription: Option<Uuid>,
    /// A job of several subscriptions is seen by those who may see them all.
    pub visible: Scope,
}

impl Filter {
    /// Whether something that happened to a part of such a job, or to the job itself (`None`), is let through.
    pub(super) fn admits(&self, kind: &str, subscriptions: &[Uuid], part: Option<Option<Uuid>>) -> bool {
        let visible = match &self.visible {
            Scope::All => true,
            restricted => !subscriptions.is_empty() && subscriptions.iter().all(|id| restricted.allows(*id)),
        };
        let wanted = self.subscription.is_none_or(|wanted| match part {
            Some(part) => part == Some(wanted),
            None => subscriptions.contains(&wanted),
        });
        visible && wanted && self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|one| one == kind))
    }

    pub(super) fn admits_event(&self, happened: &Happened) -> bool {
        let event = &happened.event;
        let part = (event.job_id != event.owner_id).then_some(event.subscription_id);
        self.admits(&event.kind, &happened.subscriptions, part)
    }
}

/// Gives all that is committed its number. Without effect on SQLite, where the one writer has done so.
pub async fn number(db: &Database) -> Result<(), DbErr> {
    const ANY: &str = "SELECT 1 AS found FROM job_event_unnumbered LIMIT 1";
    if db.backend() != DbBackend::Postgres {
        return Ok(());
    }
    while db.reader().query_one_raw(Statement::from_string(DbBackend::Postgres, ANY)).await?.is_some() {
        // not `Database::begin`: whoever follows numbers by itself when it hears of the change, so this is no news
        let write = db.reader().begin().await?;
        // by a statement of its own: the next one must see what the holder before has committed
        let lock =
            Statement::from_sql_and_values(DbBackend::Postgres, "SELECT pg_advisory_xact_lock($1)", [LOCK.into()]);
        write.execute_raw(lock).await?;
        write.execute_raw(Statement::from_string(DbBackend::Postgres, number_sql())).await?;
        write.commit().await?;
    }
    Ok(())
}

fn number_sql() -> String {
    const COLUMNS: &str = "owner_id, job_id, kind, owner_subscription_id, subscription_id, state, waiting_for, attempt, \
        rescues, version, counts, scopes, error_code, error_detail, error_permission, scope_region, scope_kind, at";
    format!(
        "WITH taken AS (DELETE FROM job_event_unnumbered \
           WHERE id IN (SELECT id FROM job_event_unnumbered ORDER BY id LIMIT {NUMBERED}) RETURNING *) \
         INSERT INTO job_event (seq, {COLUMNS}) \
         SELECT COALESCE((SELECT MAX(seq) FROM job_event), 0) + ROW_NUMBER() OVER (ORDER BY id), {COLUMNS} FROM taken"
    )
}

/// Reads events with what their owners look at.
pub(super) async fn read(db: &Database, select: Select<job_event::Entity>) -> Result<Vec<Happened>, DbErr> {
    let events = select.all(db.reader()).await?;
    let mut several: Vec<Uuid> =
        events.iter().filter(|event| event.owner_subscription_id.is_none()).map(|event| event.owner_id).collect();
    several.sort_unstable();
    several.dedup();
    let mut known: HashMap<Uuid, Arc<[Uuid]>> = HashMap::new();
    if !several.is_empty() {
        let rows: Vec<(Uuid, String, Json)> = job::Entity::find()
            .select_only()
            .columns([job::Column::Id, job::Column::Kind, job::Column::Payload])
            .filter(job::Column::Id.is_in(several))
            .into_tuple()
            .all(db.reader())
            .await?;
        known.extend(rows.into_iter().map(|(id, kind, payload)| (id, kinds::subscriptions(&kind, &payload).into())));
    }
    let looks_at = |event: &job_event::Model| match event.owner_subscription_id {
        Some(one) => [one].into(),
        None => known.get(&event.owner_id).cloned().unwrap_or_default(),
    };
    Ok(events.into_iter().map(|event| Happened { subscriptions: looks_at(&event), event }).collect())
}

/// Forgets events that are older than [`KEPT_HOURS`], in order; tells how many. The last one stays, so that a client that has
/// it can be told from one that missed something.
pub(crate) async fn forget(db: &Database) -> Result<u64, DbErr> {
    // where no API runs nobody else numbers
    number(db).await?;
    let cutoff = clock::sql(db.backend(), -KEPT_HOURS * 3600 * 1000);
    let text = format!(
        "SELECT COALESCE((SELECT seq FROM job_event WHERE at >= {cutoff} ORDER BY seq LIMIT 1), \
         (SELECT MAX(seq) FROM job_event), 0) AS first"
    );
    let first: i64 = match db.reader().query_one_raw(Statement::from_string(db.backend(), text)).await? {
        Some(row) => row.try_get("", "first")?,
        None => 0,
    };
    let mut rows = 0;
    loop {
        let text = format!(
            "DELETE FROM job_event WHERE seq IN (SELECT seq FROM job_event WHERE seq < {first} ORDER BY seq LIMIT {BATCH})"
        );
        let write = db.begin().await?;
        let gone = write.execute_unprepared(&text).await?.rows_affected();
        if gone == 0 {
            write.rollback().await?;
            return Ok(rows);
        }
        write.commit().await?;
        rows += gone;
        tokio::time::sleep(PAUSE).await;
    }
}
