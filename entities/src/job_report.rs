//! What a job found out that is its result, where that is no record of its own. Gone with the job.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "job_report")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: Uuid,
    /// In the words of the job's kind. Never holds a secret.
    pub content: Json,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// What this job found out, if it did.
pub async fn of(db: &impl ConnectionTrait, job: Uuid) -> Result<Option<Json>, DbErr> {
    Ok(Entity::find_by_id(job).one(db).await?.map(|row| row.content))
}

/// Writes what the job found out, in place of what an earlier attempt at it did.
pub async fn save(db: &impl ConnectionTrait, job: Uuid, content: Json) -> Result<(), DbErr> {
    use sea_orm::{ActiveValue::Set, sea_query::OnConflict};
    let again = OnConflict::column(Column::JobId).update_column(Column::Content).to_owned();
    let row = ActiveModel { job_id: Set(job), content: Set(content) };
    Entity::insert(row).on_conflict(again).exec_without_returning(db).await.map(|_| ())
}
