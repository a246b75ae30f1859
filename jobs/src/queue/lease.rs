//! Holding on to claimed jobs: leases are renewed, progress is written and cancellation is heard on a thread and a connection
//! of their own, so that busy workers and a full pool cannot delay them.
//!
//! A lease is lost when the row's epoch moved, not when time passed. While a lease is in doubt its attempt is parked: no new
//! provider call, no write. It goes on if the next renewal still hits the row.

use super::claim::millis;
use crate::{
    provider::{Pass, Stopped},
    setup::database::Database,
};
use keywright_entities::{clock, job, types::JobState};
use sea_orm::{ConnectionTrait, DbErr, Value};
use serde_json::Value as Json;
use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often progress is written at most, and how often the renewer looks up at all.
const TICK: Duration = Duration::from_millis(250);
/// No request is begun in the last part of a lease: it must still be ours when the request is handed over.
const MARGIN: Duration = Duration::from_millis(200);

/// The fence of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub id: Uuid,
    pub epoch: i64,
}

impl Held {
    pub(crate) fn fence(&self) -> [Value; 2] {
        [self.id.into(), self.epoch.into()]
    }
}

#[derive(Clone, Copy, Debug)]
struct View {
    /// By this process's monotonic clock, counted from before the renewal was sent.
    valid_until: Instant,
    lost: bool,
    canceled: bool,
}

/// One attempt's hold on its job.
pub struct Lease {
    pub held: Held,
    parent: Option<Uuid>,
    view: watch::Sender<View>,
    progress: Mutex<Option<Json>>,
    deadline: Option<Instant>,
    shutdown: CancellationToken,
}

impl Lease {
    /// A lease over a job that was claimed by a statement sent at `asked`.
    pub fn new(job: &job::Model, asked: Instant, length: Duration, shutdown: CancellationToken) -> Arc<Self> {
        let left = job.deadline_at.zip(job.heartbeat_at).and_then(|(deadline, now)| (deadline - now).to_std().ok());
        Arc::new(Self {
            held: Held { id: job.id, epoch: job.epoch },
            parent: job.parent_id,
            view: watch::Sender::new(View { valid_until: asked + length, lost: false, canceled: false }),
            progress: Mutex::new(None),
            deadline: job.deadline_at.map(|_| asked + left.unwrap_or_default()),
            shutdown,
        })
    }

    /// Replaces the progress that clients see; written at most twice a second.
    pub fn report(&self, progress: Json) {
        *lock(&self.progress) = Some(progress);
    }

    /// Ends when this attempt must: its lease is lost, it was canceled, it is late, or the process stops.
    pub async fn stopped(&self) -> Stopped {
        let mut view = self.view.subscribe();
        let late = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            seen = view.wait_for(|view| view.lost || view.canceled) => match seen.map(|view| *view) {
                Ok(View { lost: false, .. }) => Stopped::Canceled,
                _ => Stopped::LeaseLost,
            },
            () = self.shutdown.cancelled() => Stopped::Shutdown,
            () = late => Stopped::DeadlineExceeded,
        }
    }

    /// Waits until the lease is certain (ours, or lost).
    ///
    /// # Errors
    /// [`Stopped::LeaseLost`] when another holds the job now.
    pub async fn certain(&self) -> Result<(), Stopped> {
        let mut view = self.view.subscribe();
        loop {
            let now = *view.borrow_and_update();
            if now.lost {
                return Err(Stopped::LeaseLost);
            }
            if Instant::now() + MARGIN < now.valid_until {
                return Ok(());
            }
            if view.changed().await.is_err() {
                return Err(Stopped::LeaseLost);
            }
        }
    }

    fn stop_now(&self) -> Option<Stopped> {
        let view = *self.view.borrow();
        if view.lost {
            Some(Stopped::LeaseLost)
        } else if view.canceled {
            Some(Stopped::Canceled)
        } else if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(Stopped::DeadlineExceeded)
        } else if self.shutdown.is_cancelled() {
            Some(Stopped::Shutdown)
        } else {
            None
        }
    }

    fn renewed(&self, valid_until: Instant, canceled: bool) {
        self.view.send_modify(|view| {
            view.valid_until = valid_until;
            view.canceled |= canceled;
        });
    }

    fn lose(&self) {
        self.view.send_modify(|view| view.lost = true);
    }
}

