//! Discovery: scans, and the inventory that they made.

mod assets;
mod scans;

pub use assets::AssetsApi;
pub use scans::{ScansApi, problems as scan_problems};
