//! Plans and rotations as clients see them.

use super::terms::MethodView;
use crate::{error::ApiError, routes::jobs::view::RequestedBy, timestamp::Timestamp};
use keywright_entities::{rotation, rotation_plan, rotation_step};
use keywright_jobs::{
    domain::rotation::{self as machine, Reason, State, plan::runbook},
    rotation::{Opened, RotationTarget, look},
};
use poem_openapi::{Enum, Object, types::Any};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// Where a rotation stands. DONE, ROLLED_BACK and ABANDONED are ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RotationState {
    Planned,
    Reserved,
    MintIntent,
    Minted,
    Staged,
    Proven,
    /// From here on the new credential is the current one.
    Promoted,
    Synced,
    /// Both work.
    Draining,
    /// The former one is switched off.
    Disabled,
    /// The former one is deleted.
    Retired,
    Done,
    /// What was made is being taken away again.
    Compensating,
    RolledBack,
    /// It stands still until a person decides.
    NeedsHuman,
    Abandoned,
}

impl From<State> for RotationState {
    fn from(state: State) -> Self {
        match state {
            State::Planned => Self::Planned,
            State::Reserved => Self::Reserved,
            State::MintIntent => Self::MintIntent,
            State::Minted => Self::Minted,
            State::Staged => Self::Staged,
            State::Proven => Self::Proven,
            State::Promoted => Self::Promoted,
            State::Synced => Self::Synced,
            State::Draining => Self::Draining,
            State::Disabled => Self::Disabled,
            State::Retired => Self::Retired,
            State::Done => Self::Done,
            State::Compensating => Self::Compensating,
            State::RolledBack => Self::RolledBack,
            State::NeedsHuman => Self::NeedsHuman,
            State::Abandoned => Self::Abandoned,
        }
    }
}

impl RotationState {
    /// Its name, as it is stored.
    pub fn stored(self) -> &'static str {
        State::ALL.iter().find(|state| Self::from(**state) == self).map_or("", |state| state.as_str())
    }
}

/// What a rotation would do.
#[derive(Debug, Object)]
#[oai(rename = "RotationPlan", rename_all = "camelCase")]
pub struct PlanView {
    pub id: Uuid,
    /// Names exactly this: send it to begin the rotation.
    pub plan_hash: String,
    pub asset: Uuid,
    pub subscription: Uuid,
    pub policy: Option<Uuid>,
    pub method: MethodView,
    pub current: CurrentView,
    /// What will happen, a sentence each, in its order.
    pub steps: Vec<String>,
    /// The provider's calls of a rotation that meets no obstacle.
    pub calls: Vec<PlannedCallView>,
    /// For a moment what is stored will not work.
    pub gap: bool,
    /// The credentials of the identity, where it has several.
    pub credentials: Vec<CredentialView>,
    /// What hangs together with the entry, as far as the inventory knows: the first 100.
    pub blast_radius: Vec<RelatedView>,
    /// What would stop it as things stand.
    pub problems: Vec<ProblemView>,
    pub created_at: Timestamp,
    /// It can be agreed to until then.
    pub expires_at: Timestamp,
}

/// What is to be replaced.
#[derive(Debug, Object)]
#[oai(rename = "RotationCurrent", rename_all = "camelCase")]
pub struct CurrentView {
    /// The store's version.
    pub version: String,
    /// The issuer's id of the credential.
    pub credential: String,
    /// Whose it is: one rotation of an identity at a time.
    pub identity: String,
}

#[derive(Debug, Object)]
#[oai(rename = "RotationCall", rename_all = "camelCase")]
pub struct PlannedCallView {
    /// The state that it leads to.
    pub state: RotationState,
    pub call: String,
    /// `null`: it needs none.
    pub permission: Option<String>,
    pub changes: bool,
    /// Whether the permission is there; `null`: that shows only when the call is made.
    pub permitted: Option<bool>,
}

#[derive(Debug, Object)]
#[oai(rename = "RotationCredential")]
pub struct CredentialView {
    pub id: String,
    pub active: bool,
}

#[derive(Debug, Object)]
#[oai(rename = "RotationRelated")]
pub struct RelatedView {
    pub relation: String,
    pub target: String,
}

#[derive(Debug, Object)]
#[oai(rename = "RotationProblem")]
pub struct ProblemView {
    /// Stable.
    pub code: String,
    pub detail: String,
}

#[derive(Deserialize)]
struct Content {
    plan: look::Plan,
}

impl PlanView {
    /// # Errors
    /// When another version wrote what this one cannot read.
    pub fn of(row: rotation_plan::Model) -> Result<Self, ApiError> {
        let Content { plan } = serde_json::from_value(row.content).map_err(ApiError::internal)?;
        let target: RotationTarget = serde_json::from_value(row.target).map_err(ApiError::internal)?;
        let calls = plan.calls.into_iter().map(|call| PlannedCallView {
            state: call.state.into(),
            call: call.call,
            permission: call.permission,
            changes: call.changes,
            permitted: call.permitted,
        });
        Ok(Self {
            id: row.id,
            plan_hash: row.plan_hash,
            asset: row.asset_id,
            subscription: row.subscription_id,
            policy: row.policy_id,
            method: MethodView::from(&target.terms.method),
            current: CurrentView {
                version: plan.current.version,
                credential: plan.current.credential,
                identity: plan.current.identity,
            },
            steps: plan.steps,
            calls: calls.collect(),
            gap: plan.gap,
            credentials: plan
                .credentials
                .into_iter()
                .map(|one| CredentialView { id: one.id, active: one.active })
                .collect(),
            blast_radius: plan
                .blast_radius
                .into_iter()
                .map(|one| RelatedView { relation: one.relation, target: one.target })
                .collect(),
            problems: plan.problems.into_iter().map(|one| ProblemView { code: one.code, detail: one.detail }).collect(),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.into(),
        })
    }
}

