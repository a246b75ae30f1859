//! Keys that sign, each for one purpose; the private half is sealed.

use crate::clock;
use sea_orm::{Condition, ExprTrait, QueryOrder, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "signing_key")]
pub struct Model {
    /// The JWK thumbprint (RFC 7638).
    #[sea_orm(primary_key, auto_increment = false)]
    pub kid: String,
    pub algorithm: String,
    pub public_jwk: Json,
    /// The key-encryption key under which the private half is sealed.
    pub key_id: String,
    pub sealed_private: Vec<u8>,
    pub created_at: DateTimeUtc,
    /// Unset on the one key that signs; a retired key verifies until then.
    pub retires_at: Option<DateTimeUtc>,
    /// [`TOKEN`] or [`EVIDENCE`].
    pub purpose: String,
    /// The signed note in which the key before it vouches for it.
    pub voucher: Option<String>,
}

/// Access tokens.
pub const TOKEN: &str = "token";
/// The audit log and evidence. These keys are kept for ever: what they signed is checked later.
pub const EVIDENCE: &str = "evidence";

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The keys for access tokens whose signatures count now, oldest first.
pub async fn accepted(db: &impl ConnectionTrait) -> Result<Vec<Model>, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::find()
        .filter(Column::Purpose.eq(TOKEN))
        .filter(Condition::any().add(Column::RetiresAt.is_null()).add(Column::RetiresAt.into_expr().gt(now)))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Kid)
        .all(db)
        .await
}

/// All keys that sign or have signed evidence, oldest first.
pub async fn evidence(db: &impl ConnectionTrait) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::Purpose.eq(EVIDENCE))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Kid)
        .all(db)
        .await
}
