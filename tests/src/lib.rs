//! Support for the integration tests in `it/`, and the driver behind `./just up`.

pub mod app;
pub mod database;
pub mod process;
pub mod rig;
pub mod up;
