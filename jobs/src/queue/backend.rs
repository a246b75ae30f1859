//! The face that apalis sees: a `Backend` that yields jobs which are already claimed.
//!
//! A claimer owns the database side: it claims at most as many jobs as there are free slots, when news come or a poll is due, and
//! hands them over. The backend never fails: an error here would make apalis drop the handlers that are running.

use super::{
    claim::{self, Capability},
    lease::{Lease, Renewer},
    wake::Wake,
};
use crate::setup::database::Database;
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::{Task, builder::TaskBuilder},
    worker::context::WorkerContext,
};
use keywright_entities::job;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// How often due jobs are looked for without any news.
const POLL: Duration = Duration::from_millis(500);
/// How often lapsed leases and missed deadlines are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// A job that is ours, its lease, and the slot that it fills until it is dropped.
#[derive(Clone)]
pub struct Claimed {
    pub job: Arc<job::Model>,
    pub lease: Arc<Lease>,
    _slot: Arc<OwnedSemaphorePermit>,
}

/// Claims for one process until it is told to stop.
pub struct Claimer {
    pub database: Database,
    pub capability: Capability,
    pub renewer: Arc<Renewer>,
    pub wake: Wake,
    /// Stop claiming.
    pub stop: CancellationToken,
    /// Stop what is running.
    pub interrupt: CancellationToken,
    pub polls: Arc<Polls>,
}

/// When the last claim poll succeeded, in milliseconds since the process began to count.
pub struct Polls {
    began: Instant,
    last: AtomicI64,
}

impl Default for Polls {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicI64::new(-1) }
    }
}

impl Polls {
    fn succeeded(&self) {
        let elapsed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.last.store(elapsed, Ordering::SeqCst);
    }

    /// How long ago; `None` when none ever did.
    pub fn age(&self) -> Option<Duration> {
        let last = u64::try_from(self.last.load(Ordering::SeqCst)).ok()?;
        Some(self.began.elapsed().saturating_sub(Duration::from_millis(last)))
    }
}

impl Claimer {
    /// Starts claiming into a backend with this many slots.
    pub fn start(self, slots: usize) -> JobBackend {
        let (sender, receiver) = mpsc::channel(slots.max(1));
        tokio::spawn(self.run(Arc::new(Semaphore::new(slots)), sender));
        JobBackend { claimed: receiver }
    }

    async fn run(self, slots: Arc<Semaphore>, sender: mpsc::Sender<Claimed>) {
        let mut news = self.wake.subscribe();
        let mut swept = Instant::now();
        loop {
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = self.stop.cancelled() => return,
            };
            let Ok(slot) = slot else { return };
            news.mark_unchanged();
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.sweep().await;
            }
            if self.claim(slot, &slots, &sender).await {
                continue;
            }
            tokio::select! {
                _ = news.changed() => self.renewer.news(),
                () = tokio::time::sleep(POLL) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Whether anything was claimed.
    async fn claim(&self, first: OwnedSemaphorePermit, slots: &Arc<Semaphore>, sender: &mpsc::Sender<Claimed>) -> bool {
        let mut free = vec![first];
        while let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            free.push(slot);
        }
        let asked = Instant::now();
        let jobs = match claim::claim(&self.database, &self.capability, free.len()).await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!(%error, "due jobs could not be claimed; trying again");
                tokio::time::sleep(POLL).await;
                return false;
            }
        };
        self.polls.succeeded();
        let any = !jobs.is_empty();
        for (job, slot) in jobs.into_iter().zip(free) {
            let lease = Lease::new(&job, asked, self.capability.lease, self.interrupt.clone());
            self.renewer.hold(&lease);
            let claimed = Claimed { job: Arc::new(job), lease, _slot: Arc::new(slot) };
            // the channel is as long as there are slots; a closed one means that the worker is gone, and the lease will lapse
            if sender.send(claimed).await.is_err() {
                return false;
            }
        }
        any
    }

    async fn sweep(&self) {
        let swept = async {
            if self.renewer.may_rescue() {
                claim::rescue(&self.database).await?;
            }
            claim::expire(&self.database).await
        };
        if let Err(error) = swept.await {
            tracing::warn!(%error, "lapsed leases and deadlines could not be looked for; trying again");
        }
    }
}

/// Yields claimed jobs to apalis.
pub struct JobBackend {
    claimed: mpsc::Receiver<Claimed>,
}

impl Backend for JobBackend {
    type Task = Task<Claimed>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<Claimed>, Infallible>>> {
        self.claimed.poll_recv(cx).map(|claimed| claimed.map(|claimed| Ok(TaskBuilder::new(claimed).build())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.claimed.close();
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for JobBackend {
    type Args = Claimed;
    type Id = uuid::Uuid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = tower_layer::Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> tower_layer::Identity {
        tower_layer::Identity::new()
    }
}
