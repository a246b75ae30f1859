//! What clients see of an event, and how it stands in the stream.

use super::follow::Follow;
use crate::{
    routes::jobs::{
        JobView, ScopeView,
        view::{self, Counts, JobFailure, Progress, Scopes},
    },
    timestamp::Timestamp,
    wire::{JobState, WaitingFor},
};
use futures::stream::{self, BoxStream, StreamExt};
use keywright_entities::job_event;
use keywright_jobs::queue::feed;
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    Enum, Object,
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ToJSON, Type},
};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// A comment.
pub(super) const HEARTBEAT: &str = ":\n\n";

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum JobEventType {
    /// The job is in another state, or waits for something else.
    State,
    /// The same of one of its scopes.
    Scope,
    /// The job has ended.
    End,
    /// How far it has come.
    Progress,
    /// Events are missing that are no longer kept.
    Reset,
}

impl JobEventType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Scope => "scope",
            Self::End => "end",
            Self::Progress => "progress",
            Self::Reset => "reset",
        }
    }
}

/// The data of an event.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct JobEvent {
    /// The same as the `event` of the stream.
    #[oai(rename = "type")]
    pub event_type: JobEventType,
    /// Null only in a `reset` of all jobs.
    pub job: Option<Uuid>,
    /// The job's kind.
    pub kind: Option<String>,
    /// When it happened; null for `progress` and `reset`.
    pub at: Option<Timestamp>,
    /// The job's; null for `scope`.
    pub state: Option<JobState>,
    pub waiting_for: Option<WaitingFor>,
    pub attempt: Option<i32>,
    pub rescues: Option<i32>,
    /// The job's version then; null for `scope`.
    pub version: Option<i64>,
    /// Of a job that is under way only in `progress`.
    pub counts: Option<Counts>,
    /// How many scopes stand where.
    pub scopes: Option<Scopes>,
    /// Only in `progress`.
    pub progress: Option<Progress>,
    /// Only in `scope`: the scope as it is then.
    pub scope: Option<ScopeView>,
    /// Why the job failed, or why its last attempt did.
    pub error: Option<JobFailure>,
}

impl JobEvent {
    fn new(event_type: JobEventType) -> Self {
        Self {
            event_type,
            job: None,
            kind: None,
            at: None,
            state: None,
            waiting_for: None,
            attempt: None,
            rescues: None,
            version: None,
            counts: None,
            scopes: None,
            progress: None,
            scope: None,
            error: None,
        }
    }

    /// As it stands in the stream of `followed`, or of all jobs.
    pub(super) fn of(event: &job_event::Model, followed: Option<Uuid>) -> Self {
        let about = |event_type| Self { at: Some(event.at.into()), ..Self::new(event_type) };
        let counts = event.counts.as_ref().map(Counts::from).unwrap_or_default();
        let error = event.error_code.clone().map(|code| JobFailure {
            code,
            detail: event.error_detail.clone().unwrap_or_default(),
            required_permission: event.error_permission.clone(),
        });
        if event.job_id != event.owner_id && followed != Some(event.job_id) {
            let scope = ScopeView {
                id: event.job_id,
                subscription: event.subscription_id,
                region: event.scope_region.clone(),
                kind: event.scope_kind.clone(),
                state: event.state.into(),
                attempt: event.attempt,
                rescues: event.rescues,
                counts,
                reason: error,
            };
            let (job, kind) = (Some(event.owner_id), Some(event.kind.clone()));
            return Self { job, kind, scope: Some(scope), ..about(JobEventType::Scope) };
        }
        let done = event.state.is_done();
        Self {
            job: Some(event.job_id),
            kind: Some(event.kind.clone()),
            state: Some(event.state.into()),
            waiting_for: event.waiting_for.map(Into::into),
            attempt: Some(event.attempt),
            rescues: Some(event.rescues),
            version: Some(event.version),
            counts: done.then_some(counts),
            scopes: view::event_scopes(&event.kind, event.scopes.as_ref()),
            error,
            ..about(if done { JobEventType::End } else { JobEventType::State })
        }
    }

    /// A job as it is now, where the events that led there are not kept.
    pub(super) fn as_it_is(job: JobView) -> Self {
        Self {
            job: Some(job.id),
            kind: Some(job.kind),
            at: job.completed_at.or(job.started_at).or(Some(job.created_at)),
            state: Some(job.state),
            waiting_for: job.waiting_for,
            attempt: Some(job.attempt),
            rescues: Some(job.rescues),
            version: Some(job.version),
            counts: job.done.then_some(job.counts),
            scopes: job.scopes,
            error: job.error,
            ..Self::new(if job.done { JobEventType::End } else { JobEventType::State })
        }
    }

    /// `None` for a job that tells of none.
    pub(super) fn progress(progress: &feed::Progress) -> Option<Self> {
        let job = &progress.job;
        let open: HashMap<_, _> = progress.open.iter().map(|counts| (job.id, counts.clone())).collect();
        let job = JobView::new(job.clone(), &open);
        Some(Self {
            progress: Some(job.progress?),
            job: Some(job.id),
            kind: Some(job.kind),
            state: Some(job.state),
            waiting_for: job.waiting_for,
            attempt: Some(job.attempt),
            rescues: Some(job.rescues),
            version: Some(job.version),
            counts: Some(job.counts),
            scopes: job.scopes,
            ..Self::new(JobEventType::Progress)
        })
    }

    pub(super) fn reset(job: Option<&JobView>) -> Self {
        let (id, kind) = (job.map(|job| job.id), job.map(|job| job.kind.clone()));
        Self { job: id, kind, ..Self::new(JobEventType::Reset) }
    }

    pub(super) fn ends(&self) -> bool {
        self.event_type == JobEventType::End
    }
}

/// An event as it stands in the stream. JSON has no line breaks.
pub(super) fn frame(id: Option<i64>, event: &JobEvent) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {}\ndata: {}\n\n", event.event_type.as_str(), event.to_json_string())
}

/// Tells the client when to come again.
pub(super) fn retry(after: Duration) -> String {
    format!("retry: {}\n\n", after.as_millis())
}

/// A stream of events.
pub struct JobEventStream(BoxStream<'static, String>);

impl JobEventStream {
    pub(super) fn new(follow: Follow) -> Self {
        let frames = stream::unfold(follow, async |mut follow| Some((follow.next().await?, follow)));
        Self(frames.boxed())
    }
}

impl Payload for JobEventStream {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        let items = Some(Box::new(JobEvent::schema_ref()));
        MetaSchemaRef::Inline(Box::new(MetaSchema { items, ..MetaSchema::new_with_format("array", "event-stream") }))
    }

    fn register(registry: &mut Registry) {
        JobEvent::register(registry);
    }
}

impl IntoResponse for JobEventStream {
    fn into_response(self) -> Response {
        let body = Body::from_bytes_stream(self.0.map(Ok::<_, std::io::Error>));
        // a proxy must not hold back what comes now and then
        Response::builder().content_type(Self::CONTENT_TYPE).header("X-Accel-Buffering", "no").body(body)
    }
}
