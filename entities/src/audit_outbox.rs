//! Audit events, written in the transaction of what they tell; a sequencer numbers them later. The database refuses any other
//! change.

use crate::types::{ActorType, Outcome};
use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

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
    /// Until the event has its number; then the name is in [`crate::audit_name`].
    pub actor_name: Option<String>,
    pub subject_type: String,
    pub subject_id: Option<String>,
    pub outcome: Outcome,
    pub request_id: Option<String>,
    pub job_id: Option<Uuid>,
    pub details: Json,
    pub actor_name_id: Option<Uuid>,
    pub subject_name_id: Option<Uuid>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The events from number `from` to before `to`, in order, at most `limit`.
pub async fn run(db: &impl ConnectionTrait, from: i64, to: i64, limit: u64) -> Result<Vec<Model>, DbErr> {
    let select = Entity::find().filter(Column::Seq.gte(from)).filter(Column::Seq.lt(to));
    select.order_by_asc(Column::Seq).limit(limit).all(db).await
}

/// Events that have no number yet, at most `limit`.
pub async fn unsequenced(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::Seq.is_null()).order_by_asc(Column::Id).limit(limit).all(db).await
}
