//! Jobs: the one way that long work is done. Poll, wait, look into the scopes, cancel.

pub mod view;

pub use view::{JobView, ScopeView};

use super::Tag;
use crate::{
    answer::{Accepted, Found, UnderWay, any_match, etag},
    auth::{Caller, Permission, perm},
    error::{ApiError, Code},
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::JobState,
};
use keywright_entities::{job, scope::Scope, types};
use keywright_jobs::{
    audit::{Event, EventType},
    queue::{
        control::{self, Canceled},
        wait::{Until, Waiters},
    },
    setup::database::Database,
};
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, Select};
use std::time::Duration;
use uuid::Uuid;

/// The longest that a request may wait for a job, in seconds.
pub const MAX_WAIT: u64 = 60;

/// Jobs and the scopes of jobs.
pub struct JobsApi {
    pub database: Database,
    pub waiters: Waiters,
}

static JOBS: Sorting<job::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || job::Column::CreatedAt.into_expr(),
        nullable: false,
        read: |row| row.created_at.into(),
    }],
    default: "-createdAt",
    unique: SortKey { name: "id", column: || job::Column::Id.into_expr(), nullable: false, read: |row| row.id.into() },
};

static SCOPES: Sorting<job::Model> = Sorting {
    keys: &[
        SortKey {
            name: "region",
            column: || job::Column::ScopeRegion.into_expr(),
            nullable: true,
            read: |row| row.scope_region.clone().into(),
        },
        SortKey {
            name: "state",
            column: || job::Column::State.into_expr(),
            nullable: false,
            read: |row| row.state.as_str().to_owned().into(),
        },
        SortKey {
            name: "createdAt",
            column: || job::Column::CreatedAt.into_expr(),
            nullable: false,
            read: |row| row.created_at.into(),
        },
    ],
    default: "createdAt",
    unique: SortKey { name: "id", column: || job::Column::Id.into_expr(), nullable: false, read: |row| row.id.into() },
};

#[OpenApi(tag = "Tag::Jobs")]
impl JobsApi {
    /// List jobs, newest first
    ///
    /// Jobs that are parts of another job appear only with `parentId`.
    #[oai(path = "/api/jobs", method = "get", operation_id = "listJobs")]
    #[allow(clippy::too_many_arguments, reason = "one argument per documented parameter")]
    async fn list(
        &self,
        caller: Caller<perm::JobsRead>,
        list: ListParams,
        /// Only jobs of these kinds, e.g. `discovery.scan`.
        kind: Query<Option<Vec<String>>>,
        /// Only jobs in these states.
        state: Query<Option<Vec<JobState>>>,
        /// Only jobs that look at this subscription.
        subscription: Query<Option<Uuid>>,
        /// Only jobs created after this instant.
        #[oai(name = "createdAfter")]
        created_after: Query<Option<Timestamp>>,
        /// The parts of this job.
        #[oai(name = "parentId")]
        parent_id: Query<Option<Uuid>>,
        /// `createdAt` (default `-createdAt`).
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<JobView>>, ApiError> {
        let _ = sort;
        let mut select = visible(&caller.visible());
        select = match parent_id.0 {
            Some(parent) => select.filter(job::Column::ParentId.eq(parent)),
            None => select.filter(job::Column::ParentId.is_null()),
        };
        if let Some(kinds) = kind.0 {
            select = select.filter(job::Column::Kind.is_in(kinds));
        }
        if let Some(states) = state.0 {
            select = select.filter(job::Column::State.is_in(states.into_iter().map(types::JobState::from)));
        }
        if let Some(subscription) = subscription.0 {
            select = select.filter(of_subscription(subscription));
        }
        if let Some(after) = created_after.0 {
            select = select.filter(job::Column::CreatedAt.gt(after.0));
        }
        let slice = list.fetch(select, &JOBS, self.database.reader()).await?;
        let open = view::open_counts(self.database.reader(), &slice.rows).await?;
        Ok(Json(slice.into_page(|row| JobView::new(row, &open))))
    }

    /// Get a job, or wait for it
    ///
    /// `wait` with `If-None-Match` answers when the version moves, else 304; without it waits until the job is done, and at
    /// the end of the wait answers with the state so far.
    #[oai(path = "/api/jobs/:id", method = "get", operation_id = "getJob")]
    async fn get(
        &self,
        caller: Caller<perm::JobsRead>,
        id: Path<Uuid>,
        /// Seconds to wait at most.
        #[oai(validator(minimum(value = "0"), maximum(value = "60")))]
        wait: Query<Option<u64>>,
        /// The version that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<Found<JobView>, ApiError> {
        let mut job = self.find(&caller.visible(), id.0).await?;
        let until = match &if_none_match.0 {
            None => Some(Until::Done),
            Some(header) if any_match(header, &etag(job.version)) => Some(Until::VersionMoves(job.version)),
            // what the client has is old already
            Some(_) => None,
        };
        if let (Some(until), Some(seconds)) = (until, wait.0)
            && !job.state.is_done()
        {
            self.waiters.wait(job.id, until, Duration::from_secs(seconds)).await;
            job = self.find(&caller.visible(), id.0).await?;
        }
        let version = job.version;
        Ok(Found::at_version(version, if_none_match.0.as_deref(), self.view(job).await?))
    }

    /// List the scopes of a job
    #[oai(path = "/api/jobs/:id/scopes", method = "get", operation_id = "listJobScopes")]
    async fn scopes(
        &self,
        caller: Caller<perm::JobsRead>,
        id: Path<Uuid>,
        list: ListParams,
        /// Only scopes in these states.
        state: Query<Option<Vec<JobState>>>,
        /// `createdAt` (default), `region`, `state`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<ScopeView>>, ApiError> {
        let _ = sort;
        let job = self.find(&caller.visible(), id.0).await?;
        let mut select = job::Entity::find().filter(job::Column::ParentId.eq(job.id));
        if let Some(states) = state.0 {
            select = select.filter(job::Column::State.is_in(states.into_iter().map(types::JobState::from)));
        }
        Ok(Json(list.fetch(select, &SCOPES, self.database.reader()).await?.into_page(ScopeView::from)))
    }

    /// Cancel a job
    ///
    /// At once when it is queued, after the provider call that is under way otherwise. What was found is kept.
    #[oai(path = "/api/jobs/:id/cancel", method = "post", operation_id = "cancelJob")]
    async fn cancel(&self, caller: Caller<perm::JobsRead>, id: Path<Uuid>) -> Result<UnderWay<JobView>, ApiError> {
        let job = self.find(&caller.visible(), id.0).await?;
        if !caller.is_actor(job.requested_by_type, job.requested_by_id.as_deref()) {
            caller.require(Permission::JobsControl)?;
        }
        let write = self.database.begin().await?;
        let job = match control::cancel(&*write, job.id).await? {
            Canceled::NotFound => return Err(ApiError::not_found("job")),
            Canceled::Done(job) => return Err(done(&job)),
            Canceled::Already(job) => {
                write.rollback().await?;
                return Ok(UnderWay::job(location(job.id), self.view(job).await?));
            }
            Canceled::Accepted(job) => job,
        };
        Event::new(EventType::JobCanceled, caller.actor(), "job")
            .subject(job.id)
            .job(job.id)
            .request(crate::context::request_id())
            .write(&*write)
            .await?;
        write.commit().await?;
        Ok(UnderWay::job(location(job.id), self.view(job).await?))
    }
}

impl JobsApi {
    async fn find(&self, visible_to: &Scope, id: Uuid) -> Result<job::Model, ApiError> {
        let found = visible(visible_to).filter(job::Column::Id.eq(id)).one(self.database.reader()).await?;
        found.ok_or_else(|| ApiError::not_found("job"))
    }

