//! The two programs as children: started, watched, and stopped once each.

use super::{settings::Settings, signals::Signals};
use anyhow::{Context, Error, Result, anyhow, bail};
use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// Both end within 30 s of a SIGTERM; beyond it something hangs.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a log that are shown when its program has ended by itself.
const SHOWN_LINES: usize = 15;

/// The API and its worker.
pub struct Processes {
    api: Process,
    worker: Process,
}

struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Processes {
    /// # Errors
    /// When a program is not there, or its log cannot be written.
    pub fn start(settings: &Settings) -> Result<Self> {
        // the first administrator's password goes to the API's standard output, and must be seen
        let api = Process::start(settings, "api", &["--migrate"], Stdio::inherit())?;
        let worker = Process::start(settings, "worker", &[], Stdio::null())?;
        Ok(Self { api, worker })
    }

    /// Comes when one of them ends by itself, with why, as far as its log tells.
    pub async fn one_dies(&mut self) -> Error {
        tokio::select! {
            died = self.api.dies() => died,
            died = self.worker.dies() => died,
        }
    }

    /// Asks both to stop, and waits until they did. A further signal kills them.
    ///
    /// # Errors
    /// When one had to be killed, or did not end with 0.
    pub async fn stop(&mut self, signals: &mut Signals) -> Result<()> {
        self.api.terminate().await?;
        self.worker.terminate().await?;
        let both = async { tokio::join!(self.api.ends(), self.worker.ends()) };
        tokio::select! {
            (api, worker) = both => return api.and(worker),
            () = signals.next() => {}
            () = tokio::time::sleep(STOPS_WITHIN) => {}
        }
        self.api.child.kill().await?;
        self.worker.child.kill().await?;
        bail!(
            "keywright-api and keywright-worker were killed before they had stopped; what was under way is taken up again"
        )
    }
}

impl Process {
    /// In a process group of its own: the terminal sends Ctrl-C to all of a group, and each is to be told once, by us.
    fn start(settings: &Settings, name: &'static str, arguments: &[&str], out: Stdio) -> Result<Self> {
        let log = settings.log(name);
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let program = settings.programs.join(format!("keywright-{name}"));
        let child = Command::new(&program)
            .args(arguments)
            .envs(settings.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.with_context(|| {
            format!("{} cannot be started; build it with `cargo build --workspace --bins`", program.display())
        })?;
        Ok(Self { name, log, child })
    }

    async fn dies(&mut self) -> Error {
        match self.child.wait().await {
            Ok(status) => self.ended(status),
            Err(error) => anyhow!("keywright-{} cannot be watched: {error}", self.name),
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        let tail = last_lines(&self.log, SHOWN_LINES);
        anyhow!("keywright-{} ended by itself ({status}). The end of {}:\n{tail}", self.name, self.log.display())
    }

    async fn terminate(&mut self) -> Result<()> {
        // no id: it has ended already
        let Some(id) = self.child.id() else { return Ok(()) };
        // the shell's own `kill`: there is always a shell, and a signal of our own would take unsafe code
        Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id.to_string()]).status().await?;
        Ok(())
    }

    async fn ends(&mut self) -> Result<()> {
        let status = self.child.wait().await?;
        if status.success() {
            return Ok(());
        }
        bail!("keywright-{} did not stop cleanly ({status}); see {}", self.name, self.log.display())
    }
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return format!("  (it cannot be read: {error})"),
    };
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.iter().skip(from).map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("x.log");
        assert_eq!(last_lines(&log, 2), "");
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(last_lines(&log, 2), "  two\n  three");
        assert_eq!(last_lines(&log, 9), "  one\n  two\n  three");
    }
}
