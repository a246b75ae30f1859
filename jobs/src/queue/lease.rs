//! One attempt's hold on its job.
//!
//! A lease is lost when the row's epoch moved, not when time passed. While a lease is in doubt its attempt is parked: no new
//! provider call, no write. It goes on if the next renewal still hits the row.

use super::chaos::{self, Promise};
use crate::provider::{Pass, Stopped};
use keywright_entities::{job, types::JobState};
use sea_orm::Value;
use serde_json::Value as Json;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
    paused: bool,
}

impl View {
    /// Why the attempt must end, as far as the job's row says so.
    fn stopped(&self) -> Option<Stopped> {
        match self {
            Self { lost: true, .. } => Some(Stopped::LeaseLost),
            Self { canceled: true, .. } => Some(Stopped::Canceled),
            Self { paused: true, .. } => Some(Stopped::Paused),
            _ => None,
        }
    }
}

/// One attempt's hold on its job.
pub struct Lease {
    pub held: Held,
    pub(super) parent: Option<Uuid>,
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
            view: watch::Sender::new(View { valid_until: asked + length, lost: false, canceled: false, paused: false }),
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
            seen = view.wait_for(|view| view.stopped().is_some()) => {
                seen.ok().and_then(|view| view.stopped()).unwrap_or(Stopped::LeaseLost)
            }
            () = self.shutdown.cancelled() => Stopped::Shutdown,
            () = late => Stopped::DeadlineExceeded,
        }
    }

    /// Waits until the lease is certain (ours, or lost).
    ///
    /// # Errors
    /// [`Stopped::LeaseLost`] when another holds the job now.
    pub async fn certain(&self) -> Result<(), Stopped> {
        if chaos::breaks(Promise::Fence) {
            return Ok(());
        }
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
        let told = self.view.borrow().stopped();
        if told.is_some() {
            told
        } else if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(Stopped::DeadlineExceeded)
        } else if self.shutdown.is_cancelled() {
            Some(Stopped::Shutdown)
        } else {
            None
        }
    }

    /// The progress that was reported since it was last taken.
    pub(super) fn take_progress(&self) -> Option<Json> {
        lock(&self.progress).take()
    }

    pub(super) fn renewed(&self, valid_until: Instant) {
        self.view.send_modify(|view| view.valid_until = valid_until);
    }

    /// What the job's row says that somebody wants of the attempt.
    pub(super) fn told(&self, job: &job::Model) {
        let (canceled, paused) = (job.state == JobState::Canceling, job.paused_at.is_some());
        self.view.send_if_modified(|view| {
            let changed = (view.canceled, view.paused) != (canceled, paused);
            (view.canceled, view.paused) = (canceled, paused);
            changed
        });
    }

    pub(super) fn lose(&self) {
        if chaos::breaks(Promise::Fence) {
            return;
        }
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

    fn held(&self) -> Option<Held> {
        Some(self.held)
    }
}

/// A panic elsewhere must not stop the renewals: what the lock guards is valid at every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
