//! Opening the database, and the one way to write to it.

use crate::metrics;
use keywright_entities::clock;
use keywright_migration::{Migrator, MigratorTrait};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, Statement,
    TransactionTrait,
    sqlx::{
        Connection,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use std::{ops::Deref, path::Path, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::sync::Notify;

mod again;
mod pooler;
mod turns;

pub use again::Written;
pub use turns::Turn;
use turns::{Shared, Turns};

/// How long a statement may wait for SQLite's write lock while another process holds it.
const SQLITE_BUSY: Duration = Duration::from_secs(30);
/// How long a caller may wait for a pooled connection before it is told that the database is away.
const ACQUIRE: Duration = Duration::from_secs(5);
/// A pooled connection that has been idle for this long is asked whether it still works before it is used again: asking every
/// time would cost each statement a second way to the server.
const ASK_AFTER: Duration = Duration::from_millis(250);
/// A transaction that does nothing for this long belongs to a frozen or cut-off process: PostgreSQL ends it, so that the rows it
/// has locked can be taken over.
const IDLE_IN_TRANSACTION: &str = "SET idle_in_transaction_session_timeout = '5s'";
/// The same, and: rows are found along indices and in their order.
const ALONG_INDICES: &str = "SET idle_in_transaction_session_timeout = '5s'; SET enable_seqscan = off; \
    SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off";
/// The advisory lock that makes concurrent migrations take turns on PostgreSQL.
const MIGRATION_LOCK: i64 = 0x6b65_7977_7269_6768;

/// A pool of connections and the notice that something was committed.
#[derive(Clone)]
pub struct Database {
    connection: DatabaseConnection,
    url: Arc<str>,
    /// SQLite has one writer: the writers of this process queue here, in order, instead of spinning on the file's lock.
    turns: Option<Arc<Turns>>,
    /// Writes go before those of the others, and are not held up by them.
    urgent: bool,
    committed: Arc<Notify>,
}

/// Why a database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("DATABASE_URL must begin with sqlite:// or postgres://")]
    Scheme,
    #[error("the folder {path} of the SQLite file cannot be made: {source}")]
    Folder { path: String, source: std::io::Error },
    #[error("the database cannot be opened: {0}")]
    Database(#[from] DbErr),
    #[error(
        "DATABASE_URL leads to a pooler that lends server processes to connections for one transaction or statement at a time; \
         notifications and the settings of a session are lost there. Set the pooler to session mode (pgbouncer: \
         pool_mode = session), or name the server itself"
    )]
    Pooled,
}

