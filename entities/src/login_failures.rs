//! Passwords that were wrong, counted for whatever tried them: an account, an address, or an account from an address.

use crate::clock;
use sea_orm::{ExprTrait, QueryOrder, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "login_failures")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Since the last pause of a whole window.
    pub failures: i32,
    pub last_at: DateTimeUtc,
    /// Until then no password is looked at.
    pub blocked_until: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Those of these ids that are blocked now, by the database's clock, the longest first.
pub async fn blocked(db: &impl ConnectionTrait, ids: &[String]) -> Result<Vec<Model>, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::find()
        .filter(Column::Id.is_in(ids))
        .filter(Column::BlockedUntil.into_expr().gt(now))
        .order_by_desc(Column::BlockedUntil)
        .all(db)
        .await
}

/// Counts one more failure and tells how many there are. A count whose last failure is older than `window_ms` begins anew.
pub async fn count(db: &impl ConnectionTrait, id: &str, window_ms: i64) -> Result<i32, DbErr> {
    let backend = db.get_database_backend();
    let text = format!(
        "INSERT INTO login_failures (id, failures, last_at, blocked_until) VALUES ($1, 1, {{now}}, {{now}}) \
         ON CONFLICT (id) DO UPDATE SET last_at = {{now}}, \
         failures = CASE WHEN login_failures.last_at < {} THEN 1 ELSE login_failures.failures + 1 END RETURNING failures",
        clock::sql(backend, -window_ms)
    );
    let row = db.query_one_raw(clock::statement(backend, &text, [id.into()])).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("a failure was not counted".to_owned()))?.try_get("", "failures")
}

/// Blocks an id for so long from now on.
pub async fn block(db: &impl ConnectionTrait, id: &str, milliseconds: i64) -> Result<(), DbErr> {
    let until = Expr::cust(clock::sql(db.get_database_backend(), milliseconds));
    let update = Entity::update_many().col_expr(Column::BlockedUntil, until).filter(Column::Id.eq(id));
    update.exec(db).await.map(|_| ())
}

/// Forgets the failures of these ids.
pub async fn forget(db: &impl ConnectionTrait, ids: &[String]) -> Result<(), DbErr> {
    Entity::delete_many().filter(Column::Id.is_in(ids)).exec(db).await.map(|_| ())
}
