//! The HTTP facade of Keywright: it authorises, validates, enqueues and answers.

pub mod answer;
pub mod app;
pub mod auth;
pub mod client_address;
mod conformance;
pub mod context;
pub mod cors;
mod docs;
pub mod edge;
pub mod error;
pub mod front;
pub mod idempotency;
pub mod licence;
pub mod limits;
pub mod openapi;
pub mod page;
pub mod patch;
pub mod readiness;
pub mod routes;
pub mod server;
pub mod service;
mod streamed;
pub mod strict;
pub mod timestamp;
pub mod wire;
