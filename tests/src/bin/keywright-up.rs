//! `keywright-up`, behind `./just up`: an instance of one API and one worker in the foreground, and a first scan of this
//! machine, asked for over HTTP as any client would.

use clap::Parser;
use keywright_jobs::setup::config::{EXIT_BAD_CONFIG, Loaded};
use keywright_tests::up::{self, Wishes, settings::Settings, signals::Signals};
use std::{
    fmt::Display,
    io::{Write, stderr},
    path::PathBuf,
    process::ExitCode,
};

/// Brings an instance up in ./data, scans this machine's trust store over HTTP and prints what it found.
#[derive(Parser)]
#[command(name = "keywright-up", version)]
struct Arguments {
    /// Stops after the summary instead of at Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Scans this file or directory instead of the trust store.
    #[arg(long)]
    path: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = match Loaded::from_process() {
        Ok(loaded) => loaded,
        Err(error) => return told(&error, EXIT_BAD_CONFIG),
    };
    let wishes = Wishes { once: arguments.once, path: arguments.path };
    match run(&loaded, wishes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&format!("{error:#}"), 1),
    }
}

fn told(what: &impl Display, code: u8) -> ExitCode {
    // nobody is left to tell when standard error is closed
    let _ = writeln!(stderr(), "keywright-up: {what}");
    ExitCode::from(code)
}

fn run(loaded: &Loaded, wishes: Wishes) -> anyhow::Result<()> {
    let settings = Settings::new(loaded)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { up::run(&settings, wishes, Signals::listen()?).await })
}
