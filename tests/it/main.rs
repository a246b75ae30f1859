//! The integration tests, in one binary.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy exempts functions marked as tests, not the ones that they call"
)]

mod architecture;
mod audit;
mod aws;
mod aws_http;
mod canaries;
mod conformance;
mod evidence;
mod evidence_events;
mod evidence_stores;
mod evidence_tools;
mod evidence_verifier;
mod faults;
mod gcp;
mod gcp_http;
mod http;
mod kms;
mod observe;
mod pacing;
mod pooler;
mod queue;
mod retention;
mod rotation;
mod runner;
mod schedules;
mod sealing;
mod up;
mod wake;
