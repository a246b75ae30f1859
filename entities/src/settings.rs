//! What an administrator has set. There is exactly one row.

use sea_orm::{QuerySelect, entity::prelude::*};

/// The id of the one row.
const ID: &str = "settings";

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "settings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Only what was set; the rest is as the program has it.
    pub content: Json,
    /// None: nothing was ever set.
    pub updated_at: Option<DateTimeUtc>,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The row as it is now.
///
/// # Errors
/// Also when the migration's row is missing.
pub async fn row(db: &impl ConnectionTrait) -> Result<Model, DbErr> {
    Entity::find_by_id(ID).one(db).await?.ok_or_else(missing)
}

/// The same, and nobody else changes it before the caller's transaction ends.
///
/// # Errors
/// Also when the migration's row is missing.
pub async fn row_locked(db: &impl ConnectionTrait) -> Result<Model, DbErr> {
    Entity::find_by_id(ID).lock_exclusive().one(db).await?.ok_or_else(missing)
}

fn missing() -> DbErr {
    DbErr::RecordNotFound("the row of the settings is missing; it came with the schema".to_owned())
}
