//! Evidence packages, and their verification: offline, with the package and a public key.
//!
//! A package is a ZIP whose `manifest.json` lists every other file with size and SHA-256 and is itself signed in `manifest.sig`.

mod archive;
mod rows;
mod verify;

use serde::Deserialize;

pub use verify::{Inputs, Report, verify};

/// The name of the form that this version reads.
pub const FORMAT: &str = "keywright.evidence/1";
pub const MANIFEST: &str = "manifest.json";
pub const SIGNATURE: &str = "manifest.sig";
/// The audit log's events, in the form of [`crate::export`].
pub const EVENTS: &str = "audit/events.ndjson";
/// Jobs that ended, each of which the audit log tells of.
pub const JOBS: &str = "jobs";

/// What the verifier reads of a manifest; the rest of it is covered by the signature.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: String,
    pub package: String,
    #[serde(default)]
    pub organisation: String,
    pub exported_at: String,
    pub period: Period,
    /// The verifier key whose private half signed it.
    pub signed_by: String,
    pub sample: Sample,
    pub populations: Vec<Population>,
    pub files: Vec<File>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Period {
    pub from: String,
    pub to: String,
}

/// How samples were drawn.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    pub seed: String,
    pub size: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Population {
    pub population: String,
    pub rows: u64,
    pub columns: Vec<String>,
    pub csv: String,
    pub jsonl: String,
    pub sample: Drawn,
}

/// The file that holds a sample.
#[derive(Clone, Debug, Deserialize)]
pub struct Drawn {
    pub file: String,
    pub rows: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct File {
    pub path: String,
    pub size: u64,
    /// In hex.
    pub sha256: String,
}
