//! One row is the delivery and the status that clients poll. Only `keywright_jobs::queue` writes it.

use crate::types::{ActorType, JobState, Trigger, WaitingFor};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub kind: String,
    pub payload_version: i32,
    pub payload: Json,
    /// The request as the client made it, without anything secret.
    pub request: Json,
    pub state: JobState,
    pub waiting_for: Option<WaitingFor>,
    /// -1 low, 0 normal, 1 high.
    pub priority: i32,
    pub created_at: DateTimeUtc,
    pub run_at: DateTimeUtc,
    /// Set exactly while the job may be claimed, now or from this instant on.
    pub due_at: Option<DateTimeUtc>,
    /// Its place in the line of its priority. A job with `due_at` and without a place is not due yet.
    pub turn: Option<i64>,
    /// Set exactly while the job stands aside although it is due, because its kind or its subscription runs as many as it may:
    /// the name of those whose room it shares.
    pub over_limit: Option<String>,
    /// Since when somebody wants the job to rest.
    pub paused_at: Option<DateTimeUtc>,
    /// When a job that rests would have been due.
    pub resume_at: Option<DateTimeUtc>,
    pub started_at: Option<DateTimeUtc>,
    pub heartbeat_at: Option<DateTimeUtc>,
    pub completed_at: Option<DateTimeUtc>,
    pub deadline_at: Option<DateTimeUtc>,
    /// Rises with every claim, rescue and give-back, and never restarts: the fence of every write of an attempt.
    pub epoch: i64,
    /// Set exactly while an attempt holds the job.
    pub lease_until: Option<DateTimeUtc>,
    pub worker_id: Option<Uuid>,
    pub attempt: i32,
    pub max_attempts: i32,
    /// From the first start to the last end, retries included.
    pub timeout_seconds: i32,
    pub rescues: i32,
    /// Among open jobs of a kind there is at most one with this key.
    pub unique_key: Option<String>,
    /// Among running jobs there is at most one with this key.
    pub lock_key: Option<String>,
    /// Only workers that carry this label may run the job.
    pub worker_label: Option<String>,
    pub subscription_id: Option<Uuid>,
    pub parent_id: Option<Uuid>,
    pub retry_of: Option<Uuid>,
    pub scope_region: Option<String>,
    pub scope_kind: Option<String>,
    /// How far the job came, in its own words; a later attempt goes on from here.
    pub checkpoint: Option<Json>,
    pub progress: Option<Json>,
    pub counts: Option<Json>,
    /// Which calls its attempts made of a provider, see `keywright_jobs::domain::floor`.
    pub calls: Option<Json>,
    pub children_total: i32,
    pub children_open: i32,
    pub children_succeeded: i32,
    pub children_failed: i32,
    pub children_denied: i32,
    pub children_canceled: i32,
    pub error_code: Option<String>,
    pub error_detail: Option<String>,
    pub error_permission: Option<String>,
    pub result_type: Option<String>,
    pub result_href: Option<String>,
    pub requested_by_type: ActorType,
    pub requested_by_id: Option<String>,
    pub requested_by_name: Option<String>,
    pub trigger: Trigger,
    pub request_id: Option<String>,
    /// The W3C trace context of the request that asked for it.
    pub traceparent: Option<String>,
    /// Set while somebody else must still approve it: it rests until then, whatever is asked of it.
    pub approval_id: Option<Uuid>,
    /// Rises with every change that a client can see.
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// Whether it waits to be claimed, now or later, or rests: no attempt holds it, and it has no children to wait for.
    pub fn is_unheld(&self) -> bool {
        self.due_at.is_some() || self.resume_at.is_some()
    }
}

/// The job of this id.
pub async fn by_id(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// All children of a job, oldest first.
pub async fn children(db: &impl ConnectionTrait, parent: Uuid) -> Result<Vec<Model>, DbErr> {
    use sea_orm::QueryOrder;
    Entity::find()
        .filter(Column::ParentId.eq(parent))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .all(db)
        .await
}
