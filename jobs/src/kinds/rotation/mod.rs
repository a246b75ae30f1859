//! Rotation: a plan says what would be done, and an apply does it.

pub mod apply;
pub mod plan;
pub mod request;
