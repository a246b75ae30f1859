//! Support for the integration tests in `it/`, and the driver behind `./just up`.

pub mod rig;