impl Pass for Lease {
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + '_>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                certain = self.certain() => certain?,
                stopped = self.stopped() => return Err(stopped),
            }
            self.stop_now().map_or(Ok(()), Err)
        })
    }
}

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

    /// Something changed in the job table: look for cancellations soon.
    pub fn news(&self) {
        self.news.notify_one();
    }

    /// Whether this process has itself reached the database for one whole lease: before that it must not take a lapsed lease
    /// for a lost worker, because the outage may have been the database's or its own.
    pub fn may_rescue(&self) -> bool {
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
        let mut renew_at = Instant::now();
        let mut tick = tokio::time::interval(TICK.min(self.length / 8));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut heard = false;
            tokio::select! {
                _ = tick.tick() => {}
                () = self.news.notified() => { heard = true; tick.tick().await; }
            }
            let due = renew_at <= Instant::now();
            let step = async {
                self.write_progress(database).await?;
                if due {
                    self.renew(database).await?;
                    (beat.0)(database.clone()).await?;
                } else if heard {
                    self.look_for_cancels(database).await?;
                }
                Ok::<_, DbErr>(())
            };
            // an answer later than a quarter of the lease is no answer
            match tokio::time::timeout((self.length / 4).max(Duration::from_millis(500)), step).await {
                Ok(Ok(())) if due => {
                    self.answered(true);
                    renew_at = Instant::now() + self.length / 4;
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.answered(false);
                    tracing::warn!(%error, "leases could not be renewed; attempts are parked when theirs run out");
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

    async fn renew(&self, database: &Database) -> Result<(), DbErr> {
        let leases = self.all();
        for chunk in leases.chunks(500) {
            let asked = Instant::now();
            let until = clock::sql(database.backend(), millis(self.length));
            let set = format!("UPDATE job SET lease_until = {until}, heartbeat_at = {{now}}");
            self.hear(database, chunk, &set, "RETURNING *", Some(asked + self.length)).await?;
        }
        Ok(())
    }

    async fn look_for_cancels(&self, database: &Database) -> Result<(), DbErr> {
        let leases = self.all();
        for chunk in leases.chunks(500) {
            self.hear(database, chunk, "SELECT * FROM job", "", None).await?;
        }
        Ok(())
    }

    /// Sends a statement over the rows of these leases; a lease whose row did not answer is lost.
    async fn hear(
        &self,
        database: &Database,
        leases: &[Arc<Lease>],
        head: &str,
        tail: &str,
        valid_until: Option<Instant>,
    ) -> Result<(), DbErr> {
        let values: Vec<Value> = leases.iter().flat_map(|lease| lease.held.fence()).collect();
        let pairs: Vec<String> = (0..leases.len()).map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2)).collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let text =
            format!("{head} WHERE lease_until IS NOT NULL AND (id, epoch) IN (VALUES {}) {tail}", pairs.join(", "));
        let rows = super::rows(database.reader(), clock::statement(database.backend(), &text, values)).await?;
        let states: HashMap<Uuid, JobState> = rows.iter().map(|row| (row.id, row.state)).collect();
        for lease in leases {
            match (states.get(&lease.held.id), valid_until) {
                (Some(state), Some(until)) => lease.renewed(until, *state == JobState::Canceling),
                (Some(JobState::Canceling), None) => lease.view.send_modify(|view| view.canceled = true),
                (Some(_), None) => {}
                (None, _) => lease.lose(),
            }
        }
        Ok(())
    }

    /// Clients see the progress of children in their parent, so its version moves with theirs.
    async fn write_progress(&self, database: &Database) -> Result<(), DbErr> {
        let mut parents = HashSet::new();
        let mut any = false;
        for lease in self.all() {
            let Some(progress) = lock(&lease.progress).take() else { continue };
            const WRITE: &str = "UPDATE job SET progress = $3, version = version + 1 \
                WHERE id = $1 AND epoch = $2 AND lease_until IS NOT NULL";
            let [id, epoch] = lease.held.fence();
            let values = [id, epoch, progress.into()];
            database.reader().execute_raw(clock::statement(database.backend(), WRITE, values)).await?;
            parents.extend(lease.parent);
            any = true;
        }
        for parent in parents {
            const MOVE: &str = "UPDATE job SET version = version + 1 WHERE id = $1 AND completed_at IS NULL";
            database.reader().execute_raw(clock::statement(database.backend(), MOVE, [parent.into()])).await?;
        }
        if any {
            self.committed.notify_one();
        }
        Ok(())
    }
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

/// A panic elsewhere must not stop the renewals: what the lock guards is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
