//! One attempt at a claimed job, from its first line in the log to its outcome in the database.

use keywright_entities::{job, types::JobState};
use keywright_jobs::{
    context::Context,
    domain::backoff,
    evidence::Workshop,
    job::{Done, JobError},
    kinds, metrics,
    pacing::{Budgets, Tally},
    provider::{Providers, Stopped},
    queue::{
        Recorder, Renewer,
        backend::Claimed,
        chaos::{self, Promise},
        outcome::{Outcome, Reason, too_late},
    },
    setup::{clock::Clock, database::Database, ids, sealing::Sealing, telemetry::traces::AttemptTrace},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a canceled or interrupted attempt may take to come to its next gate before it is cut off.
const UNTIL_CUT: Duration = Duration::from_secs(60);
const RECORD_PAUSE: Duration = Duration::from_millis(200);
/// How long after the cut an outcome may still take to be written: the process must end.
pub const RECORD_AFTER_CUT: Duration = Duration::from_secs(4);

/// What every attempt of a process shares.
pub struct Attempts {
    pub database: Database,
    pub providers: Arc<dyn Providers>,
    pub sealing: Sealing,
    pub evidence: Workshop,
    pub clock: Clock,
    pub renewer: Arc<Renewer>,
    pub recorder: Recorder,
    pub budgets: Arc<Budgets>,
    /// What runs is cut off now and given back.
    pub cut: CancellationToken,
}

impl Attempts {
    /// Runs the job and records what became of it. `false`: the outcome could not be recorded; the lease will lapse.
    pub async fn run(self: Arc<Self>, claimed: Claimed) -> bool {
        let job = Arc::clone(&claimed.job);
        let context = Arc::new(Context {
            database: self.database.clone(),
            providers: Arc::clone(&self.providers),
            sealing: self.sealing.clone(),
            evidence: self.evidence.clone(),
            clock: self.clock.clone(),
            job: (*job).clone(),
            lease: Arc::clone(&claimed.lease),
            budgets: Arc::clone(&self.budgets),
            calls: Tally::default(),
        });
        if chaos::breaks(Promise::AcknowledgeLast) && job.parent_id.is_some() {
            self.record(&context, Outcome::Ended { state: JobState::Succeeded, reason: None }).await;
        }
        let outcome = self.in_a_slot(&context, &claimed).await;
        let recorded = match outcome {
            Some(outcome) => self.record(&context, outcome).await,
            None => true,
        };
        self.renewer.let_go(&claimed.lease.held);
        recorded
    }

    /// A job that was claimed ahead waits for a slot; meanwhile it is renewed, canceled and given back like a running one.
    async fn in_a_slot(&self, context: &Arc<Context>, claimed: &Claimed) -> Option<Outcome> {
        let (job, place) = (&context.job, &claimed.place);
        let slot = tokio::select! {
            biased;
            Some(slot) = place.slot() => slot,
            stopped = context.lease.stopped() => return decide(context, Err(JobError::Stopped(stopped))),
            () = tokio::time::sleep(place.patience()) => return Some(Outcome::GivenBack),
        };
        tracing::info!(job = %job.id, kind = %job.kind, attempt = job.attempt, rescues = job.rescues,
            request = job.request_id, "job started");
        let trace = AttemptTrace::begin(job);
        metrics::attempt_began(job, claimed.at.elapsed());
        let began = Instant::now();
        let outcome = self.supervise(context).await;
        drop(slot);
        let took = began.elapsed();
        metrics::attempt_ran(&job.kind, took);
        let said = outcome.as_ref().map_or_else(|| "lease lost".to_owned(), ToString::to_string);
        tracing::info!(job = %job.id, kind = %job.kind, attempt = job.attempt, rescues = job.rescues,
            request = job.request_id, outcome = said, ms = millis(took), "job attempt ended");
        trace.end(outcome.as_ref());
        if outcome.is_none() {
            self.lost(job, "the lease was lost; this attempt writes nothing more");
        }
        outcome
    }

    async fn supervise(&self, context: &Arc<Context>) -> Option<Outcome> {
        let mut body = Body::start(context);
        let stopped = tokio::select! {
            result = &mut body.running => return decide(context, flatten(result)),
            stopped = context.lease.stopped() => stopped,
        };
        match stopped {
            Stopped::LeaseLost => None,
            Stopped::DeadlineExceeded => decide(context, Err(JobError::Stopped(stopped))),
            Stopped::Canceled | Stopped::Paused | Stopped::Shutdown => {
                // it ends by itself at its next gate; what it had done by then is kept
                tokio::select! {
                    result = &mut body.running => decide(context, flatten(result)),
                    () = self.cut.cancelled() => decide(context, Err(JobError::Stopped(stopped))),
                    () = tokio::time::sleep(UNTIL_CUT) => decide(context, Err(JobError::Stopped(stopped))),
                }
            }
        }
    }

    /// Writes the outcome, waiting out a database that is away for as long as the process may live.
    async fn record(&self, context: &Context, outcome: Outcome) -> bool {
        let too_late = async {
            self.cut.cancelled().await;
            tokio::time::sleep(RECORD_AFTER_CUT).await;
        };
        tokio::select! {
            recorded = self.record_in_the_end(context, outcome) => recorded,
            () = too_late => false,
        }
    }

    fn lost(&self, job: &job::Model, what: &'static str) {
        metrics::lease_lost(&job.kind);
        tracing::warn!(job = %job.id, kind = %job.kind, attempt = job.attempt, rescues = job.rescues,
            request = job.request_id, "{what}");
    }

    async fn record_in_the_end(&self, context: &Context, outcome: Outcome) -> bool {
        let held = context.lease.held;
        loop {
            if context.lease.certain().await.is_err() {
                self.lost(&context.job, "the lease was lost before the outcome was written");
                return true;
            }
            match self.recorder.record(held, outcome.clone()).await {
                Ok(true) => {
                    metrics::attempt_recorded(&context.job.kind, &outcome);
                    return true;
                }
                Ok(false) => {
                    self.lost(&context.job, "the lease was lost before the outcome was written");
                    return true;
                }
                Err(error) => {
                    tracing::warn!(job = %held.id, %error, "the outcome could not be written; trying again");
                    tokio::time::sleep(RECORD_PAUSE).await;
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A job's own code, on a thread of its own: one that blocks its thread, or never comes back, holds up neither its supervisor nor
/// any other job. A thread of the runtime would take the tasks that are queued behind it along. Dropping a body cuts it off at
/// its next await.
struct Body {
    running: JoinHandle<Result<Done, JobError>>,
    _cut: DropGuard,
}

impl Body {
    fn start(context: &Arc<Context>) -> Self {
        let (context, cut, runtime) = (Arc::clone(context), CancellationToken::new(), Handle::current());
        let until = cut.clone();
        let running = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = until.cancelled() => Err(JobError::retry("internal", "the job was cut off")),
                    result = kinds::run(&context) => result,
                }
            })
        });
        Self { running, _cut: cut.drop_guard() }
    }
}

fn flatten(result: Result<Result<Done, JobError>, tokio::task::JoinError>) -> Result<Done, JobError> {
    // a body's task is never aborted
    result.unwrap_or_else(|_| Err(JobError::retry("internal", "the job panicked")))
}

/// What becomes of a job whose attempt ended like this; `None` when it is no longer ours.
fn decide(context: &Context, result: Result<Done, JobError>) -> Option<Outcome> {
    let job = &context.job;
    Some(match result {
        Ok(Done::Succeeded) => Outcome::Ended { state: JobState::Succeeded, reason: None },
        Ok(Done::FannedOut(children)) => Outcome::FannedOut(children),
        Ok(Done::HandedOver(children)) => Outcome::HandedOver(children),
        Err(JobError::Retry { code, detail, after }) => {
            let reason = Reason { code, detail, permission: None };
            if job.attempt >= job.max_attempts {
                failed(reason)
            } else {
                let attempt = u32::try_from(job.attempt).unwrap_or(1);
                Outcome::Retry { reason, after: backoff::after(attempt, ids::jitter(), after) }
            }
        }
        Err(JobError::Snooze { waiting_for, after }) => Outcome::Snooze { waiting_for, after },
        Err(JobError::Fail { code, detail, permission }) => failed(Reason { code, detail, permission }),
        Err(JobError::Stopped(Stopped::LeaseLost)) => return None,
        Err(JobError::Stopped(Stopped::Canceled)) => Outcome::Ended { state: JobState::Canceled, reason: None },
        // one that is still paused rests
        Err(JobError::Stopped(Stopped::Paused | Stopped::Shutdown)) => Outcome::GivenBack,
        Err(JobError::Stopped(Stopped::DeadlineExceeded)) => failed(too_late(job)),
    })
}

fn failed(reason: Reason) -> Outcome {
    Outcome::Ended { state: JobState::Failed, reason: Some(reason) }
}
