//! `keywright-bench`: measures what docs/PERFORMANCE.md speaks of. `./just bench` builds and starts it.

use anyhow::Result;
use clap::{Parser, Subcommand};
use keywright_tests::bench::{
    engine::{self, Measure},
    login, paced,
    scan::{self, Kind},
};
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Measures a release build; prints figures and judges none")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// A scan over HTTP against a bare loop of the SDK.
    Scan {
        #[arg(long, default_value_t = 10_000)]
        secrets: u32,
        /// Milliseconds added to every call; 50 when absent, with `--paced` and `--workers` 100.
        #[arg(long)]
        latency_ms: Option<u64>,
        /// Against the floor that the scan computes, instead of the bare loop.
        #[arg(long, conflicts_with = "workers")]
        paced: bool,
        /// Twenty regions by one worker of two slots, and by two of them.
        #[arg(long)]
        workers: bool,
        /// Each on a new database.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// sqlite or postgres; both when absent.
        #[arg(long, value_parser = database)]
        database: Option<Kind>,
    },
    /// A flood of logins beside a job that runs: what is answered, and how fast `/health` is.
    Login {
        /// Logins per second.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// sqlite or postgres; both when absent.
        #[arg(long, value_parser = database)]
        database: Option<Kind>,
    },
    /// The engine against bare SQL and a strong peer.
    Engine {
        /// enqueue, sqlite, drain, latency, recovery, http or retention; all but the last when absent.
        #[arg(value_parser = measure)]
        measures: Vec<Measure>,
        #[arg(long, default_value_t = 5)]
        repetitions: u32,
        /// How long each rate is measured.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        #[arg(long, default_value_t = 20_000)]
        jobs: u32,
        #[arg(long, default_value_t = 300)]
        starts: u32,
        /// Everything at its full length: 20 workers killed, two minutes of idling, a million ended jobs, ten minutes of an old
        /// snapshot.
        #[arg(long)]
        long: bool,
    },
}

fn measure(text: &str) -> Result<Measure, String> {
    let names = || Measure::ALL.map(Measure::name).join(", ");
    Measure::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| format!("what can be measured: {}", names()))
}

fn database(text: &str) -> Result<Kind, String> {
    let kinds = [Kind::Sqlite, Kind::Postgres];
    kinds.into_iter().find(|kind| kind.name() == text).ok_or_else(|| "the databases are sqlite and postgres".to_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().bench {
        Bench::Scan { secrets, latency_ms, paced, workers, rounds, database } => {
            let databases = database.map_or_else(|| vec![Kind::Sqlite, Kind::Postgres], |one| vec![one]);
            let latency = Duration::from_millis(latency_ms.unwrap_or(if paced || workers { 100 } else { 50 }));
            let options = scan::Options { secrets, latency, rounds, databases };
            match (paced, workers) {
                (true, _) => paced::floor(&options).await,
                (_, true) => paced::workers(&options).await,
                _ => scan::run(&options).await,
            }
        }
        Bench::Login { rate, seconds, database } => {
            let databases = database.map_or_else(|| vec![Kind::Sqlite, Kind::Postgres], |one| vec![one]);
            login::run(rate, Duration::from_secs(seconds.into()), &databases).await
        }
        Bench::Engine { mut measures, repetitions, seconds, jobs, starts, long } => {
            if measures.is_empty() {
                measures.extend(Measure::ALL.into_iter().filter(|&one| long || !one.takes_long()));
            }
            let span = Duration::from_secs_f64(seconds);
            let (kills, idle) = if long { (20, Duration::from_secs(120)) } else { (3, Duration::from_secs(5)) };
            let snapshot = Duration::from_secs(if long { 600 } else { 60 });
            engine::run(&engine::Options { measures, repetitions, span, jobs, kills, starts, idle, snapshot }).await
        }
    }
}
