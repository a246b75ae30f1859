//! Telling whether each connection keeps its own server process, as LISTEN and settings of a session need, or whether something in
//! between lends one process to several connections, one transaction or one statement at a time.
//!
//! It is found out by what it does, not by its name: a connection that has a process to itself is answered by the same one every
//! time, and nobody else is while it is connected.

use sqlx::{Connection, Executor, PgConnection, Row};

/// Connections beside the first that hold a transaction open: they take what a pooler has free, in whatever order it lends.
const HOLDERS: usize = 4;
/// How pgbouncer refuses a transaction in statement mode.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Whether server processes are shared between transactions, or between statements.
///
/// # Errors
/// When the database cannot be asked.
pub(super) async fn lends_per_transaction(url: &str) -> Result<bool, sqlx::Error> {
    let mut first = PgConnection::connect(url).await?;
    let own = process(&mut first).await?;
    let mut holders = Vec::with_capacity(HOLDERS);
    let mut shared = false;
    for _ in 0..HOLDERS {
        let mut holder = PgConnection::connect(url).await?;
        match holder.execute("BEGIN").await {
            // PostgreSQL itself never takes it for a violation of the protocol: here no transaction outlasts a statement
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(PROTOCOL_VIOLATION) => {
                return Ok(true);
            }
            begun => begun?,
        };
        shared |= process(&mut holder).await? == own;
        holders.push(holder);
        if shared {
            break;
        }
        shared |= process(&mut first).await? != own;
    }
    for holder in holders {
        holder.close().await?;
    }
    first.close().await?;
    Ok(shared)
}

/// The server process that answers. In the simple protocol: a statement that was prepared in one process is unknown to others.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}
