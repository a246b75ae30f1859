//! Identity: who calls, and what they may do.
//!
//! * [`caller`]: the gate. A handler that holds a [`Caller`] has proof of the permission in its type.
//! * [`permissions`]: the one table of roles and permissions, kept with the domain, since schedules ask it too.
//! * [`sessions`]: sign in, refresh, sign out, passwords.
//! * [`api_tokens`]: tokens for programs.
//! * [`users`]: who there is.
//! * [`access`], [`signing_keys`]: short-lived signed tokens and their keys; [`opaque`]: all other tokens.
//! * [`bootstrap`], [`operator`]: the first user, and what an operator does at the command line.

pub mod access;
pub mod api_tokens;
pub mod bootstrap;
pub mod caller;
pub mod cookies;
pub mod opaque;
pub mod operator;
pub mod passwords;
pub mod sessions;
pub mod signing_keys;
pub mod users;

pub use caller::{Caller, Credential, IdentityGate, Principal};
pub use keywright_jobs::domain::permissions::{self, Permission, Required, perm};

use self::{
    cookies::CookieNames,
    passwords::{HashError, Passwords},
    signing_keys::{KeyError, SigningKeys},
};
use keywright_jobs::setup::{clock::Clock, database::Database, sealing::Sealing};
use std::sync::Arc;
use thiserror::Error;

/// Everything that sign-in and the gate need. One per process.
pub struct Identity {
    pub db: Database,
    pub clock: Clock,
    pub passwords: Passwords,
    pub keys: SigningKeys,
    pub cookies: CookieNames,
}

/// Why nobody can be let in.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Passwords(#[from] HashError),
}

impl Identity {
    /// Loads the signing keys, making the first one when there is none. The schema must be current.
    ///
    /// # Errors
    /// [`IdentityError`] when the keys cannot be read or made.
    pub async fn start(
        db: Database,
        sealing: &Sealing,
        clock: Clock,
        cookie_secure: bool,
    ) -> Result<Arc<Self>, IdentityError> {
        let keys = SigningKeys::load(&db, sealing).await?;
        let passwords = Passwords::new()?;
        Ok(Arc::new(Self { db, clock, passwords, keys, cookies: CookieNames::new(cookie_secure) }))
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
