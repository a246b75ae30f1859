//! What a rotation would do, for people to read and to agree to by its hash.

use crate::scope::Scope;
use sea_orm::{QueryOrder, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "rotation_plan")]
pub struct Model {
    /// That of the job that made it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub subscription_id: Uuid,
    pub asset_id: Uuid,
    pub policy_id: Option<Uuid>,
    /// SHA-256 over what it rests on, in hex.
    pub plan_hash: String,
    /// Whose credential.
    pub identity: String,
    /// What a rotation needs to begin: nothing secret.
    pub target: Json,
    /// What people read.
    pub content: Json,
    pub created_at: DateTimeUtc,
    pub expires_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The newest plan of this hash that may be seen.
pub async fn by_hash(db: &impl ConnectionTrait, visible: &Scope, hash: &str) -> Result<Option<Model>, DbErr> {
    Entity::find()
        .filter(Column::PlanHash.eq(hash))
        .filter(visible.on(Column::SubscriptionId))
        .order_by_desc(Column::CreatedAt)
        .one(db)
        .await
}
