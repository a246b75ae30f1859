//! The driver behind `./just up`.

pub mod client;
pub mod credentials;
pub mod processes;
pub mod settings;
pub mod signals;
pub mod summary;
pub mod target;

use anyhow::{Result, bail};
use client::Client;
use processes::Processes;
use settings::Settings;
use signals::Signals;
use std::{
    fmt::Display,
    io::{Write, stdout},
    path::PathBuf,
};
use summary::Summary;
use target::Target;

/// What the command line asks for.
#[derive(Debug)]
pub struct Wishes {
    /// Stop after the summary.
    pub once: bool,
    /// Look at this instead of the trust store.
    pub path: Option<PathBuf>,
}

/// Starts both programs, scans, tells, stays until a signal, and stops both.
///
/// # Errors
/// When a program ends by itself or not with 0, and with `once` when there is no summary. Both programs have ended then.
pub async fn run(settings: &Settings, wishes: Wishes, mut signals: Signals) -> Result<()> {
    let target = Target::choose(wishes.path.as_deref())?;
    say(settings.greeting())?;
    let mut processes = Processes::start(settings)?;
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        died = processes.one_dies() => Err(died),
        outcome = present(settings, &target, wishes.once) => outcome,
    };
    // a terminal that is gone cannot be told, but both programs are still to be stopped
    let _ = say("Stopping…");
    let stopped = processes.stop(&mut signals).await;
    outcome.and(stopped)
}

/// Goes from two fresh processes to the summary. Without `once` it never returns: what failed is told, and the instance
/// stays up to be looked at.
async fn present(settings: &Settings, target: &Target, once: bool) -> Result<()> {
    let told = match scan(settings, target).await {
        Ok(summary) => {
            say(&summary)?;
            Ok(())
        }
        Err(error) => Err(error),
    };
    if once {
        return told;
    }
    if let Err(error) = told {
        say(format!("\nThe scan did not come to its end: {error:#}"))?;
    }
    say(settings.addresses())?;
    say("\nCtrl-C stops both.")?;
    std::future::pending().await
}

async fn scan(settings: &Settings, target: &Target) -> Result<Summary> {
    let client = Client::new(&settings.url)?;
    client.ready().await;
    let client = credentials::operator(settings, client).await?;
    let subscription = match client.subscription(&target.external_id).await? {
        Some(id) => id,
        None => credentials::briefly_admin(settings, &client).await?.add_subscription(target).await?,
    };
    say(format!("Scanning {}", target.path.display()))?;
    let mut job = client.start_scan(&subscription).await?;
    while !job.done {
        say(format!("  {}: {} found", job.state, job.counts.found))?;
        job = client.wait(&job.id).await?;
    }
    if job.state == "failed" {
        let reasons = client.reasons(&job).await?;
        bail!("{reasons}; {} has more", settings.log("worker").display());
    }
    let mut summary = Summary::new(target, subscription.clone(), job);
    client.each_asset(&subscription, |asset| summary.add(asset)).await?;
    Ok(summary)
}

fn say(what: impl Display) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}
