//! Audit events, written in the transaction of what they tell; a sequencer numbers them later.

use crate::types::{ActorType, Outcome};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_outbox")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub seq: Option<i64>,
    pub at: DateTimeUtc,
    #[sea_orm(column_name = "type")]
    pub event_type: String,
    pub actor_type: ActorType,
    pub actor_id: Option<String>,
    pub actor_name: Option<String>,
    pub subject_type: String,
    pub subject_id: Option<String>,
    pub outcome: Outcome,
    pub request_id: Option<String>,
    pub job_id: Option<Uuid>,
    pub details: Json,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
