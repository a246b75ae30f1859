//! How fast all workers together may call one API of a cloud: one row per credential, scope and API, by the database's clock.
//!
//! Workers draw chunks of it and spend them by themselves, so that no row is written per call.

use crate::clock;
use sea_orm::{DbBackend, QueryFilter, QuerySelect, entity::prelude::*, sea_query::OnConflict};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "call_budget")]
pub struct Model {
    /// Provider, digest of the account and of who asks, scope, API. Nothing secret.
    #[sea_orm(primary_key, auto_increment = false)]
    pub budget: String,
    /// Calls per second, as they were when the rate was last lowered; since then it has been rising.
    pub rate: f64,
    /// When the rate was last lowered.
    pub cut_at: DateTimeUtc,
    /// Up to here the time is given out.
    pub until: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The row of this budget, made when there is none, and locked until the transaction ends.
///
/// # Errors
/// When the database does not answer.
pub async fn locked(db: &impl ConnectionTrait, budget: &str, rate: f64) -> Result<Model, DbErr> {
    if let Some(row) = find(db, budget).await? {
        return Ok(row);
    }
    let now = clock::now(db).await?;
    let new = Model { budget: budget.to_owned(), rate, cut_at: now, until: now };
    Entity::insert(ActiveModel::from(new))
        .on_conflict(OnConflict::column(Column::Budget).do_nothing().to_owned())
        .exec_without_returning(db)
        .await?;
    let missing = || DbErr::RecordNotFound("the row of a call budget vanished while it was made".to_owned());
    find(db, budget).await?.ok_or_else(missing)
}

async fn find(db: &impl ConnectionTrait, budget: &str) -> Result<Option<Model>, DbErr> {
    let find = Entity::find().filter(Column::Budget.eq(budget));
    // SQLite has one writer
    if db.get_database_backend() == DbBackend::Sqlite {
        find.one(db).await
    } else {
        find.lock_exclusive().one(db).await
    }
}

/// Writes the row of a budget that this transaction has locked.
///
/// # Errors
/// When the database does not take it.
pub async fn save(db: &impl ConnectionTrait, row: &Model) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::Rate, row.rate.into())
        .col_expr(Column::CutAt, row.cut_at.into())
        .col_expr(Column::Until, row.until.into())
        .filter(Column::Budget.eq(row.budget.as_str()))
        .exec(db)
        .await
        .map(|_| ())
}
