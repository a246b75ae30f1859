//! Four eyes: what somebody asked for and somebody else must approve.

use super::Tag;
use crate::{
    auth::{Caller, Principal, perm},
    context,
    error::{ApiError, Code},
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::{ActorType, ApprovalState},
};
use chrono::{DateTime, Utc};
use keywright_entities::{approval, clock, types};
use keywright_jobs::{
    approvals::{self, Decider, Decision, Refused},
    settings::{self, Live},
    setup::database::Database,
};
use poem_openapi::{
    Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::{Any, Example},
};
use sea_orm::{ColumnTrait, ConnectionTrait, QueryFilter};
use serde_json::Value;
use uuid::Uuid;

/// Approvals.
pub struct ApprovalsApi {
    pub database: Database,
    pub settings: Live,
}

/// What somebody asked for, and what became of it.
#[derive(Debug, Object)]
#[oai(rename = "Approval", rename_all = "camelCase")]
pub struct ApprovalView {
    pub id: Uuid,
    /// What is to be done, e.g. `settings.update`.
    pub action: String,
    /// What it is to be done to.
    pub subject: SubjectView,
    /// Names exactly what will be done.
    pub plan_hash: String,
    /// What will be done.
    pub plan: Any<Value>,
    pub requested_by: PersonView,
    pub state: ApprovalState,
    pub created_at: Timestamp,
    /// Undecided at this instant, it is over and its job is canceled.
    pub expires_at: Timestamp,
    /// The job that is `waiting` for it.
    pub job_id: Option<Uuid>,
    pub decided_by: Option<PersonView>,
    pub decided_at: Option<Timestamp>,
    pub comment: Option<String>,
}

#[derive(Debug, Object)]
#[oai(rename = "ApprovalSubject", rename_all = "camelCase")]
pub struct SubjectView {
    /// The kind of thing: `settings`.
    #[oai(rename = "type")]
    pub subject_type: String,
    /// `null` where there is only one.
    pub id: Option<String>,
}

#[derive(Debug, Object)]
#[oai(rename = "ApprovalActor", rename_all = "camelCase")]
pub struct PersonView {
    #[oai(rename = "type")]
    pub actor_type: ActorType,
    pub id: Option<String>,
    pub name: Option<String>,
}

impl ApprovalView {
    /// As it stands now, by the database's clock.
    ///
    /// # Errors
    /// When the database does not tell its time.
    pub async fn now(db: &impl ConnectionTrait, row: approval::Model) -> Result<Self, ApiError> {
        Ok(Self::at(row, clock::now(db).await?))
    }

    fn at(row: approval::Model, now: DateTime<Utc>) -> Self {
        let decided_by = row.decided_by_type.map(|decider| PersonView {
            actor_type: decider.into(),
            id: row.decided_by_id.clone(),
            name: row.decided_by_name.clone(),
        });
        Self {
            state: row.state_at(now).into(),
            id: row.id,
            action: row.action,
            subject: SubjectView { subject_type: row.subject_type, id: row.subject_id },
            plan_hash: row.plan_hash,
            plan: Any(row.plan),
            requested_by: PersonView {
                actor_type: row.requested_by_type.into(),
                id: row.requested_by_id,
                name: row.requested_by_name,
            },
            created_at: row.created_at.into(),
            expires_at: row.expires_at.into(),
            job_id: row.job_id,
            decided_by,
            decided_at: row.decided_at.map(Into::into),
            comment: row.comment,
        }
    }
}

/// What goes with a decision.
#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct DecisionInput {
    /// Why, for the audit log and whoever asked.
    #[oai(validator(max_length = 2000, pattern = r"^[^\x00]*$"))]
    pub comment: Option<String>,
}

impl Example for DecisionInput {
    fn example() -> Self {
        Self { comment: Some("Agreed in the change meeting.".to_owned()) }
    }
}

