//! Every version of every asset, with the time in which it was valid, so that any past instant can be read.

use crate::types::Change;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "asset_version")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub asset_id: Uuid,
    pub version: i64,
    pub subscription_id: Uuid,
    pub region: String,
    pub kind: String,
    /// The scan that made this version; none where the deletion of its subscription removed the asset.
    pub scan_id: Option<Uuid>,
    /// The scope's job in that scan.
    pub job_id: Option<Uuid>,
    pub change: Change,
    pub valid_from: DateTimeUtc,
    /// Unset on the version that is valid now.
    pub valid_to: Option<DateTimeUtc>,
    /// The asset as the provider described it.
    pub content: Json,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
