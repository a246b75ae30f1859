//! What clients see of a job.

use super::report::{AccountView, TestView};
use crate::{
    error::ApiError,
    timestamp::Timestamp,
    wire::{ActorType, JobState, Priority, Trigger, WaitingFor},
};
use keywright_entities::{job, types};
use keywright_jobs::{
    job::Job,
    kinds::{
        audit::VerifyLog,
        discovery::scan::Scan,
        evidence::BuildPackage,
        rotation::{apply::Apply, plan::Plan},
        subscription::{accounts::AccountsListing, test::Test},
    },
    queue::{outcome::sum_counts, overview},
};
use poem_openapi::{Object, types::Any};
use sea_orm::ConnectionTrait;
use serde_json::Value as Json;
use std::collections::HashMap;
use uuid::Uuid;

/// Work that is done, under way or to be done.
#[derive(Debug, Object)]
#[oai(rename = "Job", rename_all = "camelCase")]
pub struct JobView {
    pub id: Uuid,
    /// What it does, e.g. `discovery.scan`. Never renamed.
    pub kind: String,
    pub state: JobState,
    /// It has ended: succeeded, partial, failed or canceled.
    pub done: bool,
    /// Set exactly while it is `waiting`.
    pub waiting_for: Option<WaitingFor>,
    pub created_at: Timestamp,
    /// The earliest start.
    pub run_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// When its worker was last heard of.
    pub heartbeat_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub next_attempt_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    pub priority: Priority,
    /// Runs that ended by the job's own error, plus the running one.
    pub attempt: i32,
    pub max_attempts: i32,
    /// How often another worker took over because the one before was lost.
    pub rescues: i32,
    pub progress: Option<Progress>,
    /// What it found so far.
    pub counts: Counts,
    /// Null for kinds without scopes.
    pub scopes: Option<Scopes>,
    pub error: Option<JobFailure>,
    pub result: Option<JobResult>,
    /// The request as it was made, without anything secret.
    pub request: Any<Json>,
    pub requested_by: RequestedBy,
    pub trigger: Trigger,
    pub retry_of: Option<Uuid>,
    pub parent_id: Option<Uuid>,
    /// Rises with every change; also the `ETag`.
    pub version: i64,
}

#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct Progress {
    /// e.g. `plan`, `list`.
    pub phase: String,
    pub completed: u64,
    /// Null while it is not known.
    pub total: Option<u64>,
    pub percent: Option<f64>,
    pub eta_seconds: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Eq, Object)]
pub struct Counts {
    pub found: u64,
    pub created: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub removed: u64,
    pub warnings: u64,
}

/// How many scopes stand where; they add up to `total`.
#[derive(Debug, PartialEq, Eq, Object)]
pub struct Scopes {
    pub total: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub denied: i32,
    pub canceled: i32,
    pub pending: i32,
}

#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct JobFailure {
    /// Stable.
    pub code: String,
    pub detail: String,
    /// The provider's name of the right that was missing.
    pub required_permission: Option<String>,
}

/// What the job made.
#[derive(Debug, Object)]
pub struct JobResult {
    #[oai(rename = "type")]
    pub kind: String,
    pub href: String,
    /// Of `subscription.test`, once it is done and asked for by itself.
    pub test: Option<TestView>,
    /// Of `subscription.accounts`, once it is done and asked for by itself.
    pub accounts: Option<Vec<AccountView>>,
}

#[derive(Debug, Object)]
pub struct RequestedBy {
    #[oai(rename = "type")]
    pub kind: ActorType,
    pub id: Option<String>,
    pub name: Option<String>,
}

/// One part of a job: a kind of asset in a region of a subscription.
#[derive(Debug, Object)]
#[oai(rename = "JobScope", rename_all = "camelCase")]
pub struct ScopeView {
    pub id: Uuid,
    pub subscription: Option<Uuid>,
    pub region: Option<String>,
    /// The kind of asset, e.g. `aws.secretsmanager.secret`.
    pub kind: Option<String>,
    pub state: JobState,
    pub attempt: i32,
    pub rescues: i32,
    pub counts: Counts,
    /// Why it failed, or why its last attempt did.
    pub reason: Option<JobFailure>,
}

impl From<job::Model> for ScopeView {
    fn from(job: job::Model) -> Self {
        Self {
            id: job.id,
            subscription: job.subscription_id,
            state: job.state.into(),
            attempt: job.attempt,
            rescues: job.rescues,
            counts: job.counts.as_ref().map(Counts::from).unwrap_or_default(),
            reason: failure(&job),
            region: job.scope_region,
            kind: job.scope_kind,
        }
    }
}

impl From<&Json> for Counts {
    fn from(counts: &Json) -> Self {
        let count = |name| counts.get(name).and_then(Json::as_u64).unwrap_or(0);
        Self {
            found: count("found"),
            created: count("created"),
            changed: count("changed"),
            unchanged: count("unchanged"),
            removed: count("removed"),
            warnings: count("warnings"),
        }
    }
}

/// By parent, what its open parts have counted so far; what ended parts counted is in the parent's own row.
pub type OpenCounts = HashMap<Uuid, Json>;

