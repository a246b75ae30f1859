//! The one row that only the right key-encryption key opens. What it seals is the instance's own secret.

use sea_orm::entity::prelude::*;

/// The id of the only row.
pub const ID: &str = "instance";

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sealing_canary")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The key-encryption key under which it is sealed.
    pub key_id: String,
    pub sealed_secret: Vec<u8>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

pub async fn get(db: &impl ConnectionTrait) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(ID.to_owned()).one(db).await
}
