//! The audit log itself: one row that says how many events have a number, and who may give the next.

use sea_orm::entity::prelude::*;

/// The key of the one row.
pub const ID: &str = "log";

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_log")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The log's name, which no other log has.
    pub origin: String,
    /// How many events have a number; also the next number.
    pub size: i64,
    pub holder: Option<Uuid>,
    /// Rises with every holder: the fence.
    pub epoch: i64,
    pub lease_until: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The row, which the schema came with.
pub async fn get(db: &impl ConnectionTrait) -> Result<Model, DbErr> {
    let missing = || DbErr::RecordNotFound("the row of the audit log is gone".to_owned());
    Entity::find_by_id(ID.to_owned()).one(db).await?.ok_or_else(missing)
}
