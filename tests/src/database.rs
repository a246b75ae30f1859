//! A database per test: a file of its own on SQLite, a clone of one migrated template on PostgreSQL.

use keywright_jobs::setup::{database::Database, ids};
use std::io::Write;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The address of an administrator's database on a PostgreSQL server that is there for the tests alone.
const POSTGRES: &str = "KWTEST_POSTGRES_URL";
/// Connections per handle.
const POOL: u32 = 8;

/// An empty database of the current schema, gone when it is dropped.
pub struct TestDatabase {
    pub database: Database,
    _place: Place,
}

enum Place {
    File { _folder: TempDir },
    Server { _clone: Clone },
}

impl TestDatabase {
    pub async fn sqlite() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let url = format!("sqlite://{}/keywright.db", folder.path().display());
        let database = Database::open(&url, POOL).await.expect("a new SQLite file");
        database.migrate().await.expect("the migrations run on SQLite");
        Self { database, _place: Place::File { _folder: folder } }
    }

    /// `None` after having said that the test is skipped.
    pub async fn postgres() -> Option<Self> {
        let admin = admin_url()?;
        let template = template(&admin).await;
        let clone = Clone { name: format!("kwtest_{}", ids::new().simple()), admin };
        let clone = clone.make(Some(template)).await;
        let database = Database::open(&clone.url(), POOL).await.expect("the cloned database opens");
        Some(Self { database, _place: Place::Server { _clone: clone } })
    }

    pub fn url(&self) -> &str {
        self.database.url()
    }

    /// Another handle on the same database, with connections and wake-ups of its own: as another process has.
    pub async fn another(&self) -> Database {
        Database::open(self.url(), POOL).await.expect("the database opens a second time")
    }
}

/// The address from the environment, or `None` after having said that the test is skipped.
pub fn admin_url() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the test runner tells through the environment what it started")]
    let url = std::env::var(POSTGRES).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        // past the test harness, which keeps the output of tests that pass to itself
        let _ = writeln!(std::io::stderr(), "skipped: needs {POSTGRES}");
    }
    url
}

/// The migrated template of this run. It goes with the server, which is there for the tests alone.
async fn template(admin: &str) -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let name = format!("kwtest_template_{}", ids::new().simple());
            let clone = Clone { name: name.clone(), admin: admin.to_owned() }.make(None).await;
            let database = Database::open(&clone.url(), 1).await.expect("the template opens");
            database.migrate().await.expect("the migrations run on PostgreSQL");
            // a template that somebody is connected to cannot be cloned
            database.close().await.expect("the template closes");
            std::mem::forget(clone);
            name
        })
        .await
}

/// A database on the server that is dropped with this value.
struct Clone {
    name: String,
    admin: String,
}

impl Clone {
    async fn make(self, template: Option<&str>) -> Self {
        let template = template.map(|name| format!(" TEMPLATE {name}")).unwrap_or_default();
        run(&self.admin, &format!("CREATE DATABASE {}{template}", self.name)).await.expect("a new PostgreSQL database");
        self
    }

    fn url(&self) -> String {
        let (server, _) = self.admin.rsplit_once('/').expect("the admin URL names a database");
        format!("{server}/{}", self.name)
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let (admin, drop) = (self.admin.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // a thread of its own, because the test's runtime may be the one that is unwinding
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(&admin, &drop)).map_err(std::io::Error::other)
        });
        if let Ok(Err(error)) = dropped.join() {
            let _ = writeln!(std::io::stderr(), "a test database stays behind: {error}");
        }
    }
}

async fn run(url: &str, statement: &str) -> anyhow::Result<()> {
    use sea_orm::ConnectionTrait;
    let admin = Database::open(url, 1).await?;
    admin.reader().execute_unprepared(statement).await?;
    admin.close().await?;
    Ok(())
}

/// Makes each of these `async fn(TestDatabase)` two tests: `sqlite::name` and `postgres::name`.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::database::TestDatabase::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(database) = $crate::database::TestDatabase::postgres().await {
                    super::$name(database).await;
                }
            })+
        }
    };
}
