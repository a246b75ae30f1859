//! How much longer a scan over HTTP takes than a bare loop of the SDK over the same secrets.

use super::{delay::DelayProxy, median, say};
use crate::{
    database::TestDatabase,
    instance::{Instance, aws_environment},
    rig::{ACCOUNT, AwsSeed, Rig},
};
use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Everything is in one region: the pages of a region can only be read one after the other.
const REGION: &str = "us-east-1";
/// The bare loop, beside the binaries of the same build.
const BARE: &str = "examples/list_secrets";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    pub(super) async fn open(self) -> Result<TestDatabase> {
        match self {
            Self::Sqlite => Ok(TestDatabase::sqlite().await),
            Self::Postgres => TestDatabase::postgres().await.context("a PostgreSQL server is needed"),
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    pub secrets: u32,
    /// Added to every call.
    pub latency: Duration,
    pub rounds: u32,
    pub databases: Vec<Kind>,
}

/// A scan beside the bare loop that ran immediately before it; in seconds.
struct Pair {
    bare: f64,
    /// From the request to the answer that says done.
    asked: f64,
    /// From `startedAt` to `completedAt`.
    worked: f64,
}

/// One round on a new database.
struct Round {
    first: Pair,
    second: Pair,
    /// The worker's peak memory in bytes, where the system tells it.
    peak: Option<u64>,
}

/// Measures, and prints a line as each round ends.
///
/// # Errors
/// When something cannot be started, or a run did not find every secret.
pub async fn run(options: &Options) -> Result<()> {
    let rig = Rig::find().context("the emulators are needed")?;
    let roto = rig.roto().await?;
    let seed = AwsSeed { secrets: options.secrets, regions: &[REGION], ..AwsSeed::default() };
    rig.seed_aws(roto.url(), &seed).await?;
    let upstream = roto.url().trim_start_matches("http://").parse()?;
    let proxy = DelayProxy::start(upstream, options.latency).await?;
    say(&format!(
        "{} secrets, {} ms added per call; seconds, and the ratio to the bare loop run just before",
        options.secrets,
        options.latency.as_millis()
    ));
    say("database  round  scan    bare   scan   ratio  started-completed  worker's peak");
    for database in &options.databases {
        let mut rounds = Vec::new();
        for number in 1..=options.rounds {
            let round = measure(*database, options, proxy.url()).await?;
            print(*database, number, &round);
            rounds.push(round);
        }
        summarise(*database, &rounds);
    }
    Ok(())
}

async fn measure(database: Kind, options: &Options, endpoint: &str) -> Result<Round> {
    let database = database.open().await?;
    let instance = Instance::start(&database, &aws_environment(endpoint)).await;
    let subscription = json!({"provider": "aws", "externalId": ACCOUNT, "name": "bench", "regions": [REGION]});
    let subscription = instance.subscribe(&subscription).await;
    let first = pair(&instance, &subscription, "created", options, endpoint).await?;
    let second = pair(&instance, &subscription, "unchanged", options, endpoint).await?;
    Ok(Round { first, second, peak: peak_memory(instance.worker.id()) })
}

/// `what` is what becomes of every secret.
async fn pair(instance: &Instance, subscription: &str, what: &str, options: &Options, url: &str) -> Result<Pair> {
    let bare = bare_loop(options, url).await?;
    let began = Instant::now();
    let job = instance.scan(subscription).await;
    let asked = began.elapsed().as_secs_f64();
    ensure!(job["state"] == "succeeded" && job["counts"][what] == options.secrets, "not every secret is {what}: {job}");
    Ok(Pair { bare, asked, worked: seconds_between(&job["startedAt"], &job["completedAt"])? })
}

/// Runs the bare loop in a process of its own, which times itself: its start does not count.
async fn bare_loop(options: &Options, endpoint: &str) -> Result<f64> {
    let program = std::env::current_exe()?.parent().context("our own folder")?.join(BARE);
    let mut command = Command::new(&program);
    command.env_clear().envs(aws_environment(endpoint));
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| format!("{} could not be started", program.display()))?;
    ensure!(output.status.success(), "the bare loop failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (found, seconds) = text.trim().split_once(' ').context("the bare loop printed something unexpected")?;
    ensure!(found == options.secrets.to_string(), "the bare loop found {found} secrets");
    Ok(seconds.parse()?)
}

pub(super) fn seconds_between(from: &Value, to: &Value) -> Result<f64> {
    let read = |time: &Value| DateTime::parse_from_rfc3339(time.as_str().unwrap_or_default());
    Ok((read(to)? - read(from)?).as_seconds_f64())
}

/// `VmHWM` of Linux; `None` elsewhere.
fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn print(database: Kind, number: u32, round: &Round) {
    let peak = round.peak.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes / (1024 * 1024)));
    for (name, pair) in [("first", &round.first), ("second", &round.second)] {
        say(&format!(
            "{:<9} {number:>5}  {name:<6} {:>5.2}  {:>5.2}  {:>6.3}  {:>17.2}  {peak:>13}",
            database.name(),
            pair.bare,
            pair.asked,
            pair.asked / pair.bare,
            pair.worked,
        ));
    }
}

fn summarise(database: Kind, rounds: &[Round]) {
    let ratio = |of: fn(&Round) -> &Pair| {
        let ratios: Vec<f64> = rounds.iter().map(of).map(|pair| pair.asked / pair.bare).collect();
        median(&ratios).unwrap_or(f64::NAN)
    };
    let (first, second) = (ratio(|round| &round.first), ratio(|round| &round.second));
    say(&format!("{:<9} median ratio: first {first:.3}, second {second:.3}", database.name()));
}
