//! Promises of the engine that a test build breaks on purpose, to prove that the fault tests would notice.
//!
//! Without the feature `chaos`, which no shipped binary has, everything here is a constant.

use super::Held;
use sea_orm::{ConnectionTrait, DbErr};
use std::borrow::Cow;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// `fence`: a lost attempt stops and writes nothing.
    Fence,
    /// `acknowledge`: a job succeeds after its work, not before.
    AcknowledgeLast,
    /// `outage`: nobody is rescued for an outage of the database.
    OutagesExcused,
}

/// Whether this process breaks a promise, as `KWTEST_CHAOS` says.
#[cfg(feature = "chaos")]
pub fn breaks(promise: Promise) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| crate::setup::config::variable("KWTEST_CHAOS"));
    let name = match promise {
        Promise::Fence => "fence",
        Promise::AcknowledgeLast => "acknowledge",
        Promise::OutagesExcused => "outage",
    };
    chosen.as_deref() == Some(name)
}

#[cfg(not(feature = "chaos"))]
pub const fn breaks(_: Promise) -> bool {
    false
}

/// The fence by which an attempt writes: its own, or, without one, that of whoever holds the job now.
#[cfg(feature = "chaos")]
pub async fn fence(db: &impl ConnectionTrait, held: Held) -> Result<Held, DbErr> {
    if !breaks(Promise::Fence) {
        return Ok(held);
    }
    let job = keywright_entities::job::by_id(db, held.id).await?;
    Ok(job.map_or(held, |job| Held { id: job.id, epoch: job.epoch }))
}

#[cfg(not(feature = "chaos"))]
#[allow(clippy::unused_async, reason = "the other build asks the database")]
pub async fn fence(_: &impl ConnectionTrait, held: Held) -> Result<Held, DbErr> {
    Ok(held)
}

/// The same for many attempts at once.
#[cfg(feature = "chaos")]
pub async fn fences<'a, T: Clone>(
    db: &impl ConnectionTrait,
    attempts: &'a [(Held, T)],
) -> Result<Cow<'a, [(Held, T)]>, DbErr> {
    let mut fenced = Vec::new();
    for (held, outcome) in attempts {
        fenced.push((fence(db, *held).await?, outcome.clone()));
    }
    Ok(fenced.into())
}

#[cfg(not(feature = "chaos"))]
#[allow(clippy::unused_async, reason = "the other build asks the database")]
pub async fn fences<'a, T: Clone>(
    _: &impl ConnectionTrait,
    attempts: &'a [(Held, T)],
) -> Result<Cow<'a, [(Held, T)]>, DbErr> {
    Ok(attempts.into())
}
