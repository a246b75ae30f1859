//! What people ask of a job: that it ends, rests, goes on, or is done again.

use super::{JobView, Waiting, find, location};
use crate::{
    answer::{Accepted, UnderWay},
    auth::{Caller, Permission, perm},
    context,
    error::{ApiError, Code},
    idempotency::{Begun, Made, Once},
    routes::Tag,
};
use keywright_entities::job;
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    kinds::{self, Again, RetryRefused},
    queue::{
        Requester,
        control::{self, Canceled, Steered},
        wait::Waiters,
    },
    setup::database::{Database, Written},
};
use poem_openapi::{
    Enum, Object, OpenApi,
    param::{Header, Path},
    payload::Json,
    types::Example,
};
use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

/// Canceling, pausing, resuming and retrying jobs.
pub struct JobControlApi {
    pub database: Database,
    pub waiters: Waiters,
}

/// What of a job is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum RetryScope {
    /// The scopes that failed, were denied or canceled.
    Failed,
    /// Everything.
    All,
}

#[derive(Debug, Object)]
#[oai(example)]
pub struct RetryJob {
    pub scope: RetryScope,
}

impl Example for RetryJob {
    fn example() -> Self {
        Self { scope: RetryScope::Failed }
    }
}

#[OpenApi(tag = "Tag::Jobs")]
impl JobControlApi {
    /// Cancel a job
    ///
    /// At once when it is queued, after the provider call that is under way otherwise. What was found is kept.
    #[oai(path = "/api/jobs/:id/cancel", method = "post", operation_id = "cancelJob")]
    async fn cancel(&self, caller: Caller<perm::JobsRead>, id: Path<Uuid>) -> Result<UnderWay<JobView>, ApiError> {
        self.steer(&caller, id.0, Wish::End).await
    }

    /// Pause a job
    ///
    /// It rests until it is resumed: at once when it is queued, before its next provider call otherwise. Its parts rest with
    /// it. The attempt is not counted, and the deadline moves by the time that it rested.
    #[oai(path = "/api/jobs/:id/pause", method = "post", operation_id = "pauseJob")]
    async fn pause(&self, caller: Caller<perm::JobsRead>, id: Path<Uuid>) -> Result<UnderWay<JobView>, ApiError> {
        self.steer(&caller, id.0, Wish::Rest).await
    }

    /// Resume a paused job
    #[oai(path = "/api/jobs/:id/resume", method = "post", operation_id = "resumeJob")]
    async fn resume(&self, caller: Caller<perm::JobsRead>, id: Path<Uuid>) -> Result<UnderWay<JobView>, ApiError> {
        self.steer(&caller, id.0, Wish::GoOn).await
    }

    /// Do an ended job again, or what of it failed
    ///
    /// Makes a new job whose `retryOf` is this one; asked again while that is under way, answers with it.
    #[oai(path = "/api/jobs/:id/retry", method = "post", operation_id = "retryJob")]
    async fn retry(
        &self,
        caller: Caller<perm::JobsRead>,
        id: Path<Uuid>,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        once: Once,
        body: Json<RetryJob>,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        let job = self.controlled(&caller, id.0).await?;
        let again = match body.0.scope {
            RetryScope::Failed => Again::Failed,
            RetryScope::All => Again::All,
        };
        let waiting = Waiting {
            waiters: &self.waiters,
            database: &self.database,
            visible: caller.visible(),
            prefer: prefer.0.as_deref(),
        };
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(waiting.replayed(replay).await),
        };
        match kinds::retry(&write, &caller.visible(), requester(&caller), &job, again).await {
            Ok(begun) => waiting.accepted(write, begun).await,
            Err(refusal) => write.refused(not_again(&job, refusal)).await,
        }
    }
}

impl JobControlApi {
    /// The job, if the caller may see it and started it or may control what others started.
    async fn controlled(&self, caller: &Caller<perm::JobsRead>, id: Uuid) -> Result<job::Model, ApiError> {
        let job = find(&self.database, &caller.visible(), id).await?;
        if !caller.is_actor(job.requested_by_type, job.requested_by_id.as_deref()) {
            caller.require(Permission::JobsControl)?;
        }
        Ok(job)
    }

