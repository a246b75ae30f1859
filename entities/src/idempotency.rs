//! The answers to creating requests, by the keys that their clients gave them.

use crate::clock;
use sea_orm::{DbBackend, ExprTrait, Value, entity::prelude::*};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency")]
pub struct Model {
    /// Names principal, method, path and key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Names what was asked for.
    pub fingerprint: String,
    /// The answer; unset only inside the transaction that makes it.
    pub status: Option<i32>,
    pub headers: Option<Json>,
    pub body: Option<String>,
    pub created_at: DateTimeUtc,
    pub expires_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Takes the key for the caller's transaction; `false` when another request has it already. Expired records are free.
///
/// On PostgreSQL it waits at most `patience` for another transaction that has just taken the same key, then fails with
/// `lock_not_available`. On SQLite writers take turns, so that there is nobody to wait for.
pub async fn claim(
    db: &impl ConnectionTrait,
    id: &str,
    fingerprint: &str,
    life: Duration,
    patience: Duration,
) -> Result<bool, DbErr> {
    // the bound holds for the wait on the index alone: the locks of what is made have their own
    const POSTGRES: (&str, &str) = (
        "SELECT $1, $2, {now}, {end} WHERE set_config('lock_timeout', $3, true) <> ''",
        "set_config('lock_timeout', '0', true)",
    );
    const SQLITE: (&str, &str) = ("VALUES ($1, $2, {now}, {end})", "id");
    let backend = db.get_database_backend();
    let (row, returned) = if backend == DbBackend::Postgres { POSTGRES } else { SQLITE };
    let text = format!(
        "INSERT INTO idempotency (id, fingerprint, created_at, expires_at) {row} \
         ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, status = NULL, headers = NULL, body = NULL, \
         created_at = excluded.created_at, expires_at = excluded.expires_at WHERE idempotency.expires_at <= {{now}} \
         RETURNING {returned}"
    );
    let text = text.replace("{end}", &clock::sql(backend, millis(life)));
    let mut values: Vec<Value> = vec![id.into(), fingerprint.into()];
    if backend == DbBackend::Postgres {
        values.push(millis(patience).to_string().into());
    }
    Ok(db.query_one_raw(clock::statement(backend, &text, values)).await?.is_some())
}

/// Keeps the answer, in the transaction that claimed the key.
pub async fn answer(db: &impl ConnectionTrait, id: &str, status: u16, headers: Json, body: &str) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::Status, i32::from(status).into())
        .col_expr(Column::Headers, headers.into())
        .col_expr(Column::Body, body.into())
        .filter(Column::Id.eq(id))
        .exec(db)
        .await
        .map(|_| ())
}

/// The record of a key that is taken.
pub async fn by_id(db: &impl ConnectionTrait, id: &str) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id.to_owned()).one(db).await
}

/// The same, unless it has expired.
pub async fn live(db: &impl ConnectionTrait, id: &str) -> Result<Option<Model>, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::find_by_id(id.to_owned()).filter(Column::ExpiresAt.into_expr().gt(now)).one(db).await
}

/// Removes at most `batch` expired records, the oldest first, and tells how many. Several processes may do so at once.
pub async fn prune(db: &impl ConnectionTrait, batch: u32) -> Result<u64, DbErr> {
    let backend = db.get_database_backend();
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text = format!(
        "DELETE FROM idempotency WHERE id IN \
         (SELECT id FROM idempotency WHERE expires_at <= {{now}} ORDER BY expires_at LIMIT {batch} {skip})"
    );
    Ok(db.execute_raw(clock::statement(backend, &text, [])).await?.rows_affected())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
