//! Worker processes that have reported lately. Nothing is decided by these rows; they are for people and `/ready`.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "worker")]
pub struct Model {
    /// Made anew at every start: no name is ever reused.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    pub version: String,
    pub labels: Json,
    /// Per provider, the cloud identity that this worker last acted as.
    pub identity: Json,
    pub concurrency: i32,
    pub started_at: DateTimeUtc,
    pub last_seen_at: DateTimeUtc,
    pub last_claim_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
