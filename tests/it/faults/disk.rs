//! A disk that is full under SQLite: everybody is told, nothing is lost, and it goes on when there is room again.

use super::database::{AWAY, busy, keep_asking};
use keywright_jobs::setup::database::Database;
use keywright_tests::faults::{double::Plan, trial::Trial};
use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A small file system in memory; gone when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` after having said that the test is skipped.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "keywright-test"]).arg(folder.path());
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            // past the test harness, which keeps the output of tests that pass to itself
            let _ = writeln!(std::io::stderr(), "skipped: needs the right to mount a tmpfs");
        }
        mounted.then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left, until the file is removed.
    fn fill(&self) {
        let mut filler = File::create(self.path().join("filler")).unwrap();
        while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let url = format!("sqlite://{}/keywright.db", disk.path().display());
    let db = Database::open(&url, 8).await.unwrap();
    db.migrate().await.unwrap();
    let trial = Trial::on("disk full", &db).await;
    busy(&trial).await;
    let (_first, _second, facade) = tokio::join!(trial.worker("first"), trial.worker("second"), trial.facade());
    let other = trial.account("other", Plan::default()).await;
    trial.double.asked(1 + 8).await;
    disk.fill();
    let enough = CancellationToken::new();
    let asking = keep_asking(facade.client(), other, enough.clone());
    trial.double.release();
    tokio::time::sleep(Duration::from_secs(5)).await;
    enough.cancel();
    assert!(asking.await.unwrap() > 0, "nobody was told that the disk is full");
    disk.free();
    trial.judge(&AWAY).await;
}