impl Database {
    /// Opens `url` with at most `pool` connections; makes the folder of a SQLite file when it is missing.
    pub async fn open(url: &str, pool: u32) -> Result<Self, OpenError> {
        let sqlite = url.starts_with("sqlite:");
        if !sqlite && !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
            return Err(OpenError::Scheme);
        }
        if sqlite {
            make_folder(url)?;
        }
        let connection = sea_orm::Database::connect(options(url, pool, IDLE_IN_TRANSACTION)).await?;
        let committed = Arc::new(Notify::new());
        let turns = sqlite.then(|| Turns::new(Arc::clone(&committed)));
        Ok(Self { connection, url: url.into(), turns, urgent: false, committed })
    }

    /// Refuses what stands between this process and PostgreSQL and shares connections between transactions.
    ///
    /// # Errors
    /// [`OpenError::Pooled`] then; others when the database cannot be asked.
    pub async fn refuse_pooled(&self) -> Result<(), OpenError> {
        if self.backend() != DbBackend::Postgres {
            return Ok(());
        }
        match pooler::lends_per_transaction(&self.url).await {
            Ok(true) => Err(OpenError::Pooled),
            Ok(false) => Ok(()),
            Err(error) => Err(DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))).into()),
        }
    }

    /// Further connections of one's own to the same database, for writes that must not be late. On SQLite they take their turns
    /// in the same queue, at its head: the file's own lock is not fair, and a writer that only knocks now and then might not get
    /// in for seconds.
    pub async fn another(&self, pool: u32) -> Result<Self, OpenError> {
        let connection = sea_orm::Database::connect(options(&self.url, pool, IDLE_IN_TRANSACTION)).await?;
        Ok(Self { connection, urgent: true, ..self.clone() })
    }

    /// A connection of its own, which finds rows along indices and in their order, whatever PostgreSQL's statistics say. Those of a
    /// queue are often wrong: analysed when the line was empty, they promise so few rows that reading and sorting all of it seems
    /// cheap.
    ///
    /// # Errors
    /// When the connection cannot be made.
    pub async fn along_indices(&self) -> Result<Self, OpenError> {
        if self.backend() != DbBackend::Postgres {
            return Ok(self.clone());
        }
        let connection = sea_orm::Database::connect(options(&self.url, 1, ALONG_INDICES)).await?;
        Ok(Self { connection, ..self.clone() })
    }

    /// The same, with all statements that this handle sends told. For tests.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(&Statement) + Send + Sync + 'static) -> Self {
        self.connection.set_metric_callback(move |sent| tell(sent.statement));
        self
    }

    /// For reading. Writes go through [`Database::begin`].
    pub fn reader(&self) -> &DatabaseConnection {
        &self.connection
    }

    pub fn backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    /// The address this was opened with, password included: for opening further connections of one's own.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Is notified after each commit of this process.
    pub fn committed(&self) -> Arc<Notify> {
        Arc::clone(&self.committed)
    }

    /// Begins a write. On SQLite it has the write lock at once, so that a read in it cannot be overtaken, and may see what
    /// others of this process have written and not yet committed: end it, by a commit or a rollback, before you tell anybody
    /// what you read in it.
    pub async fn begin(&self) -> Result<Write, DbErr> {
        if let Some(turns) = &self.turns {
            return Ok(Write(Kind::Shared(
                turns.share(&self.connection, self.urgent).await.inspect_err(count_timeout)?,
            )));
        }
        let transaction = self.connection.begin().await.inspect_err(count_timeout)?;
        Ok(Write(Kind::Own(transaction, Arc::clone(&self.committed))))
    }

    /// This process's turn to write, for a single statement outside [`Database::begin`]. Only SQLite has turns.
    pub async fn turn(&self) -> Option<Turn> {
        match &self.turns {
            Some(turns) => Some(turns.alone(self.urgent).await),
            None => None,
        }
    }

    /// Brings the schema up to this program's version. Several processes may do so at once.
    pub async fn migrate(&self) -> Result<(), DbErr> {
        let write = self.begin().await?;
        if self.backend() == DbBackend::Postgres {
            let lock = Statement::from_sql_and_values(
                DbBackend::Postgres,
                "SELECT pg_advisory_xact_lock($1)",
                [MIGRATION_LOCK.into()],
            );
            write.execute_raw(lock).await?;
        }
        Migrator::up(&*write, None).await?;
        write.commit().await
    }

    /// Whether the schema is the one this program was built for: none missing, none from a newer program.
    pub async fn schema_is_current(&self) -> Result<bool, DbErr> {
        // without the table nothing is applied; any other reason shows in the ping
        let sql = "SELECT version FROM seaql_migrations";
        let rows = match self.connection.query_all_raw(Statement::from_string(self.backend(), sql)).await {
            Ok(rows) => rows,
            Err(error) => return self.ping().await.map(|()| false).map_err(|_| error),
        };
        let applied: Vec<String> = rows.iter().map(|row| row.try_get("", "version")).collect::<Result<_, _>>()?;
        Ok(Migrator::migrations().iter().all(|known| applied.iter().any(|version| version == known.name())))
    }

    /// How many connections there are to the database, and how many of them nobody uses.
    pub fn pool(&self) -> (u32, usize) {
        match self.backend() {
            DbBackend::Sqlite => {
                let pool = self.connection.get_sqlite_connection_pool();
                (pool.size(), pool.num_idle())
            }
            _ => {
                let pool = self.connection.get_postgres_connection_pool();
                (pool.size(), pool.num_idle())
            }
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbErr> {
        clock::now(&self.connection).await.map(|_| ())
    }

    pub async fn close(self) -> Result<(), DbErr> {
        self.connection.close().await
    }
}

/// A write transaction. Dropped without [`Write::commit`], it leaves no trace.
///
/// On SQLite concurrent writes of a process share a commit: each is a savepoint that can be rolled back alone.
pub struct Write(Kind);

enum Kind {
    Own(DatabaseTransaction, Arc<Notify>),
    Shared(Shared),
}

impl Write {
    /// Makes it durable, then wakes those who wait for news.
    ///
    /// # Errors
    /// When it is not durable, or when that is not known because the connection was lost. Writes that share a commit fail
    /// together.
    pub async fn commit(self) -> Result<(), DbErr> {
        match self.0 {
            Kind::Own(transaction, committed) => {
                transaction.commit().await?;
                committed.notify_one();
                Ok(())
            }
            Kind::Shared(shared) => shared.commit().await,
        }
    }

    /// Ends it without a trace, now rather than at some later time.
    ///
    /// # Errors
    /// When what was read in it may not be durable.
    pub async fn rollback(self) -> Result<(), DbErr> {
        match self.0 {
            Kind::Own(transaction, _) => transaction.rollback().await,
            Kind::Shared(shared) => shared.rollback().await,
        }
    }
}

impl Deref for Write {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        match &self.0 {
            Kind::Own(transaction, _) => transaction,
            Kind::Shared(shared) => &shared.transaction,
        }
    }
}

