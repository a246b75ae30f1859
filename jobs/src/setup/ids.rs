//! Where identifiers and randomness come from.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use uuid::Uuid;

/// A new UUIDv7 (RFC 9562). Roughly ordered in time, which is kind to indices; nothing may rely on that order.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn new() -> Uuid {
    Uuid::now_v7()
}

/// The operating system gave no randomness; nothing that needs to be unguessable can be made.
#[derive(Debug, Error)]
#[error("the operating system's random generator failed")]
pub struct NoRandomness;

/// Fills a new array from the operating system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A number in 0..1 for spreading things in time; not for secrets.
pub fn jitter() -> f64 {
    rand::random()
}
