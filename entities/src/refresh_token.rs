//! One-time tokens by which a session gets new access tokens. Those of one session are a family.

use crate::clock;
use sea_orm::{ExprTrait, PaginatorTrait, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "refresh_token")]
pub struct Model {
    /// SHA-256 of the token, in hex; the token itself is not stored.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: String,
    pub session_id: Uuid,
    pub created_at: DateTimeUtc,
    pub expires_at: DateTimeUtc,
    /// A second use means that it was copied: its session ends.
    pub used_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

pub async fn by_hash(db: &impl ConnectionTrait, hash: &str) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(hash.to_owned()).one(db).await
}

/// Marks it as used; false if somebody else did so before.
pub async fn spend(db: &impl ConnectionTrait, hash: &str) -> Result<bool, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    let update = Entity::update_many()
        .col_expr(Column::UsedAt, now)
        .filter(Column::Hash.eq(hash))
        .filter(Column::UsedAt.is_null());
    Ok(update.exec(db).await?.rows_affected == 1)
}

/// Whether the token of this hash is still within its time, by the database's clock.
pub async fn in_time(db: &impl ConnectionTrait, hash: &str) -> Result<bool, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    let row = Entity::find_by_id(hash.to_owned()).filter(Column::ExpiresAt.into_expr().gt(now));
    Ok(row.count(db).await? == 1)
}
