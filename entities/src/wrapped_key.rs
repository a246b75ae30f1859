//! Key-encryption keys that a key management service has wrapped: only it can unwrap them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "wrapped_key")]
pub struct Model {
    /// The service and its key, as `KEYWRIGHT_MASTER_KEY_KMS` names them.
    #[sea_orm(primary_key, auto_increment = false)]
    pub kms: String,
    /// The fingerprint of what is wrapped.
    pub kek_id: String,
    pub wrapped: Vec<u8>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

pub async fn by_kms(db: &impl ConnectionTrait, kms: &str) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(kms.to_owned()).one(db).await
}
