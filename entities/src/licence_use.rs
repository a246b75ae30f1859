//! What of a limited thing was used, and the row by which those who use it take turns.

use crate::clock;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "licence_use")]
pub struct Model {
    /// The name of the limit; of one that begins anew each month, with the month: `manualRotations/2026-11`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub used: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Counts `more` further uses and tells how many that makes. Until the caller's transaction ends nobody else comes this far.
pub async fn count(db: &impl ConnectionTrait, id: &str, more: i64) -> Result<i64, DbErr> {
    const COUNT: &str = "INSERT INTO licence_use (id, used) VALUES ($1, $2) \
        ON CONFLICT (id) DO UPDATE SET used = licence_use.used + excluded.used RETURNING used";
    let statement = clock::statement(db.get_database_backend(), COUNT, [id.into(), more.into()]);
    let row = db.query_one_raw(statement).await?.ok_or(DbErr::RecordNotInserted)?;
    row.try_get("", "used")
}

/// How many uses were counted.
pub async fn used(db: &impl ConnectionTrait, id: &str) -> Result<i64, DbErr> {
    Ok(Entity::find_by_id(id).one(db).await?.map_or(0, |row| row.used))
}
