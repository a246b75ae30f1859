//! The integration tests, in one binary.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy excepts only functions marked #[test]; here what they call is a test as well"
)]

mod architecture;
mod aws;
