//! Jobs as they change: server-sent events (WHATWG HTML, 9.2) of one job, or of all that the caller may see.

mod follow;
mod wire;

pub use wire::{JobEvent, JobEventStream};

use super::find;
use crate::{
    auth::{Caller, perm, vigil::Vigil},
    error::ApiError,
    routes::Tag,
};
use follow::{Follow, Start};
use keywright_jobs::{
    queue::{
        events::Filter,
        feed::{Feed, Interest},
    },
    setup::database::Database,
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often things happen on a stream.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// The least time between two `progress` of one job.
    pub progress: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), progress: Duration::from_millis(500) }
    }
}

/// The streams of jobs.
pub struct JobEventsApi {
    pub database: Database,
    pub feed: Feed,
    pub vigil: Vigil,
    pub pace: Pace,
    /// Ends every stream.
    pub draining: CancellationToken,
}

#[derive(ApiResponse)]
pub enum OfJob {
    /// The stream. It ends after `end`.
    #[oai(status = 200)]
    Stream(JobEventStream),
    /// The job has ended, and `Last-Event-ID` is its `end` or comes after it: there is nothing to come back for.
    #[oai(status = 204)]
    Over,
}

#[derive(ApiResponse)]
pub enum OfJobs {
    /// The stream.
    #[oai(status = 200)]
    Stream(JobEventStream),
}

#[OpenApi(tag = "Tag::Jobs")]
impl JobEventsApi {
    /// Follow a job
    ///
    /// Server-sent events: `state`, `scope` (a part of the job changed) and `end` have ids and come again after `Last-Event-ID`;
    /// without it the stream begins with the job's first event. `progress` is the latest only. Where events that are no longer
    /// kept were missed, `reset` comes first; after it, or where the job's beginning is not kept, the job as it is now. The data
    /// of each is a `JobEvent`. Comments are heartbeats. The answer is `text/event-stream` whatever `Accept` says.
    #[oai(path = "/api/jobs/:id/events", method = "get", operation_id = "followJob")]
    async fn of_job(
        &self,
        caller: Caller<perm::JobsRead>,
        id: Path<Uuid>,
        /// The id of the last event that the client has, of this stream or any other.
        #[oai(name = "Last-Event-ID", validator(minimum(value = "0")))]
        last_event_id: Header<Option<u64>>,
    ) -> Result<OfJob, ApiError> {
        let job = find(&self.database, &caller.visible(), id.0).await?;
        let interest = Interest::Job { id: job.id, parent: job.parent_id };
        let mut follow = self.follow(&caller, interest).await?;
        match follow.begin_with_job(&self.database, &job, last(last_event_id)).await? {
            Start::Over => Ok(OfJob::Over),
            Start::Open => Ok(OfJob::Stream(JobEventStream::new(follow))),
        }
    }

    /// Follow all jobs
    ///
    /// Server-sent events as with one job, of every job that the caller may see, with its parts as `scope`; from now on, or after
    /// `Last-Event-ID`. It does not end by itself. After `reset` the client reads anew what it needs.
    #[oai(path = "/api/events", method = "get", operation_id = "followJobs")]
    async fn of_jobs(
        &self,
        caller: Caller<perm::JobsRead>,
        /// Only jobs of these kinds, e.g. `discovery.scan`.
        kind: Query<Option<Vec<String>>>,
        /// Only jobs that look at this subscription, and only those of their scopes that do.
        subscription: Query<Option<Uuid>>,
        /// The id of the last event that the client has.
        #[oai(name = "Last-Event-ID", validator(minimum(value = "0")))]
        last_event_id: Header<Option<u64>>,
    ) -> Result<OfJobs, ApiError> {
        let filter = Filter { kinds: kind.0, subscription: subscription.0, visible: caller.visible() };
        let mut follow = self.follow(&caller, Interest::Jobs(filter)).await?;
        follow.begin(last(last_event_id)).await?;
        Ok(OfJobs::Stream(JobEventStream::new(follow)))
    }
}

impl JobEventsApi {
    async fn follow(&self, caller: &Caller<perm::JobsRead>, interest: Interest) -> Result<Follow, ApiError> {
        let watched = self.vigil.watch::<perm::JobsRead>(caller);
        Follow::new(self.feed.clone(), interest, watched, self.pace, self.draining.clone()).await
    }
}

/// Events are numbered far below what does not fit.
fn last(header: Header<Option<u64>>) -> Option<i64> {
    header.0.map(|id| i64::try_from(id).unwrap_or(i64::MAX))
}
