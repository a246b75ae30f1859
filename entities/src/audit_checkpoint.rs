//! Signed checkpoints of the audit log.

use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_checkpoint")]
pub struct Model {
    /// How many events it covers.
    #[sea_orm(primary_key, auto_increment = false)]
    pub size: i64,
    /// The signed note.
    pub note: String,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The one that covers most.
pub async fn newest(db: &impl ConnectionTrait) -> Result<Option<Model>, DbErr> {
    Entity::find().order_by_desc(Column::Size).one(db).await
}

/// Those that cover more than `after` and at most `to` events, in order, at most `limit`.
pub async fn run(db: &impl ConnectionTrait, after: i64, to: i64, limit: u64) -> Result<Vec<Model>, DbErr> {
    let select = Entity::find().filter(Column::Size.gt(after)).filter(Column::Size.lte(to));
    select.order_by_asc(Column::Size).limit(limit).all(db).await
}
