//! Support for the integration tests in `it/`, and the driver behind `./just up`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "what tests call is a test as well: it may fail where it stands, and tell on the terminal"
)]

pub mod app;
pub mod bench;
pub mod collector;
pub mod database;
pub mod event_stream;
pub mod faults;
pub mod gcp_kms;
pub mod http;
pub mod instance;
pub mod licence;
pub mod oidc;
pub mod people;
pub mod process;
pub mod rig;
pub mod rotating;
pub mod scrape;
pub mod spoiled_wire;
pub mod stub;
pub mod up;
pub mod wire;