fn count_timeout(error: &DbErr) {
    if matches!(error, DbErr::ConnectionAcquire(_)) {
        metrics::acquire_timed_out();
    }
}

/// Whether an error is the database being away or busy, so that the same transaction may succeed later.
pub fn is_transient(error: &DbErr) -> bool {
    let sqlx = match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => error,
        _ => return false,
    };
    match &**sqlx {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// PostgreSQL: connection exceptions (08), serialization failure, deadlock, too many connections, shutdown and start-up (57P), a
/// transaction that it ended because its process had stood still (25P03);
/// SQLite: BUSY and LOCKED with their extended codes, and a full or failing disk.
fn is_transient_code(code: &str) -> bool {
    const CODES: &[&str] =
        &["40001", "40P01", "53300", "53100", "57P01", "57P02", "57P03", "25P03", "5", "6", "13", "261", "517"];
    code.len() == 5 && code.starts_with("08") || CODES.contains(&code)
}

/// `settings`: what each new connection to PostgreSQL is told first.
fn options(url: &str, pool: u32, settings: &'static str) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options.max_connections(pool).acquire_timeout(ACQUIRE).connect_timeout(ACQUIRE).sqlx_logging(false);
    options.test_before_acquire_if_idle_for(ASK_AFTER);
    options.map_sqlx_postgres_pool_opts(move |pool| {
        pool.after_connect(move |connection, _| {
            Box::pin(async move { sqlx::Executor::execute(connection, settings).await.map(|_| ()) })
        })
    });
    options.map_sqlx_sqlite_pool_opts(|pool| {
        pool.after_release(|connection, _| {
            Box::pin(async move {
                // a full disk makes SQLite end a transaction by itself; the driver's own ROLLBACK then fails, and it would go on
                // to take the connection's next transactions for inner ones, whose rollback lets go of no lock
                if connection.is_in_transaction() {
                    connection.ping().await?;
                }
                Ok(!connection.is_in_transaction())
            })
        })
    });
    options.map_sqlx_sqlite_opts(|sqlite| {
        sqlite
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(SQLITE_BUSY)
            .foreign_keys(true)
    });
    options
}

fn make_folder(url: &str) -> Result<(), OpenError> {
    let path = url.trim_start_matches("sqlite://").trim_start_matches("sqlite:");
    let path = path.split('?').next().unwrap_or(path);
    let Some(folder) = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|source| OpenError::Folder { path: folder.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn migrates_twice_and_from_two_processes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/nested/keywright.db", folder.path().display());
        let (one, two) = (Database::open(&url, 2).await.unwrap(), Database::open(&url, 2).await.unwrap());
        assert!(!one.schema_is_current().await.unwrap());
        let (first, second) = tokio::join!(one.migrate(), two.migrate());
        first.unwrap();
        second.unwrap();
        assert!(two.schema_is_current().await.unwrap());
        // on one connection: SQLite does not take an index for dropped that another one has dropped meanwhile
        let alone = Database::open(&url, 1).await.unwrap();
        Migrator::down(alone.reader(), None).await.unwrap();
        assert!(!one.schema_is_current().await.unwrap());
    }

    /// As it does when the disk is full.
    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_by_itself_leaves_no_lock_behind() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/keywright.db", folder.path().display());
        let (one, two) = (Database::open(&url, 1).await.unwrap(), Database::open(&url, 1).await.unwrap());
        let ended = one.begin().await.unwrap();
        ended.execute_unprepared("ROLLBACK").await.unwrap();
        drop(ended);
        let next = one.begin().await.unwrap();
        next.execute_unprepared("CREATE TABLE left_behind (id INTEGER)").await.unwrap();
        next.rollback().await.unwrap();
        let other = tokio::time::timeout(Duration::from_secs(10), two.begin()).await.expect("nobody holds the lock");
        other.unwrap().execute_unprepared("CREATE TABLE left_behind (id INTEGER)").await.unwrap();
    }

    #[tokio::test]
    async fn refuses_other_databases() {
        assert!(matches!(Database::open("mysql://root@127.0.0.1/x", 1).await, Err(OpenError::Scheme)));
    }
}
