//! `keywright-bench`: measures what docs/PERFORMANCE.md speaks of. `./just bench` builds and starts it.

use anyhow::Result;
use clap::{Parser, Subcommand};
use keywright_tests::bench::scan::{self, Kind};
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
        /// Milliseconds added to every call.
        #[arg(long, default_value_t = 50)]
        latency_ms: u64,
        /// Each on a new database.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// sqlite or postgres; both when absent.
        #[arg(long, value_parser = database)]
        database: Option<Kind>,
    },
}

fn database(text: &str) -> Result<Kind, String> {
    let kinds = [Kind::Sqlite, Kind::Postgres];
    kinds.into_iter().find(|kind| kind.name() == text).ok_or_else(|| "the databases are sqlite and postgres".to_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    let Bench::Scan { secrets, latency_ms, rounds, database } = Arguments::parse().bench;
    let databases = database.map_or_else(|| vec![Kind::Sqlite, Kind::Postgres], |one| vec![one]);
    scan::run(&scan::Options { secrets, latency: Duration::from_millis(latency_ms), rounds, databases }).await
}
