//! Ids of credentials that rotations made: what a later rotation of the same identity may take for its own.

use sea_orm::{QuerySelect, entity::prelude::*};
use std::collections::HashSet;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "rotation_credential")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub identity: String,
    /// The issuer's id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub external_id: String,
    pub rotation_id: Uuid,
    pub recorded_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The ids that were made for this identity.
pub async fn ours(db: &impl ConnectionTrait, identity: &str) -> Result<HashSet<String>, DbErr> {
    let ids: Vec<String> = Entity::find()
        .select_only()
        .column(Column::ExternalId)
        .filter(Column::Identity.eq(identity))
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids.into_iter().collect())
}
