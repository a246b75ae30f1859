//! Pure rules: every function here is synchronous and decides by its arguments alone.

pub mod backoff;
pub mod evidence;
pub mod floor;
pub mod google;
pub mod inventory;
pub mod licence;
pub mod merge_patch;
pub mod pacing;
pub mod permissions;
pub mod quotas;
pub mod rotation;
pub mod schedule;
pub mod settings;
