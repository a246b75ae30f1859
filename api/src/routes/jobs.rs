//! Jobs: the one way that long work is done. Poll, wait, look into the scopes; `control` has what people ask of them, `events` the streams.

pub mod control;
pub mod events;
pub mod report;
pub mod view;

pub use view::{JobView, ScopeView};

use super::Tag;
use crate::{
    answer::{Accepted, Found, Joinable, any_match, etag},
    auth::{Caller, perm},
    error::ApiError,
    idempotency::{Made, Making, Replay},
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::JobState,
};
use keywright_entities::{evidence_package, job, scan, scope::Scope, types};
use keywright_jobs::{
    queue::{
        Enqueued,
        wait::{Until, Waiters},
    },
    setup::database::{Database, Write},
};
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sea_orm::{ColumnTrait, Condition, DbBackend, EntityTrait, QueryFilter, Select};
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
        let mut select = visible(self.database.backend(), &caller.visible());
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
        Ok(Found::at_version(version, if_none_match.0.as_deref(), self.view(job, &caller.visible()).await?))
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
}

impl JobsApi {
    async fn find(&self, visible_to: &Scope, id: Uuid) -> Result<job::Model, ApiError> {
        find(&self.database, visible_to, id).await
    }

    async fn view(&self, job: job::Model, visible_to: &Scope) -> Result<JobView, ApiError> {
        let db = self.database.reader();
        JobView::read(db, job).await?.with_report(db, visible_to).await
    }
}

/// Where clients find a job.
pub fn location(id: Uuid) -> String {
    format!("/api/jobs/{id}")
}

/// How a request that starts a job is answered: with the job, after its `Prefer: wait`.
pub struct Waiting<'a> {
    pub waiters: &'a Waiters,
    pub database: &'a Database,
    /// What the caller may see.
    pub visible: Scope,
    /// The request's `Prefer`.
    pub prefer: Option<&'a str>,
}

impl Waiting<'_> {
    /// Makes the job durable and answers with it. The answer that is kept is that of a request without a wait.
    pub async fn accepted(&self, write: Making, enqueued: Enqueued) -> Result<Made<Accepted<JobView>>, ApiError> {
        let (job, joined) = parts(enqueued);
        let id = job.id;
        let view = JobView::read(&**write, job).await?;
        let made = write.commit(Accepted::job(location(id), view, joined, None)).await?;
        Ok(self.wait(made, id, joined).await)
    }

    /// The same where `Idempotency-Key` is ignored, because asking again joins what is under way.
    pub async fn joinable(&self, write: Write, enqueued: Enqueued) -> Result<Joinable<JobView>, ApiError> {
        let (job, joined) = parts(enqueued);
        let id = job.id;
        let view = JobView::read(&*write, job).await?;
        write.commit().await?;
        let now = self.by_now(id, joined).await;
        Ok(now.unwrap_or_else(|| Accepted::job(location(id), view, joined, None)).joinable())
    }

    /// Answers again, waiting afresh when this request asks for it.
    pub async fn replayed(&self, replay: Replay) -> Made<Accepted<JobView>> {
        let id = replay.member("id").and_then(|id| id.as_str()?.parse().ok());
        let joined = replay.has_header("Keywright-Deduplicated");
        let made = replay.stored();
        match id {
            Some(id) => self.wait(made, id, joined).await,
            None => made,
        }
    }

    async fn wait(&self, made: Made<Accepted<JobView>>, id: Uuid, joined: bool) -> Made<Accepted<JobView>> {
        match self.by_now(id, joined).await {
            Some(now) => made.gone_on(now),
            None => made,
        }
    }

    /// How the job stands after the wait, if there is one. The job is durable by now: a database that goes away meanwhile must not
    /// turn that into a refusal.
    async fn by_now(&self, id: Uuid, joined: bool) -> Option<Accepted<JobView>> {
        let seconds = self.prefer.and_then(preferred_wait)?;
        self.waiters.wait(id, Until::Done, Duration::from_secs(u64::from(seconds))).await;
        let db = self.database.reader();
        let job = job::by_id(db, id).await.ok()??;
        let done = job.state.is_done();
        let view = JobView::read(db, job).await.ok()?.with_report(db, &self.visible).await.ok()?;
        Some(if done {
            Accepted::done(location(id), view, joined, seconds)
        } else {
            Accepted::job(location(id), view, joined, Some(seconds))
        })
    }
}

/// The job, and whether it was there already.
fn parts(enqueued: Enqueued) -> (job::Model, bool) {
    match enqueued {
        Enqueued::New(job) => (job, false),
        Enqueued::Open(job) => (job, true),
    }
}

/// The seconds of `Prefer: wait=N` (RFC 7240), at most [`MAX_WAIT`]; other preferences are not ours.
pub fn preferred_wait(prefer: &str) -> Option<u32> {
    prefer.split([',', ';']).find_map(|item| {
        let (name, value) = item.trim().split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse::<u64>().ok()?;
        let wanted = name.trim().eq_ignore_ascii_case("wait");
        wanted.then(|| u32::try_from(seconds.min(MAX_WAIT)).unwrap_or_default())
    })
}

/// The job of this id, if the caller may see it.
async fn find(database: &Database, visible_to: &Scope, id: Uuid) -> Result<job::Model, ApiError> {
    let found = visible(database.backend(), visible_to).filter(job::Column::Id.eq(id)).one(database.reader()).await?;
    found.ok_or_else(|| ApiError::not_found("job"))
}

/// A job of several subscriptions is seen by those who may see them all.
fn visible(backend: DbBackend, to: &Scope) -> Select<job::Entity> {
    use sea_orm::{QuerySelect, QueryTrait};
    if *to == Scope::All {
        return job::Entity::find();
    }
    let scans = scan::Entity::find()
        .select_only()
        .column(scan::Column::Id)
        .filter(to.on_all_of(backend, scan::Column::Subscriptions.into_expr()));
    let packages = evidence_package::visible(backend, to).select_only().column(evidence_package::Column::Id);
    let among = |ids: sea_orm::sea_query::SelectStatement| job::Column::Id.in_subquery(ids);
    let seen = Condition::any().add(to.on(job::Column::SubscriptionId));
    job::Entity::find().filter(seen.add(among(scans.into_query())).add(among(packages.into_query())))
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
