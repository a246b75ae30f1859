//! The database's clock: the one whose word counts for leases, due times, creation and expiry.
//!
//! Every process and every worker sees the same clock, whatever its own machine believes.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};
use std::sync::atomic::{AtomicI64, Ordering};

/// Shift in milliseconds; only tests set it, to let leases and expiries pass without waiting.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// Moves this process's reading of the database clock by `milliseconds`. For tests.
pub fn set_offset(milliseconds: i64) {
    OFFSET_MS.store(milliseconds, Ordering::SeqCst);
}

/// SQL for "now plus `milliseconds`" of this database, at the start of the statement.
///
/// SQLite keeps times as RFC 3339 text of fixed zone. Their order as text is the order in time as long as each instant has one
/// spelling, that of the driver: without a fraction where it is zero.
pub fn sql(backend: DbBackend, milliseconds: i64) -> String {
    let shift = milliseconds.saturating_add(OFFSET_MS.load(Ordering::SeqCst));
    match (backend, shift) {
        (DbBackend::Sqlite, 0) => sqlite("'now'"),
        (DbBackend::Sqlite, _) => {
            let (sign, abs) = (if shift < 0 { '-' } else { '+' }, shift.unsigned_abs());
            sqlite(&format!("'now','{sign}{}.{:03} seconds'", abs / 1000, abs % 1000))
        }
        (_, 0) => "statement_timestamp()".to_owned(),
        _ => format!("(statement_timestamp() + interval '{shift} milliseconds')"),
    }
}

/// The instant that these arguments of SQLite's `strftime` mean, in the driver's spelling.
fn sqlite(instant: &str) -> String {
    format!("(replace(strftime('%Y-%m-%dT%H:%M:%f',{instant}),'.000','') || '+00:00')")
}

/// SQL for "now plus as many seconds as this integer column says".
pub fn sql_plus_column(backend: DbBackend, column: &str) -> String {
    let shift = OFFSET_MS.load(Ordering::SeqCst);
    match backend {
        DbBackend::Sqlite => sqlite(&format!("'now', ({column} + {}) || ' seconds'", shift as f64 / 1000.0)),
        _ => format!("({} + {column} * interval '1 second')", sql(backend, 0)),
    }
}

/// SQL for an instant plus as many seconds, both SQL.
pub fn sql_plus_seconds(backend: DbBackend, instant: &str, seconds: &str) -> String {
    match backend {
        DbBackend::Sqlite => sqlite(&format!("{instant}, ({seconds}) || ' seconds'")),
        _ => format!("({instant} + {seconds} * interval '1 second')"),
    }
}

/// SQL for the earlier of an instant and another one, which may be missing.
pub fn sql_earlier(backend: DbBackend, instant: &str, other: &str) -> String {
    let least = if backend == DbBackend::Sqlite { "MIN" } else { "LEAST" };
    format!("COALESCE({least}({instant}, {other}), {instant})")
}

/// SQL for the instant in one column, later by as long as it is since the instant in the other.
pub fn sql_plus_elapsed(backend: DbBackend, instant: &str, since: &str) -> String {
    let now = sql(backend, 0);
    match backend {
        DbBackend::Sqlite => {
            let elapsed = format!("((julianday({now}) - julianday({since})) * 86400.0) || ' seconds'");
            format!("CASE WHEN {instant} IS NULL THEN NULL ELSE {} END", sqlite(&format!("{instant}, {elapsed}")))
        }
        _ => format!("({instant} + ({now} - {since}))"),
    }
}

/// What the database's clock shows.
pub async fn now(db: &impl ConnectionTrait) -> Result<DateTime<Utc>, DbErr> {
    let backend = db.get_database_backend();
    let row = db
        .query_one_raw(Statement::from_string(backend, format!("SELECT {} AS now", sql(backend, 0))))
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("the database did not tell its time".to_owned()))?;
    if backend == DbBackend::Sqlite {
        let text: String = row.try_get("", "now")?;
        return DateTime::parse_from_rfc3339(&text)
            .map(|time| time.with_timezone(&Utc))
            .map_err(|error| DbErr::Type(format!("SQLite's clock showed {text}: {error}")));
    }
    row.try_get("", "now")
}

/// Cuts a time to microseconds, which is what both databases keep.
pub fn micros(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// A statement in which `{now}` stands for the database's clock.
pub fn statement<V>(backend: DbBackend, text: &str, values: V) -> Statement
where
    V: IntoIterator<Item = Value>,
{
    Statement::from_sql_and_values(backend, text.replace("{now}", &sql(backend, 0)), values)
}
