//! The names of those who act in the audit log, apart from it, so that they can be erased.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_name")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose name it is: `user:` and the id.
    pub person: String,
    pub name: Option<String>,
    pub salt: Option<Vec<u8>>,
    /// What the events hold of it; unset in the row that says that the person was erased.
    pub commitment: Option<Vec<u8>>,
    pub erased_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// All names of these people.
pub async fn of(db: &impl ConnectionTrait, people: impl IntoIterator<Item = String>) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::Person.is_in(people)).all(db).await
}

/// The names with these ids.
pub async fn by_ids(db: &impl ConnectionTrait, ids: impl IntoIterator<Item = Uuid>) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::Id.is_in(ids)).all(db).await
}
