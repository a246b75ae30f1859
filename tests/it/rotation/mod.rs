//! Rotations over the in-memory cloud: whatever dies whenever, what is stored as current works.

mod clouds;
mod crashes;
mod trouble;
