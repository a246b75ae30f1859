//! A scan; its progress and end are those of the job with the same id.

use crate::types::ScanMode;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "scan")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub mode: ScanMode,
    /// The ids of the subscriptions looked at.
    pub subscriptions: Json,
    pub created_at: DateTimeUtc,
    /// The least time in which the providers' published rates allow what it did, in seconds; set when it ends.
    pub floor_seconds: Option<f64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
