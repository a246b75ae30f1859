//! What both processes share: configuration, database, clock, identifiers, sealing, telemetry, shutdown.

pub mod clock;
pub mod config;
pub mod database;
pub mod ids;
pub mod process;
pub mod sealing;
pub mod shutdown;
pub mod signing_keys;
pub mod telemetry;
