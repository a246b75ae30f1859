//! Reading a population page by page, on either database, by one description.

use super::source::Source;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value as Bound};
use serde_json::{Value, json};
use uuid::Uuid;

/// Rows that are held in memory at once.
pub const PAGE: u64 = 1000;

/// What a selected column holds.
#[derive(Clone, Copy, Debug)]
pub enum Holds {
    Id,
    Text,
    Time,
    Number,
    Json,
}

/// Where a population comes from.
///
/// In the texts `{from}` and `{as_of}` stand for the period's ends, `{in:x}` for "the subscription id `x` is among the package's",
/// `{any:x}` for "the JSON list `x` of ids names one of them", `{all}` for whether the package is about everything there is.
#[derive(Debug)]
pub struct Query {
    pub select: &'static [(&'static str, Holds)],
    /// Tables and conditions, after `FROM`.
    pub from: &'static str,
    /// Unique, an id, and the order of the rows.
    pub key: &'static str,
}

impl Query {
    /// The rows after this one.
    pub async fn page(&self, source: &Source<'_>, after: Option<Uuid>) -> Result<Vec<(Uuid, Vec<Value>)>, DbErr> {
        let columns: Vec<&str> = self.select.iter().map(|(column, _)| *column).collect();
        let further = if after.is_some() { format!("AND {} > {{after}}", self.key) } else { String::new() };
        let text = format!(
            "SELECT {} AS row_key, {} FROM {} {further} ORDER BY {} LIMIT {PAGE}",
            self.key,
            columns.iter().enumerate().map(|(n, column)| format!("{column} AS c{n}")).collect::<Vec<_>>().join(", "),
            self.from,
            self.key,
        );
        let rows = source.db.query_all_raw(statement(source, &text, after)).await?;
        rows.iter().map(|row| Ok((row.try_get("", "row_key")?, self.cells(row)?))).collect()
    }

    /// How many rows there are, counted by the database.
    pub async fn count(&self, source: &Source<'_>) -> Result<u64, DbErr> {
        count(source, &format!("SELECT COUNT(*) AS n FROM {}", self.from)).await
    }

    fn cells(&self, row: &QueryResult) -> Result<Vec<Value>, DbErr> {
        let cell = |(n, (_, holds)): (usize, &(&str, Holds))| {
            let name = format!("c{n}");
            Ok(match holds {
                Holds::Id => json!(row.try_get::<Option<Uuid>>("", &name)?),
                Holds::Text => json!(row.try_get::<Option<String>>("", &name)?),
                Holds::Time => json!(row.try_get::<Option<DateTime<Utc>>>("", &name)?.map(super::request::spelled)),
                Holds::Number => json!(row.try_get::<Option<i64>>("", &name)?),
                Holds::Json => row.try_get::<Option<Value>>("", &name)?.unwrap_or_default(),
            })
        };
        self.select.iter().enumerate().map(cell).collect()
    }
}

/// The one number that a statement tells as `n`.
pub async fn count(source: &Source<'_>, text: &str) -> Result<u64, DbErr> {
    let row = source.db.query_one_raw(statement(source, text, None)).await?;
    let n: i64 = row.map(|row| row.try_get("", "n")).transpose()?.unwrap_or_default();
    u64::try_from(n).map_err(|_| DbErr::Type("a count was negative".to_owned()))
}

/// The rows of a statement whose placeholders are those of [`Query`].
pub async fn rows(source: &Source<'_>, text: &str) -> Result<Vec<QueryResult>, DbErr> {
    source.db.query_all_raw(statement(source, text, None)).await
}

fn statement(source: &Source<'_>, text: &str, after: Option<Uuid>) -> Statement {
    let backend = source.db.get_database_backend();
    let (mut sql, mut values, mut rest) = (String::new(), Vec::<Bound>::new(), text);
    while let Some((before, placeholder, behind)) = next(rest) {
        sql.push_str(before);
        let (word, column) = placeholder.split_once(':').unwrap_or((placeholder, ""));
        let value: Bound = match word {
            "from" => source.package.period_from.into(),
            "as_of" => source.package.as_of.into(),
            "after" => after.into(),
            _ => json!(source.subscriptions).into(),
        };
        match word {
            "all" => sql.push_str(if source.everything { "1 = 1" } else { "1 = 0" }),
            _ => {
                values.push(value);
                sql.push_str(&placed(backend, word, column, values.len()));
            }
        }
        rest = behind;
    }
    sql.push_str(rest);
    Statement::from_sql_and_values(backend, sql, values)
}

/// The text up to the next placeholder, the placeholder, and what follows it.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (placeholder, behind) = rest.split_once('}')?;
    Some((before, placeholder, behind))
}

fn placed(backend: DbBackend, word: &str, column: &str, n: usize) -> String {
    match (word, backend) {
        ("in", DbBackend::Sqlite) => format!("{column} IN (SELECT unhex(value, '-') FROM json_each(${n}))"),
        ("in", _) => {
            format!("{column} IN (SELECT CAST(x.value AS uuid) FROM jsonb_array_elements_text(${n}) AS x(value))")
        }
        ("any", DbBackend::Sqlite) => format!(
            "EXISTS (SELECT 1 FROM json_each({column}) AS e WHERE e.value IN (SELECT value FROM json_each(${n})))"
        ),
        ("any", _) => format!(
            "EXISTS (SELECT 1 FROM jsonb_array_elements_text({column}) AS e(value) \
             WHERE e.value IN (SELECT x.value FROM jsonb_array_elements_text(${n}) AS x(value)))"
        ),
        _ => format!("${n}"),
    }
}

/// Waits until nothing that began before the package was asked for may still change what it tells.
///
/// What a transaction writes bears the time of its statement, and it may commit later. SQLite has one writer, so there the order of
/// commits is that of the times; on PostgreSQL those that write are asked for.
///
/// # Errors
/// When the database cannot tell.
pub async fn settled(source: &Source<'_>) -> Result<bool, DbErr> {
    if source.db.get_database_backend() == DbBackend::Sqlite {
        return Ok(true);
    }
    const WRITING: &str = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
         AND backend_xid IS NOT NULL AND xact_start < {as_of}";
    Ok(count(source, WRITING).await? == 0)
}
