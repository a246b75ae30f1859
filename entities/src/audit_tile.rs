//! The hashes of the audit log's tree, 256 in a tile.

use sea_orm::{Condition, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_tile")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub level: i32,
    #[sea_orm(primary_key, auto_increment = false)]
    pub idx: i64,
    /// 32 bytes each.
    pub hashes: Vec<u8>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// These tiles, as far as they are there.
pub async fn read(db: &impl ConnectionTrait, ids: &[(i32, i64)]) -> Result<Vec<Model>, DbErr> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let one = |(level, idx): &(i32, i64)| Condition::all().add(Column::Level.eq(*level)).add(Column::Idx.eq(*idx));
    Entity::find().filter(ids.iter().map(one).fold(Condition::any(), Condition::add)).all(db).await
}
