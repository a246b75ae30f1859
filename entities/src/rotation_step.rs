//! One thing that happened to a rotation: a state that it entered, a call that was made, what somebody asked for.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "rotation_step")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub rotation_id: Uuid,
    /// 1, 2, 3 …: the rotation's version after it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    pub at: DateTimeUtc,
    /// The attempt that did it; `None` for people.
    pub job_id: Option<Uuid>,
    pub epoch: i64,
    /// `enter`, `begin`, a call, or what was asked.
    pub what: String,
    pub before: String,
    pub after: String,
    /// `done`, `works`, `fails`, `refused`, `unknown`.
    pub outcome: Option<String>,
    /// Ids and versions; no value.
    pub details: Json,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
