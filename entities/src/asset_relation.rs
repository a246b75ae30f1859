//! What the assets that are there hang together with, as their providers tell. Kept in step with `asset`.

use crate::types::Relates;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "asset_relation")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub asset_id: Uuid,
    /// The asset's.
    pub subscription_id: Uuid,
    /// What the asset is to the other end.
    pub relation: Relates,
    /// The provider's identifier of the other end, which need not be in the inventory.
    pub target: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
