//! Real processes: the binaries of this build, started as an operator would, ended as a machine would.

use crate::app::{PATIENCE, eventually};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// What to send to a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Kill,
    Term,
    Stop,
    Continue,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "-KILL",
            Self::Term => "-TERM",
            Self::Stop => "-STOP",
            Self::Continue => "-CONT",
        }
    }
}

/// A running binary; dropping it kills it.
pub struct Process {
    child: Child,
    log: PathBuf,
    folder: TempDir,
}

impl Process {
    /// Starts `keywright-worker` or `keywright-api` with nothing in its environment but this and the search path.
    pub fn start(binary: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_with(binary, &[], environment)
    }

    /// The same with arguments.
    pub fn start_with(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let log = folder.path().join("log");
        let file = File::create(&log).expect("a log file");
        let child = Command::new(built(binary))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("KEYWRIGHT_DATA_DIR", folder.path())
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{binary} could not be started (is it built?): {error}"));
        Self { child, log, folder }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([signal.name(), &id]).status().expect("kill runs");
        assert!(sent.success(), "{signal:?} could not be sent to {id}");
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(mut self) {
        self.signal(Signal::Kill);
        let _ = self.child.wait();
    }

    /// Whether it is gone, of itself or not.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let end = eventually("the process ends", async || child.try_wait().expect("a child of ours"));
        let ended = tokio::time::timeout(within, end).await;
        ended.unwrap_or_else(|_| panic!("still running after {within:?}; its log:\n{}", self.log()))
    }

    /// Where it runs and keeps its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log holds this.
    pub async fn logged(&mut self, text: &str) {
        let looking = async {
            loop {
                if self.log().contains(text) {
                    return;
                }
                let ended = self.child.try_wait().expect("a child of ours");
                assert!(ended.is_none(), "it ended before it logged {text:?}; its log:\n{}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, looking).await;
        assert!(told.is_ok(), "never logged {text:?}; its log:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // gone already, or not: both are fine
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprint!("--- log of a process\n{}", self.log());
        }
    }
}

/// Whether a binary that a plain build leaves out was built, after `with` was. Says that the test is skipped if not.
pub fn is_built_with(binary: &str, with: &str) -> bool {
    let age = |name| std::fs::metadata(built(name)).and_then(|file| file.modified());
    let built = age(binary).is_ok_and(|built| age(with).is_ok_and(|with| with <= built));
    if !built {
        // past the test harness, which keeps the output of tests that pass to itself
        let _ = writeln!(std::io::stderr(), "skipped: needs {binary} of this build");
    }
    built
}

/// Where this build put a binary: beside our own, or, when we are a test, beside the folder that holds the tests.
pub fn built(binary: &str) -> PathBuf {
    let own = std::env::current_exe().expect("our own path");
    let folder = own.parent().expect("target/<profile>/<binary> or target/<profile>/deps/<test>");
    let folder = if folder.ends_with("deps") { folder.parent().expect("target/<profile>") } else { folder };
    Path::new(folder).join(binary)
}
