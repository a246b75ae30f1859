//! What a process tells about itself: log lines, and traces.
//!
//! Log lines go to standard error, as text for people or JSON for machines.

pub mod traces;

use super::config::LogFormat;
use std::io::IsTerminal;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The filter of `KEYWRIGHT_LOG` cannot be read, or logging was begun twice.
#[derive(Debug, Error)]
#[error("logging cannot begin: {0}")]
pub struct TelemetryError(String);

/// Libraries speak up from warnings on, unless the filter names them.
const LIBRARIES: &str = "apalis_core=warn,opentelemetry=warn,poem=warn,sea_orm_migration=warn,sqlx=warn";

/// Begins logging for this process.
pub fn start(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(format!("{LIBRARIES},{filter}")).map_err(|error| TelemetryError(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(layer).try_init(),
    }
    .map_err(|error| TelemetryError(error.to_string()))
}
