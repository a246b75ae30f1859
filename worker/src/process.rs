//! A worker process from its arguments to its exit code, whatever clouds it reaches.

use crate::{
    listen, report,
    runner::{Ended, Runner},
};
use anyhow::Context as _;
use clap::Parser;
use keywright_jobs::{
    evidence::Workshop,
    provider::Providers,
    setup::{
        clock::Clock,
        config::{Config, EXIT_BAD_CONFIG, Loaded},
        database::{Database, OpenError, is_transient},
        process,
        sealing::{Sealing, StartError},
        shutdown, telemetry,
    },
};
use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often a worker looks whether its schema has come.
const SCHEMA_LOOK: Duration = Duration::from_millis(500);

/// Threads for blocking work beside the jobs'; as many as the runtime has by itself.
const OTHER_THREADS: usize = 512;

/// Runs Keywright's jobs. Settings come from the environment and from the file named by KEYWRIGHT_CONFIG.
#[derive(Parser)]
#[command(name = "keywright-worker", version)]
struct Arguments {
    /// Prints the settings in force, secrets masked, and ends: 0 when they are right, 2 when not.
    #[arg(long)]
    check_config: bool,
}

/// Runs the process; `connect` makes the clouds that its jobs reach.
pub fn main(connect: impl FnOnce(&Config) -> anyhow::Result<Arc<dyn Providers>>) -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = match Loaded::from_process() {
        Ok(loaded) => loaded,
        Err(error) => return told(&error, EXIT_BAD_CONFIG),
    };
    if arguments.check_config {
        #[allow(clippy::print_stdout, reason = "this is what was asked for")]
        {
            print!("{}", loaded.report());
        }
        return ExitCode::SUCCESS;
    }
    match run(loaded.config, connect) {
        Ok(Ended::Clean) => ExitCode::SUCCESS,
        Ok(Ended::Dropped(count)) => told(
            &format!(
                "the outcome of {count} jobs could not be written; other workers run them when their leases lapse"
            ),
            1,
        ),
        Err(error) => {
            let code = if is_configuration(&error) { EXIT_BAD_CONFIG } else { 1 };
            told(&format!("{error:#}"), code)
        }
    }
}

fn is_configuration(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::Pooled))
        || error.downcast_ref().is_some_and(StartError::is_configuration)
}

#[allow(clippy::print_stderr, reason = "the log may not have begun")]
fn told(what: &impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("keywright-worker: {what}");
    ExitCode::from(code)
}

fn run(config: Config, connect: impl FnOnce(&Config) -> anyhow::Result<Arc<dyn Providers>>) -> anyhow::Result<Ended> {
    telemetry::start(&config.log, config.log_format)?;
    process::forbid_core_dumps();
    let _exporting =
        config.otlp_endpoint.as_ref().map(|url| telemetry::traces::export(url, "keywright-worker")).transpose()?;
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    // each running job fills a thread; what the jobs themselves wait for, files and names, needs further ones
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(config.worker_concurrency + OTHER_THREADS)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(work(config, connect));
    // a blocking call that never returns must not hold up the exit
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn work(
    config: Config,
    connect: impl FnOnce(&Config) -> anyhow::Result<Arc<dyn Providers>>,
) -> anyhow::Result<Ended> {
    let stop = shutdown::on_signal().context("signal handlers")?;
    let off = CancellationToken::new();
    let polls = Arc::default();
    let opened = Arc::new(OnceLock::new());
    if let Some(address) = config.worker_listen {
        let face = listen::Face {
            polls: Arc::clone(&polls),
            database: Arc::clone(&opened),
            metrics_open: config.worker_metrics_open,
        };
        listen::start(address, face, off.clone()).await.context("KEYWRIGHT_WORKER_LISTEN")?;
    }
    let Some(database) = open(&config, &stop).await? else {
        return Ok(Ended::Clean);
    };
    let _ = opened.set(database.clone());
    let Some(sealing) = unlock(&database, &config, &stop).await? else {
        database.close().await?;
        return Ok(Ended::Clean);
    };
    let runner = Runner {
        database: database.clone(),
        providers: connect(&config)?,
        sealing,
        evidence: Workshop::new(config.evidence_store(), &config.data_dir, report::layout()),
        clock: Clock::system(),
        name: host_name(&config),
        labels: config.worker_labels.clone(),
        concurrency: config.worker_concurrency,
        lease: config.lease,
        grace: config.shutdown_grace,
        polls,
        retention: config.retention.clone(),
        limits: config.limits.clone(),
        quota_percent: config.quota_percent,
    };
    let ended = runner.run(stop).await;
    off.cancel();
    database.close().await?;
    ended
}

/// Opens the database and waits for the schema; `None` when the process was stopped meanwhile.
async fn open(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<Database>> {
    let mut told = false;
    loop {
        let ready = match Database::open(config.database_url.expose(), config.db_pool).await {
            Ok(database) => match (database.refuse_pooled().await, database.schema_is_current().await) {
                (Err(pooled @ OpenError::Pooled), _) => return Err(pooled.into()),
                (Err(error), _) => error.to_string(),
                (Ok(()), Ok(true)) => return Ok(Some(database)),
                (Ok(()), Ok(false)) => "its schema is not there yet; `keywright-api --migrate` makes it".to_owned(),
                (Ok(()), Err(error)) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if !told {
            tracing::warn!(database = %config.database_url, reason = ready, "waiting for the database");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(SCHEMA_LOOK) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Waits until the key-encryption key is there and the database answers; `None` when the process was stopped meanwhile.
async fn unlock(database: &Database, config: &Config, stop: &CancellationToken) -> Result<Option<Sealing>, StartError> {
    let mut told = false;
    loop {
        let waiting = match Sealing::join(database, config.master_keys()).await {
            Ok(Some(sealing)) => return Ok(Some(sealing)),
            Ok(None) => "keywright-api has not made the key-encryption key yet".to_owned(),
            Err(StartError::Database(error)) if is_transient(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        if !told {
            tracing::warn!(reason = waiting, "waiting for the key-encryption key");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(SCHEMA_LOOK) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

fn host_name(config: &Config) -> String {
    config.worker_labels.first().cloned().unwrap_or_else(|| "worker".to_owned())
}
