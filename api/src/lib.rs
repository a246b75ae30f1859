//! The HTTP facade of Keywright: it authorises, validates, enqueues and answers.

pub mod answer;
pub mod context;
pub mod error;
pub mod page;
pub mod patch;
pub mod routes;
pub mod timestamp;
