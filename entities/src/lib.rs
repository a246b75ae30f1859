//! Rows of the Keywright database and the queries on them, one file per table.

pub mod asset;
pub mod asset_version;
pub mod audit_outbox;
pub mod clock;
pub mod job;
pub mod scan;
pub mod scan_warning;
pub mod scope;
pub mod subscription;
pub mod types;
pub mod vault;
pub mod worker;
