//! What the system can be asked to do: one file per kind of job, and here the list of them.

pub mod audit;
pub mod discovery;
pub mod evidence;
pub mod noop;
pub mod rotation;
pub mod subscription;

use self::audit::VerifyLog;
use crate::{
    approvals,
    audit::{Actor, Event, EventType},
    context::Context,
    domain::permissions::Permission,
    job::{Done, Job, JobError},
    queue::{
        Enqueued, Requester,
        control::{self, Canceled},
    },
    rotation as rotations,
    setup::database::Write,
};
use discovery::{request::ScanRequest, scan::Scan, scope::ScopeListing};
use evidence::BuildPackage;
use keywright_entities::{
    job,
    scope::Scope,
    types::{JobState, Outcome, Trigger, WaitingFor},
};
use rotation::{apply::Apply, plan::Plan};
use sea_orm::{ConnectionTrait, DbErr};
use serde::Deserialize;
use serde_json::Value;
use subscription::{accounts::AccountsListing, test::Test};
use thiserror::Error;
use uuid::Uuid;

/// Every kind that this program runs.
pub const KINDS: &[&str] = &[
    Scan::KIND,
    ScopeListing::KIND,
    Test::KIND,
    AccountsListing::KIND,
    BuildPackage::KIND,
    VerifyLog::KIND,
    Plan::KIND,
    Apply::KIND,
    #[cfg(feature = "bench")]
    noop::Noop::KIND,
];

/// The newest payload version of any kind that this program reads.
pub const PAYLOAD_VERSION: i32 = 1;

/// What a schedule may start, and the permission that its owner must have for it; `None` for what it may not.
pub fn start_permission(kind: &str) -> Option<Permission> {
    match kind {
        Scan::KIND => Some(Permission::JobsStart),
        _ => None,
    }
}

