//! Discovery: scans, and the inventory that they made.

mod assets;
mod coverage;
mod duplicates;
mod scans;

pub use assets::AssetsApi;
pub use coverage::CoverageApi;
pub use duplicates::DuplicatesApi;
pub use scans::{Conflict, ScansApi, problems as scan_problems};
