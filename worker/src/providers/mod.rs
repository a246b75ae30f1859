//! The clouds, one folder each, and the one place that dispatches between them.

pub mod aws;
pub mod http;
