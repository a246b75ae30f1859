//! PostgreSQL behind pgbouncer: a connection that is kept for a session will do, one that is lent for a transaction is refused.

use keywright_tests::{app::eventually, database::TestDatabase, instance::MASTER_KEY, process::Process};
use std::{
    io::Write,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// The program that `scripts/pgbouncer.sh` prints.
const PROGRAM: &str = "KWTEST_PGBOUNCER";

struct Pooler {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` after having said that the test is skipped.
fn program() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the test runner tells through the environment what it found")]
    let program = std::env::var(PROGRAM).ok().filter(|program| !program.is_empty());
    if program.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: needs pgbouncer");
    }
    program
}

/// A pooler in front of the test's database.
async fn pooler(program: &str, database: &TestDatabase, mode: &str, round_robin: bool) -> Pooler {
    let (_, server) = database.url().split_once('@').unwrap();
    let (address, name) = server.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let folder = TempDir::new().unwrap();
    let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = format!(
        "[databases]\n{name} = host={host} port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\nserver_round_robin = {}\n\
         ignore_startup_parameters = extra_float_digits\n",
        own.port(),
        u8::from(round_robin),
    );
    let file = folder.path().join("pgbouncer.ini");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(program);
    let child = command.arg("-q").arg(&file).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pooler = Pooler { child, url: format!("postgres://postgres@{own}/{name}"), _folder: folder };
    eventually("the pooler listens", async || TcpStream::connect(own).await.ok()).await;
    pooler
}

fn environment(url: &str) -> [(&str, &str); 3] {
    [("DATABASE_URL", url), ("KEYWRIGHT_LISTEN", "127.0.0.1:0"), ("KEYWRIGHT_MASTER_KEY", MASTER_KEY)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_and_statement_mode_are_refused_at_start() {
    let Some(program) = program() else { return };
    let Some(test) = TestDatabase::postgres().await else { return };
    for (mode, round_robin) in [("transaction", false), ("transaction", true), ("statement", false)] {
        let pooler = pooler(&program, &test, mode, round_robin).await;
        for binary in ["keywright-api", "keywright-worker"] {
            let mut process = Process::start(binary, &environment(&pooler.url));
            let status = process.ended(Duration::from_secs(60)).await;
            assert_eq!(status.code(), Some(2), "{}", process.log());
            assert!(process.log().contains("pool_mode = session"), "{}", process.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_mode_works() {
    let Some(program) = program() else { return };
    let Some(test) = TestDatabase::postgres().await else { return };
    let pooler = pooler(&program, &test, "session", false).await;
    let mut api = Process::start("keywright-api", &environment(&pooler.url));
    api.logged("keywright-api ready").await;
    let mut worker = Process::start("keywright-worker", &environment(&pooler.url));
    worker.logged("worker ready").await;
}
