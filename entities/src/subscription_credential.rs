//! What a subscription logs in with when its `auth.mode` is `stored`. Sealed; only a worker opens it.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "subscription_credential")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_id: Uuid,
    /// That of the subscription when this was stored. The sealed value opens with no other.
    pub version: i64,
    /// The key-encryption key under which it is sealed.
    pub key_id: String,
    pub sealed: Vec<u8>,
    pub stored_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

pub async fn of(db: &impl ConnectionTrait, subscription: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(subscription).one(db).await
}

/// Takes it away; there may be none.
pub async fn remove(db: &impl ConnectionTrait, subscription: Uuid) -> Result<(), DbErr> {
    Entity::delete_by_id(subscription).exec(db).await.map(|_| ())
}
