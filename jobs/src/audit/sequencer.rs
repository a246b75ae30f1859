//! Giving events their numbers: one process at a time, by a lease in the database, and fenced by it.
//!
//! Every worker stands by. What one appends is one transaction that first moves the log's row on from the size that it knew: a
//! process that was frozen and thawed, or two that both believe to hold the lease, cannot both do that, so numbers have no gap and
//! the tree no fork whatever the clocks do.

use super::{
    checkpoints,
    keys::{self, KeyError},
    log::{self, LogError, as_hashed, number},
    names::{Names, NamesError, committed, of_actor, of_subject},
};
use crate::{
    queue::wake::Wake,
    setup::{
        database::{Database, Write},
        ids,
        sealing::Sealing,
    },
};
use keywright_entities::{audit_checkpoint, audit_log, audit_outbox, clock};
use keywright_proof::{
    canonical::NotJson,
    note::NoteError,
    tree::{Edge, TileId},
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, Value, sea_query::Expr};
use serde_json::json;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A checkpoint is made after so many events …
pub const CHECKPOINT_EVENTS: u64 = 1000;
/// … or this long after the first that none covers.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);
/// Between two rounds that did not fill a batch: what comes meanwhile shares one commit.
const PAUSE: Duration = Duration::from_millis(100);
/// Without news, whoever holds the lease looks this often; at most a quarter of it.
const LOOK: Duration = Duration::from_secs(1);

