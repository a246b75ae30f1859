//! The subscriptions that an open job is about, beside the one that its row may name. Gone with the job's end.

use crate::job;
use sea_orm::{entity::prelude::*, sea_query::Query};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "job_subscription")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub subscription_id: Uuid,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Whether an open job is about this subscription: by its own row, or as one that has no parts yet.
pub async fn is_under_way(db: &impl ConnectionTrait, subscription: Uuid) -> Result<bool, DbErr> {
    let planned = Query::select()
        .column(Column::JobId)
        .from(Entity)
        .and_where(Column::SubscriptionId.eq(subscription))
        .to_owned();
    let open = job::Entity::find().filter(job::Column::CompletedAt.is_null());
    let named = open.clone().filter(job::Column::SubscriptionId.eq(subscription));
    let planning = open.filter(job::Column::Id.in_subquery(planned)).filter(job::Column::ChildrenTotal.eq(0));
    Ok(named.one(db).await?.is_some() || planning.one(db).await?.is_some())
}
