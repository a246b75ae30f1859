//! An account, project, subscription or machine that is looked at.

use crate::types::{JobState, ProviderKind};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "subscription")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub provider: ProviderKind,
    pub external_id: String,
    pub name: String,
    pub enabled: bool,
    pub regions: Json,
    pub tags: Json,
    pub settings: Json,
    pub auth_mode: String,
    pub auth_updated_at: DateTimeUtc,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    /// A deleted subscription keeps its row, because assets and evidence still speak of it.
    pub deleted_at: Option<DateTimeUtc>,
    pub last_scan_at: Option<DateTimeUtc>,
    pub last_scan_state: Option<JobState>,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The regions as text, in their stored order.
    pub fn region_list(&self) -> Vec<String> {
        serde_json::from_value(self.regions.clone()).unwrap_or_default()
    }

    /// The settings object of this subscription's own provider, empty when absent.
    pub fn provider_settings(&self) -> Json {
        self.settings.get(self.provider.as_str()).cloned().unwrap_or_else(|| serde_json::json!({}))
    }
}

/// All that are not deleted.
pub fn live() -> Select<Entity> {
    Entity::find().filter(Column::DeletedAt.is_null())
}

/// The live one of this id.
pub async fn by_id(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    live().filter(Column::Id.eq(id)).one(db).await
}