    async fn view(&self, job: job::Model) -> Result<JobView, ApiError> {
        JobView::read(self.database.reader(), job).await
    }
}

/// Where clients find a job.
pub fn location(id: Uuid) -> String {
    format!("/api/jobs/{id}")
}

/// Answers a request that started or joined a job, honouring its `Prefer: wait`.
pub async fn accepted(
    database: &Database,
    waiters: &Waiters,
    mut job: job::Model,
    joined: bool,
    prefer: Option<&str>,
) -> Result<Accepted<JobView>, ApiError> {
    let wait = prefer.and_then(preferred_wait);
    if let Some(seconds) = wait
        && !job.state.is_done()
    {
        waiters.wait(job.id, Until::Done, Duration::from_secs(u64::from(seconds))).await;
        job = job::by_id(database.reader(), job.id).await?.unwrap_or(job);
    }
    let (at, done) = (location(job.id), job.state.is_done());
    let view = JobView::read(database.reader(), job).await?;
    Ok(match wait {
        Some(seconds) if done => Accepted::done(at, view, joined, seconds),
        _ => Accepted::job(at, view, joined, wait),
    })
}

/// The seconds of `Prefer: wait=N` (RFC 7240), at most [`MAX_WAIT`]; other preferences are not ours.
fn preferred_wait(prefer: &str) -> Option<u32> {
    prefer.split([',', ';']).find_map(|item| {
        let (name, value) = item.trim().split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse::<u64>().ok()?;
        let wanted = name.trim().eq_ignore_ascii_case("wait");
        wanted.then(|| u32::try_from(seconds.min(MAX_WAIT)).unwrap_or_default())
    })
}

fn done(job: &job::Model) -> ApiError {
    ApiError::new(Code::JobDone, format!("The job has ended already: it is {}.", job.state)).with_job_id(job.id)
}

/// Jobs of several subscriptions are seen by those who may see them all.
fn visible(to: &Scope) -> Select<job::Entity> {
    let select = job::Entity::find();
    match to {
        Scope::All => select,
        restricted => select.filter(restricted.on(job::Column::SubscriptionId)),
    }
}

/// A job of this subscription, or one with a part that is.
fn of_subscription(subscription: Uuid) -> Condition {
    use sea_orm::{QuerySelect, QueryTrait};
    let parents = job::Entity::find()
        .select_only()
        .column(job::Column::ParentId)
        .filter(job::Column::SubscriptionId.eq(subscription))
        .filter(job::Column::ParentId.is_not_null())
        .into_query();
    Condition::any().add(job::Column::SubscriptionId.eq(subscription)).add(job::Column::Id.in_subquery(parents))
}

#[cfg(test)]
mod tests {
    use super::preferred_wait;

    #[test]
    fn only_a_wait_is_honoured_and_at_most_a_minute() {
        for (header, seconds) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=5", Some(5)),
            ("Wait = \"7\"", Some(7)),
            ("wait=600", Some(60)),
            ("wait=0", Some(0)),
            ("wait=-1", None),
            ("wait", None),
            ("return=minimal", None),
        ] {
            assert_eq!(preferred_wait(header), seconds, "{header}");
        }
    }
}
