//! Evidence packages. The job with the same id builds one; what it tells is fixed when it is asked for.

use crate::{scope::Scope, types::ActorType};
use sea_orm::{Condition, DbBackend, QueryOrder, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "evidence_package")]
pub struct Model {
    /// That of its job.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// When it was asked for: the `exportedAt` that it bears.
    pub created_at: DateTimeUtc,
    pub period_from: DateTimeUtc,
    /// The end of the period: what it tells is what held immediately before.
    pub as_of: DateTimeUtc,
    pub requested_by_type: ActorType,
    pub requested_by_id: Option<String>,
    pub requested_by_name: Option<String>,
    /// Made for somebody who may see only some subscriptions: it holds nothing but what is about those.
    pub restricted: bool,
    /// The ids of the subscriptions that it is about.
    pub subscriptions: Json,
    /// What was asked for, with all defaults filled in.
    pub request: Json,
    /// SHA-256 over caller and request, in hex: asked again, it is the same.
    pub request_key: String,
    /// Rows without versions of their own, as they were when it was asked for.
    pub frozen: Json,
    /// The store in which whoever asked looks for it.
    pub store: String,
    /// Unset until the package is whole; with it the columns below are set.
    pub built_at: Option<DateTimeUtc>,
    pub object_key: Option<String>,
    pub size: Option<i64>,
    /// SHA-256 over the package, in hex.
    pub sha256: Option<String>,
    /// The report alone; none where the worker that built the package lays out none.
    pub report_key: Option<String>,
    pub report_size: Option<i64>,
    pub report_sha256: Option<String>,
    /// The id of the key that signed it.
    pub signing_key: Option<String>,
    /// What it holds: rows by population, gaps, sections.
    pub contents: Option<Json>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The subscriptions that it is about.
    pub fn subscription_ids(&self) -> Vec<Uuid> {
        serde_json::from_value(self.subscriptions.clone()).unwrap_or_default()
    }
}

/// What makes a package visible to a caller. One that was made for everything also tells of people and of other subscriptions.
pub fn visible_condition(backend: DbBackend, to: &Scope) -> Condition {
    if *to == Scope::All {
        return Condition::all();
    }
    Condition::all().add(Column::Restricted.eq(true)).add(to.on_all_of(backend, Column::Subscriptions.into_expr()))
}

/// Those that a caller may see.
pub fn visible(backend: DbBackend, to: &Scope) -> Select<Entity> {
    Entity::find().filter(visible_condition(backend, to))
}

/// The one of this id.
pub async fn by_id(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// The newest for this request that was asked for after this instant.
pub async fn recent(db: &impl ConnectionTrait, request_key: &str, after: DateTimeUtc) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::RequestKey.eq(request_key))
        .filter(Column::CreatedAt.gt(after))
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .all(db)
        .await
}
