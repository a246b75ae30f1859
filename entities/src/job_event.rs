//! What happened to jobs, for those who follow them. Only the database's triggers write it, and it is never changed.

use crate::types::{JobState, WaitingFor};
use sea_orm::{ExprTrait, QueryOrder, QuerySelect, Statement, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job_event")]
pub struct Model {
    /// Its place: without gaps, and for all processes the same.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// The job in whose stream it appears: the parent of a part, else the job itself.
    pub owner_id: Uuid,
    /// The job that changed.
    pub job_id: Uuid,
    /// The owner's kind.
    pub kind: String,
    pub owner_subscription_id: Option<Uuid>,
    /// From here on the row of the job that changed, as it was then.
    pub subscription_id: Option<Uuid>,
    pub state: JobState,
    pub waiting_for: Option<WaitingFor>,
    pub attempt: i32,
    pub rescues: i32,
    pub version: i64,
    pub counts: Option<Json>,
    /// How many parts stand where, by the contract's names; none for a job without parts.
    pub scopes: Option<Json>,
    pub error_code: Option<String>,
    pub error_detail: Option<String>,
    pub error_permission: Option<String>,
    pub scope_region: Option<String>,
    pub scope_kind: Option<String>,
    pub at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The events after this one, in order, at most `limit`.
pub fn after(seq: i64, limit: u64) -> Select<Entity> {
    Entity::find().filter(Column::Seq.gt(seq)).order_by_asc(Column::Seq).limit(limit)
}

/// The events of a job's stream after this one, in order, at most `limit`; `parent` is the job's own.
pub fn of_job(job: Uuid, parent: Option<Uuid>, seq: i64, limit: u64) -> Select<Entity> {
    let own = Column::OwnerId.eq(job);
    let which = match parent {
        None => own,
        // what happens to a part is in its parent's stream
        Some(parent) => own.or(Column::OwnerId.eq(parent).and(Column::JobId.eq(job))),
    };
    after(seq, limit).filter(which)
}

/// The first that is kept and the last that there is; both 0 when there never was one.
pub async fn bounds(db: &impl ConnectionTrait) -> Result<(i64, i64), DbErr> {
    // apart from each other each is one look at an end of the index
    const BOUNDS: &str = "SELECT COALESCE((SELECT MIN(seq) FROM job_event), 0) AS first, \
        COALESCE((SELECT MAX(seq) FROM job_event), 0) AS last";
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), BOUNDS)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the bounds of the events".to_owned()))?;
    Ok((row.try_get("", "first")?, row.try_get("", "last")?))
}
