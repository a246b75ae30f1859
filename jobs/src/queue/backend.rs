//! The face that apalis sees: a `Backend` that yields jobs which are already claimed.
//!
//! A claimer owns the database side: it claims as many jobs as there are free places, when news come or a poll is due, and hands
//! them over. The backend never fails: an error here would make apalis drop the handlers that are running.

use super::{
    claim::{self, Capability},
    lease::Lease,
    limits,
    places::{Place, Places},
    renew::Renewer,
    wake::Wake,
};
use crate::{metrics, setup::database::Database};
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
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How often due jobs are looked for without any news, unless a test says otherwise.
pub const POLL: Duration = Duration::from_millis(500);
/// How often lapsed leases and missed deadlines are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// A job that is ours, its lease, and the place that it fills until it is dropped.
#[derive(Clone)]
pub struct Claimed {
    pub job: Arc<job::Model>,
    pub lease: Arc<Lease>,
    pub place: Arc<Place>,
    /// When it was claimed.
    pub at: Instant,
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
    /// How often to look without any news; [`POLL`].
    pub poll: Duration,
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
    /// Starts claiming into a backend that runs this many jobs at once.
    pub fn start(self, concurrency: usize) -> JobBackend {
        let (sender, receiver) = mpsc::channel(Places::most(concurrency).max(1));
        tokio::spawn(pass_on_news(self.wake.clone(), Arc::clone(&self.renewer), self.interrupt.clone()));
        let places = Places::new(concurrency, self.capability.lease);
        tokio::spawn(self.run(places, sender));
        JobBackend { claimed: receiver }
    }

    async fn run(self, places: Arc<Places>, sender: mpsc::Sender<Claimed>) {
        let mut news = self.wake.subscribe();
        let mut swept = Instant::now();
        loop {
            if swept.elapsed() >= SWEEP {
                self.sweep().await;
                swept = Instant::now();
            }
            let free = places.free();
            let claimed = if free == 0 {
                false
            } else {
                news.mark_unchanged();
                self.claim(free, &places, &sender).await
            };
            if claimed && !self.stop.is_cancelled() {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = news.changed(), if free > 0 => {}
                () = places.freed(), if free == 0 => {}
                // a worker that is full still takes back what others lost
                () = tokio::time::sleep(if free == 0 { SWEEP } else { self.poll }) => {}
            }
        }
    }

    /// Whether anything was claimed.
    async fn claim(&self, free: usize, places: &Arc<Places>, sender: &mpsc::Sender<Claimed>) -> bool {
        let asked = Instant::now();
        let jobs = match claim::claim(&self.database, &self.capability, free).await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!(%error, "due jobs could not be claimed; trying again");
                return false;
            }
        };
        self.polls.succeeded();
        let any = !jobs.is_empty();
        for job in jobs {
            metrics::claimed(&job.kind);
            let lease = Lease::new(&job, asked, self.capability.lease, self.interrupt.clone());
            self.renewer.hold(&lease);
            let claimed = Claimed { job: Arc::new(job), lease, place: Arc::new(places.take()), at: Instant::now() };
            // the channel is as long as there are places; a closed one means that the worker is gone, and the lease will lapse
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
            claim::expire(&self.database).await?;
            limits::release(&self.database, &self.capability.limits).await
        };
        match swept.await {
            Ok(_) => self.polls.succeeded(),
            Err(error) => {
                tracing::warn!(%error, "lapsed leases and deadlines could not be looked for; trying again");
            }
        }
    }
}

/// Cancellations are heard even while every slot is full and nobody looks for jobs.
async fn pass_on_news(wake: Wake, renewer: Arc<Renewer>, until: CancellationToken) {
    let mut news = wake.subscribe();
    loop {
        tokio::select! {
            () = until.cancelled() => return,
            heard = news.changed() => if heard.is_err() { return },
        }
        renewer.news();
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
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Claimed>, Infallible>>> {
        self.claimed.poll_recv(cx).map(|claimed| {
            if claimed.is_none() {
                // apalis waits for this word as well before it lets go of a worker whose backend has ended
                if let Err(error) = worker.stop() {
                    tracing::debug!(%error, "the worker had not begun");
                }
            }
            claimed.map(|claimed| Ok(TaskBuilder::new(claimed).build()))
        })
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
