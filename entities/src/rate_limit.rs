//! What was drawn of a rate limit: one row per bucket, whose window begins with its first draw and ends by the database's clock.
//!
//! Processes spend what they have drawn by themselves, so that no row is written per request.

use crate::clock;
use sea_orm::{DbBackend, Value, entity::prelude::*};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "rate_limit")]
pub struct Model {
    /// Whose it is, and over how many seconds: `token:…/60`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub bucket: String,
    /// From here on the next draw begins a new window.
    pub ends_at: DateTimeUtc,
    /// Requests of this window that processes have drawn; beyond the limit where somebody spent before drawing.
    pub drawn: i64,
    /// What the last draw was given.
    pub granted: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A window that ends so many milliseconds later than a new one would was begun by a clock that has been put back since. A
/// statement that waited for the row's lock reads a somewhat older clock than the one that began the window.
const CLOCK_PUT_BACK: i64 = 60_000;

/// What a process asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Requests per window.
    pub limit: u32,
    pub span: Duration,
    /// As many as it may have at once.
    pub budget: u32,
    /// Spent already, without having been drawn.
    pub debt: u32,
}

/// What a process was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Requests that it may answer; none when the limit is used up.
    pub granted: u32,
    /// All that was drawn in this window so far, this draw included.
    pub drawn: u64,
    /// How long the window lasts, from when the database answered.
    pub left: Duration,
    pub ends_at: DateTimeUtc,
}

/// Draws from `bucket`. The last quarter is handed out in ever smaller parts, so that little of it is left with processes that
/// hear of no further request.
///
/// # Errors
/// When the database does not take it.
pub async fn draw(db: &impl ConnectionTrait, bucket: &str, wanted: Wanted) -> Result<Drawn, DbErr> {
    let backend = db.get_database_backend();
    let values: [Value; 4] =
        [bucket.into(), i64::from(wanted.limit).into(), i64::from(wanted.budget).into(), i64::from(wanted.debt).into()];
    let span = i64::try_from(wanted.span.as_millis()).unwrap_or(i64::MAX);
    let beyond = span.saturating_add(CLOCK_PUT_BACK);
    let text =
        text(backend).replace("{end}", &clock::sql(backend, span)).replace("{beyond}", &clock::sql(backend, beyond));
    let row = db.query_one_raw(clock::statement(backend, &text, values)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("a draw from a rate limit returned no row".to_owned()))?;
    let left: i64 = row.try_get("", "left_ms")?;
    Ok(Drawn {
        granted: u32::try_from(row.try_get::<i64>("", "granted")?).unwrap_or(0),
        drawn: u64::try_from(row.try_get::<i64>("", "drawn")?).unwrap_or(0),
        left: Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(wanted.span),
        ends_at: row.try_get("", "ends_at")?,
    })
}

/// `$1` bucket, `$2` limit, `$3` budget, `$4` debt.
fn text(backend: DbBackend) -> String {
    let over = "(rate_limit.ends_at <= {now} OR rate_limit.ends_at > {beyond})";
    let before = format!("(CASE WHEN {over} THEN 0 ELSE rate_limit.drawn END + CAST($4 AS bigint))");
    let (least, greatest, left) = match backend {
        DbBackend::Sqlite => {
            ("min", "max", "CAST(round((julianday(ends_at) - julianday({now})) * 86400000.0) AS bigint)")
        }
        _ => ("LEAST", "GREATEST", "CAST(EXTRACT(EPOCH FROM (ends_at - {now})) * 1000 AS bigint)"),
    };
    let grant = |before: &str| {
        let room = format!("(CAST($2 AS bigint) - {before})");
        format!("{greatest}(0, {least}(CAST($3 AS bigint), {room}, {greatest}(1, {room} / 4)))")
    };
    let (first, next) = (grant("CAST($4 AS bigint)"), grant(&before));
    format!(
        "INSERT INTO rate_limit (bucket, ends_at, drawn, granted) \
         VALUES ($1, {{end}}, CAST($4 AS bigint) + {first}, {first}) \
         ON CONFLICT (bucket) DO UPDATE SET drawn = {before} + {next}, granted = {next}, \
         ends_at = CASE WHEN {over} THEN excluded.ends_at ELSE rate_limit.ends_at END \
         RETURNING granted, drawn, ends_at, {left} AS left_ms"
    )
}

/// Removes at most `batch` windows that are over and tells how many. Several processes may do so at once.
///
/// # Errors
/// When the database does not take it.
pub async fn prune(db: &impl ConnectionTrait, batch: u32) -> Result<u64, DbErr> {
    let backend = db.get_database_backend();
    let skip = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text = format!(
        "DELETE FROM rate_limit WHERE ends_at <= {{now}} AND bucket IN \
         (SELECT bucket FROM rate_limit WHERE ends_at <= {{now}} ORDER BY ends_at LIMIT {batch} {skip})"
    );
    Ok(db.execute_raw(clock::statement(backend, &text, [])).await?.rows_affected())
}