/// Why nothing could be appended now.
#[derive(Debug, Error)]
pub enum SequenceError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    NotJson(#[from] NotJson),
    #[error("the checkpoint cannot be signed: {0}")]
    Note(#[from] NoteError),
}

/// Appends to the log while it holds the lease.
pub struct Sequencer {
    database: Database,
    sealing: Sealing,
    me: Uuid,
    lease: Duration,
    held: Option<Held>,
}

/// What whoever holds the lease knows of the log.
struct Held {
    origin: String,
    epoch: i64,
    edge: Edge,
    /// How many events the newest checkpoint covers; none when there is none yet.
    covered: Option<u64>,
    /// Since when there are events that none covers.
    uncovered: Option<Instant>,
    renewed: Instant,
}

impl Sequencer {
    pub fn new(database: Database, sealing: Sealing, lease: Duration) -> Self {
        Self { database, sealing, me: ids::new(), lease, held: None }
    }

    /// Appends until it is told to stop, then signs what it has and lets go.
    pub async fn run(mut self, wake: Wake, stop: CancellationToken) {
        let mut news = wake.subscribe();
        let look = LOOK.min(self.lease / 4);
        while !stop.is_cancelled() {
            let wait = match self.step(false).await {
                Ok(appended) if appended >= CHECKPOINT_EVENTS / 2 => continue,
                Ok(0) => look,
                Ok(_) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "audit events could not be given their numbers; trying again");
                    LOOK
                }
            };
            news.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep(wait) => continue,
                () = stop.cancelled() => break,
                changed = news.changed(), if wait == look => if changed.is_err() { tokio::time::sleep(look).await },
            }
            tokio::time::sleep(PAUSE).await;
        }
        if self.held.is_some()
            && let Err(error) = self.leave().await
        {
            tracing::warn!(%error, "the last checkpoint of the audit log could not be made; another worker makes it");
        }
    }

    /// Takes or keeps the lease, appends one batch, and makes a checkpoint when one is due, or `now`. Tells how many events were
    /// appended; 0 also when another process holds the lease.
    ///
    /// # Errors
    /// [`SequenceError`]; what was not appended waits as it did.
    pub async fn step(&mut self, now: bool) -> Result<u64, SequenceError> {
        let done = self.round(now).await;
        if done.is_err() {
            // whether a commit that failed took effect is known only to the database
            self.held = None;
        }
        done
    }

    async fn round(&mut self, now: bool) -> Result<u64, SequenceError> {
        if self.held.is_none() {
            self.held = self.take().await?;
        }
        let Some(mut held) = self.held.take() else { return Ok(0) };
        let Some(appended) = self.append(&mut held).await? else { return Ok(0) };
        let (size, covered) = (held.edge.size(), held.covered);
        let fresh = covered.map(|covered| size - covered);
        let late = held.uncovered.is_some_and(|since| since.elapsed() >= CHECKPOINT_AFTER);
        let due = fresh.is_none_or(|fresh| fresh >= CHECKPOINT_EVENTS || fresh > 0 && (late || now));
        if due && !self.checkpoint(&mut held).await? {
            return Ok(appended);
        }
        if appended == 0 && held.renewed.elapsed() >= self.lease / 4 && !self.renew(&mut held).await? {
            return Ok(0);
        }
        self.held = Some(held);
        Ok(appended)
    }

    /// `None` while another process holds the lease.
    async fn take(&self) -> Result<Option<Held>, SequenceError> {
        let renewed = Instant::now();
        let free = format!(
            "UPDATE audit_log SET holder = $1, epoch = epoch + 1, lease_until = {} \
             WHERE id = 'log' AND (lease_until IS NULL OR lease_until <= {{now}} OR holder = $1)",
            self.until()
        );
        let backend = self.database.backend();
        // a look first: on SQLite a write would wait for the only writer
        let look = clock::statement(
            backend,
            "SELECT 1 AS free FROM audit_log WHERE lease_until IS NULL OR lease_until <= {now} OR holder = $1",
            [Value::from(self.me)],
        );
        if self.database.reader().query_one_raw(look).await?.is_none() {
            return Ok(None);
        }
        let turn = self.database.turn().await;
        let taken =
            self.database.reader().execute_raw(clock::statement(backend, &free, [Value::from(self.me)])).await?;
        drop(turn);
        let row = audit_log::get(self.database.reader()).await?;
        if taken.rows_affected() != 1 || row.holder != Some(self.me) {
            return Ok(None);
        }
        let size = u64::try_from(row.size).map_err(|_| LogError::Hashes)?;
        let tiles = log::tiles(self.database.reader(), Edge::needed(size)).await?;
        let edge = Edge::of(size, &tiles).ok_or(LogError::Hashes)?;
        let newest = audit_checkpoint::newest(self.database.reader()).await?;
        let covered = newest.and_then(|newest| u64::try_from(newest.size).ok());
        let uncovered = covered.filter(|covered| *covered < size).map(|_| renewed);
        Ok(Some(Held { origin: row.origin, epoch: row.epoch, edge, covered, uncovered, renewed }))
    }

    /// SQL for the end of a lease that begins now.
    fn until(&self) -> String {
        clock::sql(self.database.backend(), i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX))
    }

    /// Moves the log on; `false` when the lease is somebody else's.
    async fn fenced(&self, db: &impl ConnectionTrait, held: &Held, size: u64) -> Result<bool, DbErr> {
        let text = format!(
            "UPDATE audit_log SET size = $1, lease_until = {} WHERE id = 'log' AND holder = $2 AND epoch = $3 AND size = $4",
            self.until()
        );
        let values: [Value; 4] =
            [number(size).into(), self.me.into(), held.epoch.into(), number(held.edge.size()).into()];
        let moved = db.execute_raw(clock::statement(self.database.backend(), &text, values)).await?;
        Ok(moved.rows_affected() == 1)
    }

    /// Gives the events that wait their numbers; `None` when the lease was lost.
    async fn append(&self, held: &mut Held) -> Result<Option<u64>, SequenceError> {
        let first = held.edge.size();
        let room =
            held.covered.map_or(CHECKPOINT_EVENTS, |covered| (covered + CHECKPOINT_EVENTS).saturating_sub(first));
        let events = audit_outbox::unsequenced(self.database.reader(), room.max(1)).await?;
        if events.is_empty() {
            return Ok(Some(0));
        }
        let names = Names::of(self.database.reader(), &events).await?;
        let mut edge = held.edge.clone();
        let mut rows = Vec::with_capacity(events.len());
        for mut event in events {
            let (seq, subject) = (edge.size(), of_subject(&event));
            let (actor_row, subject_row) = (names.row(&of_actor(&event)), names.row(&subject));
            rows.push(json!({
                "id": event.id,
                "seq": seq,
                "actor": actor_row.map(|row| row.id),
                "subject": subject_row.map(|row| row.id),
                "strip": i32::from(subject.is_some()),
            }));
            if subject.is_some()
                && let Some(details) = event.details.as_object_mut()
            {
                details.remove("name");
            }
            let (actor, subject) = (actor_row.and_then(committed), subject_row.and_then(committed));
            edge.push(as_hashed(&event, seq, actor, subject, |event| event.leaf())?);
        }
        let count = rows.len() as u64;
        let write = self.database.begin().await?;
        if !self.fenced(&*write, held, edge.size()).await? {
            write.rollback().await?;
            return Ok(None);
        }
        // an erasure that came between is seen by the next round
        if !names.write(&write).await? || self.number(&write, rows).await? != count {
            write.rollback().await?;
            return Ok(Some(0));
        }
        self.store(&write, edge.take_changed()).await?;
        write.commit().await?;
        let now = Instant::now();
        *held = Held {
            origin: std::mem::take(&mut held.origin),
            uncovered: held.uncovered.or(Some(now)),
            renewed: now,
            edge,
            ..*held
        };
        Ok(Some(count))
    }

    async fn number(&self, write: &Write, rows: Vec<serde_json::Value>) -> Result<u64, DbErr> {
        let backend = self.database.backend();
        let text = if backend == DbBackend::Sqlite { NUMBER_SQLITE } else { NUMBER_POSTGRES };
        let rows = Value::from(serde_json::Value::Array(rows));
        Ok(write.execute_raw(clock::statement(backend, text, [rows])).await?.rows_affected())
    }

    async fn store(&self, write: &Write, tiles: Vec<(TileId, Vec<u8>)>) -> Result<(), DbErr> {
        let row = |(id, hashes): (TileId, Vec<u8>)| json!({"level": id.level, "idx": id.index, "hashes": hex::encode(hashes)});
        let rows: Vec<serde_json::Value> = tiles.into_iter().map(row).collect();
        let backend = self.database.backend();
        let text = if backend == DbBackend::Sqlite { STORE_SQLITE } else { STORE_POSTGRES };
        let rows = Value::from(serde_json::Value::Array(rows));
        write.execute_raw(clock::statement(backend, text, [rows])).await.map(|_| ())
    }

    /// `false` when the lease was lost.
    async fn checkpoint(&self, held: &mut Held) -> Result<bool, SequenceError> {
        let signer = keys::signer(&self.database, &self.sealing).await?;
        let write = self.database.begin().await?;
        if !self.fenced(&*write, held, held.edge.size()).await? {
            write.rollback().await?;
            return Ok(false);
        }
        checkpoints::sign(&write, &signer, &held.origin, &held.edge).await?;
        write.commit().await?;
        (held.covered, held.uncovered, held.renewed) = (Some(held.edge.size()), None, Instant::now());
        Ok(true)
    }

    /// No news for anybody, and so outside of [`Database::begin`].
    async fn renew(&self, held: &mut Held) -> Result<bool, DbErr> {
        let _turn = self.database.turn().await;
        let ours = self.fenced(self.database.reader(), held, held.edge.size()).await?;
        held.renewed = Instant::now();
        Ok(ours)
    }

    /// The last checkpoint, and the lease for whoever comes next.
    async fn leave(&mut self) -> Result<(), SequenceError> {
        while self.step(false).await? > 0 {}
        self.step(true).await?;
        let Some(held) = self.held.take() else { return Ok(()) };
        let write = self.database.begin().await?;
        audit_log::Entity::update_many()
            .col_expr(audit_log::Column::LeaseUntil, Expr::value(None::<chrono::DateTime<chrono::Utc>>))
            .filter(audit_log::Column::Holder.eq(self.me))
            .filter(audit_log::Column::Epoch.eq(held.epoch))
            .exec(&*write)
            .await?;
        Ok(write.commit().await?)
    }
}

