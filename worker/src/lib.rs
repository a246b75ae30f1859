//! The process that touches clouds: it claims Keywright's jobs and runs them.

pub mod attempt;
pub mod listen;
pub mod process;
pub mod providers;
pub mod report;
pub mod runner;
