//! Rows of the Keywright database and the queries on them, one file per table.

pub mod types;
