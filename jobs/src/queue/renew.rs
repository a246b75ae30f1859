//! Keeping claimed jobs: leases are renewed, progress is written and cancellation is heard on a thread and a connection of their
//! own, so that busy workers and a full pool cannot delay them.
//!
//! Nothing here waits for a row that somebody else has locked: one long transaction must not cost the other jobs their leases.

use super::{
    HELD, Held,
    chaos::{self, Promise},
    claim::millis,
    lease::{Lease, lock},
};
use crate::setup::database::Database;
use keywright_entities::{clock, job};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Value};
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the renewer looks up.
const TICK: Duration = Duration::from_millis(250);
/// How often progress is written at most.
const PROGRESS: Duration = Duration::from_millis(500);

/// Keeps the leases of one process.
pub struct Renewer {
    leases: Mutex<HashMap<Held, Arc<Lease>>>,
    news: Notify,
    length: Duration,
    /// Told when clients can see something new.
    committed: Arc<Notify>,
    /// Since when the database has answered without a gap.
    answering: Mutex<Answering>,
}

#[derive(Clone, Copy)]
struct Answering {
    since: Instant,
    last: Instant,
}

impl Renewer {
    pub fn new(length: Duration, committed: Arc<Notify>) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            leases: Mutex::default(),
            news: Notify::new(),
            length,
            committed,
            answering: Mutex::new(Answering { since: now, last: now }),
        })
    }

    pub fn hold(&self, lease: &Arc<Lease>) {
        lock(&self.leases).insert(lease.held, Arc::clone(lease));
    }

    pub fn let_go(&self, held: &Held) {
        lock(&self.leases).remove(held);
    }

    /// Something changed in the job table: look what people want of the jobs, soon.
    pub fn news(&self) {
        self.news.notify_one();
    }

    /// Whether this process has itself reached the database for one whole lease: before that it must not take a lapsed lease
    /// for a lost worker, because the outage may have been the database's or its own.
    pub fn may_rescue(&self) -> bool {
        if chaos::breaks(Promise::OutagesExcused) {
            return true;
        }
        let answering = *lock(&self.answering);
        let now = Instant::now();
        now.duration_since(answering.last) < self.length / 2
            && answering.last.duration_since(answering.since) >= self.length
    }

    fn answered(&self, ok: bool) {
        let now = Instant::now();
        let mut answering = lock(&self.answering);
        // a gap is an outage too, whether the database's or our own (a frozen process)
        if !ok || now.duration_since(answering.last) > self.length / 2 {
            answering.since = now;
        }
        answering.last = now;
    }

    /// Renews until `stop`, on a thread of its own. Returns the thread.
    pub fn spawn(
        self: &Arc<Self>,
        database: Database,
        beat: Heartbeat,
        stop: CancellationToken,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let renewer = Arc::clone(self);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("lease-renewer".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = renewer.run(&database, beat) => {}
                    () = stop.cancelled() => {}
                }
                // dropped inside the runtime that drives it
                if let Err(error) = database.close().await {
                    tracing::debug!(%error, "closing the renewer's connection");
                }
            });
        })
    }

    async fn run(&self, database: &Database, beat: Heartbeat) {
        let (mut renew_at, mut progress_at) = (Instant::now(), Instant::now());
        let mut away = false;
        let mut tick = tokio::time::interval(TICK.min(self.length / 8));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut heard = false;
            tokio::select! {
                _ = tick.tick() => {}
                () = self.news.notified() => { heard = true; tick.tick().await; }
            }
            let now = Instant::now();
            let due = renew_at <= now;
            let step = async {
                // renewals first: nothing else may make them late
                let mut next = renew_at;
                if due {
                    next = if self.renew(database).await? { now + self.length / 4 } else { now };
                    (beat.0)(database.clone()).await?;
                } else if heard {
                    self.listen(database).await?;
                }
                if progress_at <= now {
                    self.write_progress(database).await?;
                    progress_at = now + PROGRESS;
                }
                Ok::<_, DbErr>(next)
            };
            // an answer later than a quarter of the lease is no answer
            match tokio::time::timeout((self.length / 4).max(Duration::from_millis(500)), step).await {
                Ok(Ok(next)) => {
                    if due {
                        self.answered(true);
                        away = false;
                    }
                    renew_at = next;
                }
                Ok(Err(error)) => {
                    self.answered(false);
                    // once an outage
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "leases could not be renewed; attempts are parked when theirs run out");
                    }
                }
                Err(_) => {
                    self.answered(false);
                    tracing::warn!("the database did not answer the renewal in time");
                }
            }
        }
    }

    fn all(&self) -> Vec<Arc<Lease>> {
        lock(&self.leases).values().cloned().collect()
    }

    /// Prolongs every lease, once. `false`: some rows were locked, and are to be tried again soon.
    pub async fn renew(&self, database: &Database) -> Result<bool, DbErr> {
        let until = clock::sql(database.backend(), millis(self.length));
        let skip = if database.backend() == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
        let mut complete = true;
        for leases in self.all().chunks(500) {
            let (mine, values) = fenced(leases);
            let text = format!(
                "WITH mine AS (SELECT id FROM job WHERE {mine} {skip}) \
                 UPDATE job SET lease_until = {until}, heartbeat_at = {{now}} WHERE id IN (SELECT id FROM mine) RETURNING *"
            );
            let asked = Instant::now();
            let turn = database.turn().await;
            let renewed = super::rows(database.reader(), clock::statement(database.backend(), &text, values)).await?;
            drop(turn);
            let renewed: HashMap<Uuid, job::Model> = renewed.into_iter().map(|row| (row.id, row)).collect();
            let mut missed = Vec::new();
            for lease in leases {
                let Some(row) = renewed.get(&lease.held.id) else {
                    missed.push(Arc::clone(lease));
                    continue;
                };
                lease.renewed(asked + self.length);
                lease.told(row);
            }
            complete &= !self.hear(database, &missed).await?;
        }
        Ok(complete)
    }

    async fn listen(&self, database: &Database) -> Result<(), DbErr> {
        for leases in self.all().chunks(500) {
            self.hear(database, leases).await?;
        }
        Ok(())
    }

    /// Reads the rows of these leases: one that is not there any more is lost. Tells whether any is still held.
    async fn hear(&self, database: &Database, leases: &[Arc<Lease>]) -> Result<bool, DbErr> {
        if leases.is_empty() {
            return Ok(false);
        }
        let (mine, values) = fenced(leases);
        let text = format!("SELECT * FROM job WHERE {mine}");
        let rows = super::rows(database.reader(), clock::statement(database.backend(), &text, values)).await?;
        let rows: HashMap<Uuid, job::Model> = rows.into_iter().map(|row| (row.id, row)).collect();
        for lease in leases {
            match rows.get(&lease.held.id) {
                Some(row) => lease.told(row),
                None => lease.lose(),
            }
        }
        Ok(!rows.is_empty())
    }

    /// Clients see the progress of children in their parent, so its version moves with theirs.
    async fn write_progress(&self, database: &Database) -> Result<(), DbErr> {
        let backend = database.backend();
        let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
        let mut parents = HashSet::new();
        let mut any = false;
        for lease in self.all() {
            let Some(progress) = lease.take_progress() else { continue };
            let text = format!(
                "WITH mine AS (SELECT id FROM job WHERE id = $1 AND epoch = $2 AND {HELD} {skip}) \
                 UPDATE job SET progress = $3, version = version + 1 WHERE id IN (SELECT id FROM mine)"
            );
            let [id, epoch] = lease.held.fence();
            let _turn = database.turn().await;
            let values = [id, epoch, progress.into()];
            database.reader().execute_raw(clock::statement(backend, &text, values)).await?;
            parents.extend(lease.parent);
            any = true;
        }
        for parent in parents {
            let text = format!(
                "WITH parent AS (SELECT id FROM job WHERE id = $1 AND completed_at IS NULL {skip}) \
                 UPDATE job SET version = version + 1 WHERE id IN (SELECT id FROM parent)"
            );
            let _turn = database.turn().await;
            database.reader().execute_raw(clock::statement(backend, &text, [parent.into()])).await?;
        }
        if any {
            self.committed.notify_one();
        }
        Ok(())
    }
}

/// SQL for "the rows that these leases hold", with its values.
fn fenced(leases: &[Arc<Lease>]) -> (String, Vec<Value>) {
    let values = leases.iter().flat_map(|lease| lease.held.fence()).collect();
    let pairs: Vec<String> = (0..leases.len()).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect();
    // never an empty list, which is no SQL: callers pass at least one lease
    (format!("{HELD} AND (id, epoch) IN (VALUES {})", pairs.join(", ")), values)
}

/// What else the renewer's thread writes at each renewal: the worker's own row.
pub struct Heartbeat(Box<dyn Fn(Database) -> Beat + Send>);

type Beat = Pin<Box<dyn Future<Output = Result<(), DbErr>>>>;

impl Heartbeat {
    pub fn new<F>(write: impl Fn(Database) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), DbErr>> + 'static,
    {
        Self(Box::new(move |database| Box::pin(write(database))))
    }
}
