//! What came of a schedule's instants. There is at most one row for each of them, whoever fires and however often.

use crate::types::RunOutcome;
use sea_orm::{PaginatorTrait, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "schedule_run")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub schedule_id: Uuid,
    /// The instant of the expression.
    pub due_at: DateTimeUtc,
    /// When it was dealt with.
    pub fired_at: DateTimeUtc,
    pub outcome: RunOutcome,
    /// The job that was started or joined, or that was in the way.
    pub job_id: Option<Uuid>,
    pub reason_code: Option<String>,
    pub reason_detail: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Whether this instant of the schedule was dealt with before.
pub async fn is_there(db: &impl ConnectionTrait, schedule: Uuid, due_at: DateTimeUtc) -> Result<bool, DbErr> {
    let same = Entity::find().filter(Column::ScheduleId.eq(schedule)).filter(Column::DueAt.eq(due_at));
    Ok(same.count(db).await? > 0)
}
