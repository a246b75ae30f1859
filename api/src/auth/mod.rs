//! Identity: who calls, and what they may do.
//!
//! * [`caller`]: the gate. A handler that holds a [`Caller`] has proof of the permission in its type.
//! * [`permissions`]: the one table of roles and permissions, kept with the domain, since schedules ask it too.
//! * [`sessions`]: sign in, refresh, sign out, passwords.
//! * [`api_tokens`]: tokens for programs.
//! * [`users`]: who there is.
//! * [`throttle`]: guessing passwords gets slower; [`denials`]: who was refused, for the audit log.
//! * [`sso`]: sign in at the operator's OpenID provider.
//! * [`cookies`], [`csrf`]: what browsers hold, and the proof that our own pages send it.
//! * [`access`], [`signing_keys`]: short-lived signed tokens and their keys; [`opaque`]: all other tokens.
//! * [`vigil`]: looking again at those who stay long.
//! * [`bootstrap`], [`operator`]: the first user, and what an operator does at the command line.

pub mod access;
pub mod api_tokens;
pub mod bootstrap;
pub mod caller;
pub mod cookies;
pub mod csrf;
pub mod denials;
pub mod opaque;
pub mod operator;
pub mod passwords;
pub mod sessions;
pub mod signing_keys;
pub mod sso;
pub mod throttle;
pub mod users;
pub mod vigil;

pub use caller::{Caller, Credential, IdentityGate, Principal};
pub use keywright_jobs::domain::permissions::{self, Permission, Required, perm};

use self::{
    cookies::CookieNames,
    csrf::Csrf,
    denials::Denials,
    passwords::{HashError, Passwords},
    signing_keys::{KeyError, KeyRing},
    throttle::Throttle,
};
use chrono::TimeDelta;
use keywright_jobs::setup::{
    clock::Clock,
    config::{Config, LoginLimits},
    database::Database,
    sealing::{SealError, Sealing},
};
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// How often a process hears of signing keys that others took, and looks whether a minute's denials are to be told.
const LOOK: Duration = Duration::from_secs(15);

/// Everything that sign-in and the gate need. One per process.
pub struct Identity {
    pub db: Database,
    pub clock: Clock,
    pub passwords: Passwords,
    pub keys: KeyRing,
    pub cookies: CookieNames,
    pub csrf: Csrf,
    pub throttle: Throttle,
    pub denials: Arc<Denials>,
}

/// What an operator decides about identity.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// False only for instances that are reached over plain http.
    pub cookie_secure: bool,
    pub login: LoginLimits,
    /// The age at which a signing key is replaced; `None` = never by itself.
    pub signing_key_age: Option<TimeDelta>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cookie_secure: true, login: LoginLimits::default(), signing_key_age: None }
    }
}

impl Settings {
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let days = i64::from(config.signing_key_days);
        Self {
            cookie_secure: config.cookie_secure,
            login: config.login,
            signing_key_age: (days > 0).then(|| TimeDelta::days(days)),
        }
    }
}

/// What is known of the program that signs in.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub user_agent: Option<String>,
    pub address: Option<String>,
}

/// Why nobody can be let in.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Passwords(#[from] HashError),
    #[error("a key cannot be derived: {0}")]
    Derive(#[from] SealError),
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
        settings: Settings,
    ) -> Result<Arc<Self>, IdentityError> {
        Ok(Arc::new(Self {
            keys: KeyRing::load(&db, sealing, settings.signing_key_age).await?,
            passwords: Passwords::new()?,
            cookies: CookieNames::new(settings.cookie_secure),
            csrf: Csrf::new(&*sealing.derive("csrf")?),
            throttle: Throttle::new(settings.login, &*sealing.derive("login")?),
            denials: Arc::new(Denials::new(db.clone(), clock.clone())),
            db,
            clock,
        }))
    }

    /// Does what is to be done from time to time, until it is told to stop.
    pub async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
            if let Err(error) = self.keys.refresh().await {
                tracing::warn!(%error, "signing keys could not be looked at; trying again");
            }
            if let Err(error) = self.denials.write(false).await {
                tracing::warn!(%error, "counted denials could not be written; trying again");
            }
        }
        if let Err(error) = self.denials.write(true).await {
            tracing::error!(%error, "counted denials are lost");
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
