//! How each scope stands: what looking at it last came to, and when it was last read to its end. Kept however long jobs are.

use crate::{subscription, types::ProviderKind};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "scope_coverage")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub subscription_id: Uuid,
    pub provider: ProviderKind,
    /// `*` where the subscription did not tell its scopes.
    pub region: String,
    pub kind: String,
    /// Whether it was among the scopes of its subscription when they were last told.
    pub planned: bool,
    /// Since when the row exists.
    pub created_at: DateTimeUtc,
    /// When it was last read to its end, and by which scan.
    pub scanned_at: Option<DateTimeUtc>,
    pub scanned_by: Option<Uuid>,
    /// When looking at it last ended, however that was, and in which scan. Unset before the first.
    pub ended_at: Option<DateTimeUtc>,
    pub ended_by: Option<Uuid>,
    /// Since when looking at it waits, or waited in vain, for the cloud to take more calls. Unset once it ended otherwise.
    pub throttled_at: Option<DateTimeUtc>,
    /// Why it was not read to its end the last time.
    pub error_code: Option<String>,
    pub error_detail: Option<String>,
    pub error_permission: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(belongs_to = "subscription::Entity", from = "Column::SubscriptionId", to = "subscription::Column::Id")]
    Subscription,
}

impl ActiveModelBehavior for ActiveModel {}