/// A rotation. Its id is that of its first job.
#[derive(Debug, Object)]
#[oai(rename = "Rotation", rename_all = "camelCase")]
pub struct RotationView {
    pub id: Uuid,
    /// The job that drives it.
    pub job: Uuid,
    pub state: RotationState,
    pub asset: Uuid,
    pub subscription: Uuid,
    pub policy: Option<Uuid>,
    pub plan: Option<Uuid>,
    pub plan_hash: Option<String>,
    /// Whose credential; `null` until it is planned.
    pub identity: Option<String>,
    pub method: MethodView,
    /// The credential that is on its way out, and the store's version of it.
    pub previous: HalfView,
    /// The one that is on its way in.
    pub candidate: HalfView,
    /// The former one is on its way back.
    pub reversed: bool,
    pub cancel_asked: bool,
    pub reason: Option<ReasonView>,
    /// Of one that needs a person: where it stood, and what can be done.
    pub stopped: Option<StoppedView>,
    /// It can be canceled, by its job.
    pub can_cancel: bool,
    pub can_roll_back: bool,
    /// Nothing happens before.
    pub next_at: Option<Timestamp>,
    pub requested_by: RequestedBy,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub promoted_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// One of the two credentials.
#[derive(Debug, Object)]
#[oai(rename = "RotationHalf", rename_all = "camelCase")]
pub struct HalfView {
    /// The issuer's id.
    pub credential: Option<String>,
    /// The store's version.
    pub version: Option<String>,
}

/// Why it went back or stands still.
#[derive(Debug, Object)]
#[oai(rename = "RotationReason")]
pub struct ReasonView {
    /// Stable.
    pub code: String,
    pub detail: Option<String>,
}

#[derive(Debug, Object)]
#[oai(rename = "RotationStopped")]
pub struct StoppedView {
    pub state: RotationState,
    pub reason: ReasonView,
    /// What a person can do.
    pub runbook: String,
}

/// A rotation with all that happened.
#[derive(Debug, Object)]
#[oai(rename = "RotationWithHistory", rename_all = "camelCase")]
pub struct DetailedView {
    #[oai(flatten)]
    pub rotation: RotationView,
    /// In its order.
    pub history: Vec<StepView>,
}

/// A state that was entered, a call that was begun or made, what somebody asked for.
#[derive(Debug, Object)]
#[oai(rename = "RotationStep", rename_all = "camelCase")]
pub struct StepView {
    pub number: i64,
    pub at: Timestamp,
    /// `plan`, `enter`, `prepare`, `begin`, the name of a call, or of what was asked.
    pub what: String,
    pub before: String,
    pub after: String,
    /// Of a call: `done`, `works`, `fails`, `seen`, `refused`, `unknown`.
    pub outcome: Option<String>,
    /// The job whose attempt did it; `null` for people.
    pub job: Option<Uuid>,
    /// Ids and versions; never a value.
    pub details: Any<Value>,
}

impl From<rotation_step::Model> for StepView {
    fn from(row: rotation_step::Model) -> Self {
        Self {
            number: row.number,
            at: row.at.into(),
            what: row.what,
            before: row.before,
            after: row.after,
            outcome: row.outcome,
            job: row.job_id,
            details: Any(row.details),
        }
    }
}

impl From<&Reason> for ReasonView {
    fn from(reason: &Reason) -> Self {
        Self { code: reason.code().to_owned(), detail: reason.detail().map(str::to_owned) }
    }
}

impl RotationView {
    /// # Errors
    /// When another version wrote what this one cannot read.
    pub fn of(row: rotation::Model) -> Result<Self, ApiError> {
        let Opened { row, record, target } = Opened::read(row).map_err(ApiError::internal)?;
        let half = |credential: &Option<String>, version: &Option<String>| HalfView {
            credential: credential.clone(),
            version: version.clone(),
        };
        let stopped = record.stopped.as_ref().filter(|_| record.state == State::NeedsHuman);
        Ok(Self {
            id: row.id,
            job: row.job_id,
            state: record.state.into(),
            asset: row.asset_id,
            subscription: row.subscription_id,
            policy: row.policy_id,
            plan: row.plan_id,
            plan_hash: row.plan_hash,
            identity: row.identity,
            method: MethodView::from(&target.terms.method),
            previous: half(&record.previous, &record.previous_version),
            candidate: half(&record.candidate, &record.candidate_version),
            reversed: record.reversed,
            cancel_asked: record.cancel_asked,
            reason: record.reason.as_ref().map(ReasonView::from),
            stopped: stopped.map(|stopped| StoppedView {
                state: stopped.at.into(),
                reason: ReasonView::from(&stopped.reason),
                runbook: runbook(&stopped.reason).to_owned(),
            }),
            can_cancel: machine::ask_cancel(&record).is_ok(),
            can_roll_back: machine::roll_back(&record, row.updated_at).is_ok(),
            next_at: record.not_before.map(Into::into),
            requested_by: RequestedBy {
                kind: row.requested_by_type.into(),
                id: row.requested_by_id,
                name: row.requested_by_name,
            },
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            promoted_at: row.promoted_at.map(Into::into),
            ended_at: row.ended_at.map(Into::into),
        })
    }
}