/// The counts of the open parts of these jobs.
pub async fn open_counts(db: &impl ConnectionTrait, jobs: &[job::Model]) -> Result<OpenCounts, ApiError> {
    Ok(overview::open_counts(db, jobs).await?)
}

/// What a job and its parts have counted so far.
pub fn counts(job: &job::Model, open: &OpenCounts) -> Counts {
    Counts::from(&sum_counts(job.counts.clone(), open.get(&job.id)))
}

impl JobView {
    /// The view of one job.
    pub async fn read(db: &impl ConnectionTrait, job: job::Model) -> Result<Self, ApiError> {
        let open = open_counts(db, std::slice::from_ref(&job)).await?;
        Ok(Self::new(job, &open))
    }

    pub fn new(job: job::Model, open: &OpenCounts) -> Self {
        let counts = counts(&job, open);
        let waiting = job.state == types::JobState::Waiting;
        Self {
            done: job.state.is_done(),
            state: job.state.into(),
            waiting_for: job.waiting_for.filter(|_| waiting).map(Into::into),
            created_at: job.created_at.into(),
            run_at: job.run_at.into(),
            started_at: job.started_at.map(Into::into),
            heartbeat_at: job.heartbeat_at.map(Into::into),
            completed_at: job.completed_at.map(Into::into),
            next_attempt_at: job.due_at.filter(|_| waiting).map(Into::into),
            deadline_at: job.deadline_at.map(Into::into),
            priority: job.priority.into(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            rescues: job.rescues,
            progress: progress(&job, &counts),
            scopes: scopes(&job),
            error: failure(&job),
            result: result(&job),
            requested_by: RequestedBy {
                kind: job.requested_by_type.into(),
                id: job.requested_by_id,
                name: job.requested_by_name,
            },
            trigger: job.trigger.into(),
            retry_of: job.retry_of,
            parent_id: job.parent_id,
            version: job.version,
            id: job.id,
            kind: job.kind,
            request: Any(job.request),
            counts,
        }
    }
}

/// A parent's progress is that of its parts: how many of them have ended.
fn progress(job: &job::Model, counts: &Counts) -> Option<Progress> {
    let (phase, completed, total) = if job.children_total > 0 {
        let ended = job.children_total - job.children_open;
        let phase = if job.children_open > 0 { "list" } else { "done" };
        (phase.to_owned(), u64::try_from(ended).ok()?, u64::try_from(job.children_total).ok())
    } else {
        let told = job.progress.as_ref()?;
        let completed = told.get("completed").and_then(Json::as_u64).unwrap_or(counts.found);
        (told.get("phase")?.as_str()?.to_owned(), completed, told.get("total").and_then(Json::as_u64))
    };
    let percent = total.filter(|total| *total > 0).map(|total| {
        let tenths = completed.saturating_mul(1000) / total;
        tenths as f64 / 10.0
    });
    Some(Progress { phase, completed, total, percent, eta_seconds: None })
}

fn scopes(job: &job::Model) -> Option<Scopes> {
    (job.kind == Scan::KIND).then_some(Scopes {
        total: job.children_total,
        succeeded: job.children_succeeded,
        failed: job.children_failed,
        denied: job.children_denied,
        canceled: job.children_canceled,
        pending: job.children_open,
    })
}

/// The scopes of a job of this kind, as an event has kept them.
pub fn event_scopes(kind: &str, kept: Option<&Json>) -> Option<Scopes> {
    let count = |name| kept.and_then(|kept| kept.get(name)?.as_i64()).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    (kind == Scan::KIND).then(|| Scopes {
        total: count("total"),
        succeeded: count("succeeded"),
        failed: count("failed"),
        denied: count("denied"),
        canceled: count("canceled"),
        pending: count("pending"),
    })
}

fn failure(job: &job::Model) -> Option<JobFailure> {
    let code = job.error_code.clone()?;
    Some(JobFailure {
        code,
        detail: job.error_detail.clone().unwrap_or_default(),
        required_permission: job.error_permission.clone(),
    })
}

fn result(job: &job::Model) -> Option<JobResult> {
    let about = || job.subscription_id.map(|id| format!("/api/subscriptions/{id}"));
    let (kind, href) = match job.kind.as_str() {
        Scan::KIND => ("scan".to_owned(), format!("/api/assets/discovery/scans/{}", job.id)),
        Test::KIND => ("subscriptionTest".to_owned(), about()?),
        AccountsListing::KIND => ("accounts".to_owned(), about()?),
        BuildPackage::KIND => ("evidence".to_owned(), format!("/api/evidence/{}", job.id)),
        VerifyLog::KIND => ("auditVerification".to_owned(), format!("/api/audit/verifications/{}", job.id)),
        Plan::KIND => ("rotationPlan".to_owned(), format!("/api/rotation/plans/{}", job.id)),
        Apply::KIND => {
            let resumed = job.payload.get("rotation").and_then(Json::as_str);
            let id = resumed.map_or_else(|| job.id.to_string(), str::to_owned);
            ("rotation".to_owned(), format!("/api/rotation/rotations/{id}"))
        }
        _ => (job.result_type.clone()?, job.result_href.clone()?),
    };
    Some(JobResult { kind, href, test: None, accounts: None })
}
