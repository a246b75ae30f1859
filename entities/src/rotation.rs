//! A rotation: what is replaced, where it stands, and the job that drives it.

use crate::{scope::Scope, types::ActorType};
use sea_orm::{QuerySelect, Select, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "rotation")]
pub struct Model {
    /// That of its first job.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub subscription_id: Uuid,
    pub asset_id: Uuid,
    pub policy_id: Option<Uuid>,
    /// `None` until it is planned, where nobody asked for a plan before.
    pub plan_id: Option<Uuid>,
    pub plan_hash: Option<String>,
    /// Whose credential; `None` until it is planned.
    pub identity: Option<String>,
    /// The identity while it is open: one rotation at a time.
    pub open_identity: Option<String>,
    /// The asset while it is open.
    pub open_asset: Option<Uuid>,
    /// That of `record`, for filters.
    pub state: String,
    /// What is rotated and how. Nothing secret.
    pub target: Json,
    /// Everything that decides what comes next.
    pub record: Json,
    /// The job that drives it now.
    pub job_id: Uuid,
    pub requested_by_type: ActorType,
    pub requested_by_id: Option<String>,
    pub requested_by_name: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    pub promoted_at: Option<DateTimeUtc>,
    pub ended_at: Option<DateTimeUtc>,
    /// Moves with every change of the record.
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Those that a caller may see.
pub fn visible(to: &Scope) -> Select<Entity> {
    Entity::find().filter(to.on(Column::SubscriptionId))
}

/// The one of this id, held until the caller's transaction ends.
pub async fn by_id_locked(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).lock_exclusive().one(db).await
}

/// The one that this job drives, held until the caller's transaction ends.
pub async fn of_job_locked(db: &impl ConnectionTrait, job: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find().filter(Column::JobId.eq(job)).lock_exclusive().one(db).await
}
