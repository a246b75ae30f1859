//! A candidate's value, sealed, for as long as it is stored nowhere else.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "rotation_secret")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub rotation_id: Uuid,
    /// How many candidates were about to be made when it was: a later one replaces it.
    pub version: i64,
    pub key_id: String,
    pub sealed: Vec<u8>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