/// Why a request that nobody waits for was refused.
#[derive(Debug, Error)]
pub enum StartRefused {
    #[error("{code}: {detail}")]
    Reason {
        /// Stable, as clients would be answered.
        code: &'static str,
        detail: String,
        /// The job that is in the way.
        job: Option<Uuid>,
    },
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Starts a job of this kind in the caller's transaction, as the kind's own request with this body would. A refusal has
/// written nothing.
pub async fn start(
    write: &Write,
    kind: &str,
    visible: &Scope,
    requester: Requester,
    body: &Value,
) -> Result<Enqueued, StartRefused> {
    match kind {
        Scan::KIND => {
            let request = ScanRequest::from_body(body).map_err(|error| StartRefused::Reason {
                code: "validation_failed",
                detail: format!("The body is none of a scan's requests any more: {error}"),
                job: None,
            })?;
            Ok(discovery::request::scan(write, visible, requester, Trigger::Schedule, request).await?)
        }
        other => Err(StartRefused::Reason {
            code: "unknown_kind",
            detail: format!("This version starts no {other} for schedules."),
            job: None,
        }),
    }
}

/// The subscriptions that a job looks at, where its row does not name the one; none when it is about none.
pub fn subscriptions(kind: &str, payload: &Value) -> Vec<Uuid> {
    match kind {
        Scan::KIND | BuildPackage::KIND => {
            payload.get("subscriptions").and_then(|ids| Vec::deserialize(ids).ok()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// Runs the claimed job.
pub async fn run(context: &Context) -> Result<Done, JobError> {
    match context.job.kind.as_str() {
        Scan::KIND => decoded::<Scan>(context)?.run(context).await,
        ScopeListing::KIND => decoded::<ScopeListing>(context)?.run(context).await,
        Test::KIND => decoded::<Test>(context)?.run(context).await,
        AccountsListing::KIND => decoded::<AccountsListing>(context)?.run(context).await,
        BuildPackage::KIND => decoded::<BuildPackage>(context)?.run(context).await,
        VerifyLog::KIND => decoded::<VerifyLog>(context)?.run(context).await,
        Plan::KIND => decoded::<Plan>(context)?.run(context).await,
        Apply::KIND => decoded::<Apply>(context)?.run(context).await,
        #[cfg(feature = "bench")]
        noop::Noop::KIND => decoded::<noop::Noop>(context)?.run(context).await,
        other => Err(JobError::fail("unknown_kind", format!("this worker does not know jobs of kind {other}"))),
    }
}

/// What of an ended job is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The parts that failed, were denied or canceled.
    Failed,
    All,
}

impl Again {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::All => "all",
        }
    }
}

/// Why a job is not done again.
#[derive(Debug, Error)]
pub enum RetryRefused {
    #[error("the job has not ended")]
    UnderWay,
    #[error("nothing of it failed")]
    NothingFailed,
    #[error("nothing of what it was about is there any more")]
    Gone,
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Begins, in the caller's transaction, a new job that does an ended one again, or joins the one that does so already. A refusal has
/// written nothing.
///
/// # Errors
/// [`RetryRefused`]; also for kinds that are never asked for by themselves ([`RetryRefused::Gone`]).
pub async fn retry(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    of: &job::Model,
    again: Again,
) -> Result<Enqueued, RetryRefused> {
    if !of.state.is_done() {
        return Err(RetryRefused::UnderWay);
    }
    match of.kind.as_str() {
        BuildPackage::KIND => evidence::request::retry(write, visible, requester, of).await,
        VerifyLog::KIND => self::audit::retry(write, requester, of).await,
        Scan::KIND | ScopeListing::KIND => discovery::retry::retry(write, visible, requester, of, again).await,
        Test::KIND | AccountsListing::KIND => subscription::request::retry(write, visible, requester, of, again).await,
        Plan::KIND | Apply::KIND => rotation::request::retry(write, visible, requester, of, again).await,
        _ => Err(RetryRefused::Gone),
    }
}

/// The audit log names the first start of each top-level job, in the transaction of the claim: an attempt may be lost, or given
/// back, before it wrote anything itself.
pub async fn started(db: &impl ConnectionTrait, claimed: &[job::Model]) -> Result<(), DbErr> {
    // both are the claim's own instant only the first time
    let first = claimed.iter().filter(|job| job.parent_id.is_none() && job.started_at == job.heartbeat_at);
    Event::write_all(first.map(|job| event(EventType::JobStarted, job)), db).await
}

/// What it means beyond its own row that a job waits, in the transaction that lets go of it. `true`: there is something to do for
/// it already.
pub async fn waits(db: &impl ConnectionTrait, job: Uuid, waiting_for: WaitingFor) -> Result<bool, DbErr> {
    match waiting_for {
        WaitingFor::Quota => discovery::coverage::throttled(db, job).await.map(|()| false),
        WaitingFor::Snooze | WaitingFor::Human => rotations::asked::asked_meanwhile(db, job).await,
        _ => Ok(false),
    }
}

/// Whether and how the end of a job under way can be asked for, in the caller's transaction.
pub async fn cancel(db: &impl ConnectionTrait, id: Uuid, actor: Actor) -> Result<Canceled, DbErr> {
    let kind = job::by_id(db, id).await?.map(|job| job.kind);
    if kind.as_deref() == Some(Apply::KIND)
        && let Some(job) = control::held_still(db, id).await?
        && !job.state.is_done()
    {
        match rotations::asked::cancel(db, &job, actor).await? {
            rotations::asked::Canceled::ByQueue => {}
            rotations::asked::Canceled::GoesBack => {
                return Ok(Canceled::Accepted(job::by_id(db, id).await?.unwrap_or(job)));
            }
            rotations::asked::Canceled::Already => return Ok(Canceled::Already(job)),
            rotations::asked::Canceled::Refused(_) => return Ok(Canceled::PastPointOfNoReturn(job)),
        }
    }
    control::cancel(db, id).await
}

/// What the ends of jobs mean beyond their own rows, in the transaction that ends them.
pub async fn ended(db: &impl ConnectionTrait, jobs: &[job::Model]) -> Result<(), DbErr> {
    for job in jobs.iter().filter(|job| job.kind == Scan::KIND) {
        discovery::scan::ended(db, job).await?;
    }
    for job in jobs.iter().filter(|job| job.kind == ScopeListing::KIND) {
        discovery::coverage::ended(db, job).await?;
    }
    for job in jobs.iter().filter(|job| job.kind == Apply::KIND) {
        rotations::ended::ended(db, job).await?;
    }
    approvals::jobs_ended(db, jobs).await?;
    let events = jobs.iter().filter(|job| job.parent_id.is_none()).map(|job| {
        let outcome = if job.state == JobState::Failed { Outcome::Failure } else { Outcome::Success };
        event(EventType::JobEnded, job)
            .outcome(outcome)
            .detail("state", job.state.as_str())
            .detail("error", job.error_code.clone())
    });
    Event::write_all(events, db).await
}

fn event(event_type: EventType, job: &job::Model) -> Event {
    Event::new(event_type, Actor::SYSTEM, "job")
        .subject(job.id)
        .job(job.id)
        .request(job.request_id.clone().unwrap_or_default())
        .detail("kind", job.kind.as_str())
}

/// A payload that cannot be read fails its job and nothing else.
fn decoded<J: Job>(context: &Context) -> Result<J, JobError> {
    serde_json::from_value(context.job.payload.clone()).map_err(|error| {
        let version = context.job.payload_version;
        JobError::fail("payload_invalid", format!("the payload (version {version}) cannot be read: {error}"))
    })
}
