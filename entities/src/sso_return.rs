//! Ways back from the provider of single sign-on that were taken. None is taken twice.

use crate::clock;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sso_return")]
pub struct Model {
    /// SHA-256 of the state, in hex.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// From then on the state would not be accepted in any case.
    pub expires_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Notes that this state came back; false if it had before. It is remembered for so long.
pub async fn take(db: &impl ConnectionTrait, id: &str, milliseconds: i64) -> Result<bool, DbErr> {
    let backend = db.get_database_backend();
    let text = format!(
        "INSERT INTO sso_return (id, expires_at) VALUES ($1, {}) ON CONFLICT (id) DO NOTHING",
        clock::sql(backend, milliseconds)
    );
    Ok(db.execute_raw(clock::statement(backend, &text, [id.into()])).await?.rows_affected() == 1)
}