const NUMBER_POSTGRES: &str = "UPDATE audit_outbox AS event SET seq = n.seq, actor_name = NULL, actor_name_id = n.actor, \
     subject_name_id = n.subject, details = CASE WHEN n.strip = 1 THEN event.details - 'name' ELSE event.details END \
     FROM jsonb_to_recordset($1) AS n(id uuid, seq bigint, actor uuid, subject uuid, strip integer) \
     WHERE event.id = n.id AND event.seq IS NULL";

const NUMBER_SQLITE: &str = "UPDATE audit_outbox SET seq = n.value ->> 'seq', actor_name = NULL, \
     actor_name_id = unhex(n.value ->> 'actor', '-'), subject_name_id = unhex(n.value ->> 'subject', '-'), \
     details = CASE WHEN n.value ->> 'strip' = 1 THEN json_remove(details, '$.name') ELSE details END \
     FROM json_each($1) AS n WHERE audit_outbox.id = unhex(n.value ->> 'id', '-') AND audit_outbox.seq IS NULL";

const STORE_POSTGRES: &str = "INSERT INTO audit_tile (level, idx, hashes) \
     SELECT level, idx, decode(hashes, 'hex') FROM jsonb_to_recordset($1) AS tile(level integer, idx bigint, hashes text) \
     ON CONFLICT (level, idx) DO UPDATE SET hashes = EXCLUDED.hashes";

const STORE_SQLITE: &str = "INSERT INTO audit_tile (level, idx, hashes) \
     SELECT value ->> 'level', value ->> 'idx', unhex(value ->> 'hashes') FROM json_each($1) WHERE true \
     ON CONFLICT (level, idx) DO UPDATE SET hashes = excluded.hashes";