static APPROVALS: Sorting<approval::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || approval::Column::CreatedAt.into_expr(),
        nullable: false,
        read: |row| row.created_at.into(),
    }],
    default: "-createdAt",
    unique: SortKey {
        name: "id",
        column: || approval::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Approvals")]
impl ApprovalsApi {
    /// List approvals, newest first
    #[oai(path = "/api/approvals", method = "get", operation_id = "listApprovals")]
    async fn list(
        &self,
        caller: Caller<perm::ApprovalsRead>,
        list: ListParams,
        /// Only those that stand like this now.
        state: Query<Option<Vec<ApprovalState>>>,
        /// Only those of this action.
        action: Query<Option<String>>,
        /// Only the one that this job waits for.
        job: Query<Option<Uuid>>,
        /// `createdAt` (default `-createdAt`).
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<ApprovalView>>, ApiError> {
        let _ = sort;
        let now = clock::now(self.database.reader()).await?;
        let mut select = approval::visible(&caller.visible());
        if let Some(states) = state.0 {
            let states: Vec<types::ApprovalState> = states.into_iter().map(Into::into).collect();
            select = select.filter(approval::standing(&states, now));
        }
        if let Some(action) = action.0 {
            select = select.filter(approval::Column::Action.eq(action));
        }
        if let Some(job) = job.0 {
            select = select.filter(approval::Column::JobId.eq(job));
        }
        let slice = list.fetch(select, &APPROVALS, self.database.reader()).await?;
        Ok(Json(slice.into_page(|row| ApprovalView::at(row, now))))
    }

    /// Get an approval
    #[oai(path = "/api/approvals/:id", method = "get", operation_id = "getApproval")]
    async fn get(&self, caller: Caller<perm::ApprovalsRead>, id: Path<Uuid>) -> Result<Json<ApprovalView>, ApiError> {
        let select = approval::visible(&caller.visible()).filter(approval::Column::Id.eq(id.0));
        let row = select.one(self.database.reader()).await?.ok_or_else(|| ApiError::not_found("approval"))?;
        Ok(Json(ApprovalView::now(self.database.reader(), row).await?))
    }

    /// Approve what somebody else asked for
    ///
    /// Its job goes on, or what was asked for is done, in the same moment. Nobody approves what they asked for themselves, through
    /// whichever of their tokens.
    #[oai(path = "/api/approvals/:id/approve", method = "post", operation_id = "approve")]
    async fn approve(
        &self,
        caller: Caller<perm::ApprovalsDecide>,
        id: Path<Uuid>,
        body: Json<DecisionInput>,
    ) -> Result<Json<ApprovalView>, ApiError> {
        self.decide(&caller, id.0, Decision::Approve, body.0).await
    }

    /// Deny what somebody else asked for
    ///
    /// Its job is canceled.
    #[oai(path = "/api/approvals/:id/deny", method = "post", operation_id = "deny")]
    async fn deny(
        &self,
        caller: Caller<perm::ApprovalsDecide>,
        id: Path<Uuid>,
        body: Json<DecisionInput>,
    ) -> Result<Json<ApprovalView>, ApiError> {
        self.decide(&caller, id.0, Decision::Deny, body.0).await
    }
}

impl ApprovalsApi {
    async fn decide(
        &self,
        caller: &Principal,
        id: Uuid,
        decision: Decision,
        input: DecisionInput,
    ) -> Result<Json<ApprovalView>, ApiError> {
        let by = Decider {
            actor: caller.actor(),
            user: caller.user_id,
            visible: caller.visible(),
            request_id: context::request_id(),
        };
        let write = self.database.begin().await?;
        let done = match approvals::decide(&write, id, decision, &by, input.comment).await {
            Ok(row) => ApprovalView::now(&*write, row).await,
            Err(refusal) => Err(refused(refusal)),
        };
        let shown = write.settle(done).await?;
        if shown.action == settings::UPDATE {
            self.settings.forget().await;
        }
        Ok(Json(shown))
    }
}

fn refused(refusal: Refused) -> ApiError {
    match refusal {
        Refused::NotFound => ApiError::not_found("approval"),
        Refused::SelfApproval => ApiError::new(
            Code::SelfApproval,
            "You asked for this yourself, with this or another of your credentials: somebody else decides.",
        ),
        Refused::Decided(state) => ApiError::conflict(format!("It cannot be decided any more: it is {state}.")),
        Refused::Stale => ApiError::new(
            Code::PlanStale,
            "What it was made for has changed since, so that it would do something else now. Deny it and ask anew.",
        ),
        Refused::RequesterLostRight => ApiError::conflict(
            "Whoever asked for it may not do it any more. Deny it; somebody who may can ask for the same.",
        ),
        Refused::Database(error) => error.into(),
    }
}
