//! The latest time at which a licence was seen in use: a clock that is set back later does not prolong it.

use sea_orm::{
    entity::prelude::*,
    sea_query::{ExprTrait, OnConflict},
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "licence_seen")]
pub struct Model {
    /// SHA-256 of what is signed in the licence, in hex.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub highest_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The latest time at which this licence was seen.
pub async fn highest(db: &impl ConnectionTrait, id: &str) -> Result<Option<DateTimeUtc>, DbErr> {
    Ok(Entity::find_by_id(id).one(db).await?.map(|row| row.highest_at))
}

/// Notes that it was seen at this time, unless it was seen later.
pub async fn raise(db: &impl ConnectionTrait, id: &str, at: DateTimeUtc) -> Result<(), DbErr> {
    let later = Column::HighestAt.into_expr().lt(at);
    let mut conflict = OnConflict::column(Column::Id);
    conflict.value(Column::HighestAt, at).action_and_where(later);
    let row = ActiveModel { id: sea_orm::Set(id.to_owned()), highest_at: sea_orm::Set(at) };
    Entity::insert(row).on_conflict(conflict).exec_without_returning(db).await.map(|_| ())
}
