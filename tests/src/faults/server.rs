//! A PostgreSQL of a test's own, to be killed and restarted.

use crate::{app::eventually, database::admin_url};
use std::{path::PathBuf, process::Stdio};
use tempfile::TempDir;
use tokio::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres.sh");

/// The server; ends when it is dropped.
pub struct Server {
    pub url: String,
    folder: TempDir,
}

impl Server {
    /// `None` after having said that the test is skipped.
    pub async fn start() -> Option<Self> {
        // where there is no server for the tests there are no programs for another one
        admin_url()?;
        let folder = TempDir::new().expect("a temporary folder");
        let mut server = Self { url: String::new(), folder };
        server.up().await;
        Some(server)
    }

    /// Starts it, where it was before.
    pub async fn up(&mut self) {
        let started = eventually("PostgreSQL starts", async || {
            let started = self.script("start").output().await.expect("the script runs");
            // the sessions of one that was killed may take a moment to go
            started.status.success().then(|| String::from_utf8(started.stdout).expect("text"))
        });
        let url = started.await.trim().to_owned();
        assert!(self.url.is_empty() || self.url == url, "it came back elsewhere: {url}");
        self.url = url;
    }

    /// Ends it as an operator would.
    pub async fn down(&self) {
        let stopped = self.script("stop").status().await.expect("the script runs");
        assert!(stopped.success(), "PostgreSQL does not stop");
    }

    /// Kills it at once, as a machine would.
    pub async fn kill(&self) {
        let file = self.folder.path().join("cluster/postmaster.pid");
        let file = std::fs::read_to_string(file).expect("a running server");
        let id = file.lines().next().expect("its number").trim();
        let killed = Command::new("kill").args(["-KILL", id]).status().await.expect("kill runs");
        assert!(killed.success(), "PostgreSQL {id} could not be killed");
    }

    fn script(&self, action: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        let folder: PathBuf = self.folder.path().to_owned();
        command.arg(action).arg(folder).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::process::Command::new(SCRIPT).arg("stop").arg(self.folder.path()).status();
    }
}