    async fn steer(
        &self,
        caller: &Caller<perm::JobsRead>,
        id: Uuid,
        wish: Wish,
    ) -> Result<UnderWay<JobView>, ApiError> {
        let id = self.controlled(caller, id).await?.id;
        let actor = caller.actor();
        let event = Event::new(wish.event(), actor.clone(), "job").subject(id).job(id).request(context::request_id());
        let came_of_it = self.database.write(|write| {
            let (event, actor) = (event.clone(), actor.clone());
            Box::pin(async move {
                let steered = wish.of(&**write, id, actor).await?;
                if !matches!(steered, Came::Of(Steered::Accepted(_))) {
                    return Ok(Written::Nothing(steered));
                }
                event.write(&**write).await?;
                Ok(Written::Kept(steered))
            })
        });
        match came_of_it.await? {
            Came::Of(Steered::NotFound) => Err(ApiError::not_found("job")),
            Came::Of(Steered::Done(job)) => Err(done(&job)),
            Came::Of(Steered::Already(job) | Steered::Accepted(job)) => self.under_way(job).await,
            Came::TooLate(job) => Err(ApiError::new(
                Code::PastPointOfNoReturn,
                "The new credential is already the current one, so that canceling would not bring the former one back: roll the \
                 rotation back instead.",
            )
            .with_job_id(job.id)),
        }
    }

    async fn under_way(&self, job: job::Model) -> Result<UnderWay<JobView>, ApiError> {
        let at = location(job.id);
        Ok(UnderWay::job(at, JobView::read(self.database.reader(), job).await?))
    }
}

/// What somebody wants of a job that is under way.
#[derive(Clone, Copy)]
enum Wish {
    End,
    Rest,
    GoOn,
}

impl Wish {
    fn event(self) -> EventType {
        match self {
            Self::End => EventType::JobCanceled,
            Self::Rest => EventType::JobPaused,
            Self::GoOn => EventType::JobResumed,
        }
    }

    async fn of(self, db: &impl ConnectionTrait, job: Uuid, actor: Actor) -> Result<Came, DbErr> {
        match self {
            Self::End => kinds::cancel(db, job, actor).await.map(|canceled| match canceled {
                Canceled::NotFound => Came::Of(Steered::NotFound),
                Canceled::Done(job) => Came::Of(Steered::Done(job)),
                Canceled::Accepted(job) => Came::Of(Steered::Accepted(job)),
                Canceled::Already(job) => Came::Of(Steered::Already(job)),
                Canceled::PastPointOfNoReturn(job) => Came::TooLate(job),
            }),
            Self::Rest => control::pause(db, job).await.map(Came::Of),
            Self::GoOn => control::resume(db, job).await.map(Came::Of),
        }
    }
}

/// What came of it.
enum Came {
    Of(Steered),
    /// A rotation that cannot be canceled any more.
    TooLate(job::Model),
}

/// Who asks for a job over HTTP.
pub fn requester<P>(caller: &Caller<P>) -> Requester {
    let actor = caller.actor();
    Requester {
        actor: actor.actor_type,
        id: actor.id,
        name: actor.name,
        request_id: Some(context::request_id()).filter(|id| !id.is_empty()),
        traceparent: context::traceparent(),
    }
}

fn done(job: &job::Model) -> ApiError {
    ApiError::new(Code::JobDone, format!("The job has ended already: it is {}.", job.state)).with_job_id(job.id)
}

fn not_again(job: &job::Model, refused: RetryRefused) -> ApiError {
    match refused {
        RetryRefused::UnderWay => {
            ApiError::conflict("The job has not ended: wait for its end, or cancel it first.").with_job_id(job.id)
        }
        RetryRefused::NothingFailed => {
            let detail = "No scope of it failed, was denied or was canceled; to do it all again send scope=all.";
            ApiError::new(Code::NothingToRetry, detail).with_job_id(job.id)
        }
        RetryRefused::Gone => {
            let detail = "What it was about is there no more: its subscriptions were deleted or switched off.";
            ApiError::new(Code::NothingToRetry, detail).with_job_id(job.id)
        }
        RetryRefused::Database(error) => error.into(),
    }
}
