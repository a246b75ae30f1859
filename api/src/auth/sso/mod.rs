//! Single sign-on: OpenID Connect's code flow with PKCE, in which this server is a client of the operator's provider.
//!
//! ```text
//! /api/auth/sso/login     a state cookie, and off to the provider
//! provider                asks people who they are
//! /api/auth/sso/callback  state → code for tokens → ID token verified → user → session
//! ```
//!
//! * `states`: what a browser keeps in between, sealed, good once and in that browser only.
//! * `provider`: discovery, keys, the exchange, and the verification of ID tokens by `openidconnect`.
//! * `members`: whom an ID token speaks of, and as what they may come in.
//! * `next`: where a browser goes afterwards; [`page`]: what people see meanwhile.

pub mod members;
pub mod next;
pub mod page;
pub mod provider;
mod refusal;
mod states;

use super::{Client, Identity, sessions::SignedIn};
use crate::error::{ApiError, Code};
use chrono::TimeDelta;
use keywright_entities::sso_return;
use keywright_jobs::{
    egress::EgressGuard,
    licence::Licence,
    setup::{
        config::{Config, Issuer, Oidc},
        sealing::{SealError, Sealing},
    },
};
use poem::http::HeaderMap;
use provider::{Answer, Provider};
use refusal::Refusal;
use secrecy::SecretString;
use states::{Begun, States};
use std::{io, sync::Arc};
use tokio::sync::Semaphore;
use url::Url;

/// How long people may take at the provider.
const PATIENCE: TimeDelta = TimeDelta::minutes(10);
/// How many may be asked about at the provider at once; more come again a second later.
const AT_ONCE: usize = 32;
const BUSY_SECONDS: u32 = 1;

/// As what this instance is registered at the provider, and what the operator decided about its users.
#[derive(Clone, Debug)]
pub struct Registration {
    pub issuer: Issuer,
    pub client_id: String,
    pub client_secret: Option<SecretString>,
    pub redirect_url: Url,
    pub settings: Oidc,
}

impl Registration {
    /// `None` where the operator configured no provider.
    ///
    /// # Errors
    /// When the file of the client's secret cannot be read.
    pub fn of(config: &Config) -> io::Result<Option<Self>> {
        let Oidc { issuer, client_id, redirect_url, .. } = config.oidc.clone();
        let (Some(issuer), Some(client_id), Some(redirect_url)) = (issuer, client_id, redirect_url) else {
            return Ok(None);
        };
        let (client_secret, settings) = (config.oidc.client_secret()?, config.oidc.clone());
        Ok(Some(Self { issuer, client_id, client_secret, redirect_url, settings }))
    }
}

/// Single sign-on of this instance. One per process.
pub struct Sso {
    identity: Arc<Identity>,
    licence: Arc<Licence>,
    registration: Registration,
    provider: Provider,
    states: States,
    places: Semaphore,
}

/// What the provider sent a browser back with.
#[derive(Debug, Default)]
pub struct Returned {
    pub state: Option<String>,
    pub code: Option<String>,
    pub iss: Option<String>,
    pub error: Option<String>,
}

/// Somebody came in.
pub struct Entered {
    pub tokens: SignedIn,
    /// Where the browser goes now: a path of this server.
    pub next: String,
    /// The cookie that has done its work.
    pub cookie: String,
}

/// A way to the provider.
pub struct Departure {
    pub to: Url,
    /// Name and value of the cookie that the browser keeps until it comes back.
    pub cookie: (String, String),
    /// Cookies of ways that were begun long ago and not ended.
    pub stale: Vec<String>,
}

impl Sso {
    /// `guard` says where the provider's own answers may lead to; the issuer's address is the operator's and exempt.
    ///
    /// # Errors
    /// When no key can be derived.
    pub fn new(
        identity: Arc<Identity>,
        licence: Arc<Licence>,
        sealing: &Sealing,
        guard: &EgressGuard,
        registration: Registration,
    ) -> Result<Self, SealError> {
        Ok(Self {
            states: States::new(&*sealing.derive("single sign-on")?, identity.cookies)?,
            provider: Provider::new(registration.clone(), guard, identity.clock.clone()),
            places: Semaphore::new(AT_ONCE),
            identity,
            licence,
            registration,
        })
    }

    /// Begins a way to the provider that ends at `next`.
    ///
    /// # Errors
    /// 400 for a `next` that is no path of this server; 503 when the provider does not answer.
    pub async fn depart(&self, next: Option<&str>, headers: &HeaderMap) -> Result<Departure, ApiError> {
        let next = next::checked(next)?;
        let _place = self.places.try_acquire().map_err(|_| ApiError::rate_limited(BUSY_SECONDS))?;
        let known = self.provider.known().await.map_err(|refusal| self.told(refusal, &Client::default()))?;
        let ends = self.identity.clock.now() + PATIENCE;
        let begun = Begun::new(next, ends).map_err(ApiError::internal)?;
        let to = self.provider.authorization(&known, &begun);
        let cookie = self.states.seal(&begun).map_err(ApiError::internal)?;
        Ok(Departure { to, cookie, stale: self.states.stale(headers) })
    }

    /// Lets somebody in whom the provider sent back.
    ///
    /// # Errors
    /// 400 `sso_state_invalid`, 401 `sso_failed`, 403 `sso_denied` and `limit_reached`, 409 `last_admin`, 503 `sso_unavailable`.
    pub async fn arrive(&self, returned: Returned, headers: &HeaderMap, client: Client) -> Result<Entered, ApiError> {
        let _place = self.places.try_acquire().map_err(|_| ApiError::rate_limited(BUSY_SECONDS))?;
        let arrived = self.let_in(returned, headers, client.clone()).await;
        arrived.map_err(|refusal| self.told(refusal, &client))
    }

    async fn let_in(&self, returned: Returned, headers: &HeaderMap, client: Client) -> Result<Entered, Refusal> {
        let state = returned.state.as_deref().unwrap_or_default();
        let begun = self.states.open(state, headers, self.identity.clock.now()).ok_or(Refusal::State)?;
        self.take(state).await?;
        let known = self.provider.known().await?;
        let answer = Answer { code: returned.code, iss: returned.iss, error: returned.error };
        let person = self.provider.identify(known, answer, &begun).await?;
        let tokens = members::enter(&self.identity, &self.licence, &self.registration, &person, client).await?;
        Ok(Entered { tokens, next: begun.next, cookie: self.states.name(state) })
    }

    /// Whoever copied a state and its cookie comes too late.
    async fn take(&self, state: &str) -> Result<(), Refusal> {
        let remembered = PATIENCE.num_milliseconds() * 2;
        let write = self.identity.db.begin().await?;
        let first = sso_return::take(&*write, &super::opaque::hash(state), remembered).await?;
        write.commit().await?;
        if first { Ok(()) } else { Err(Refusal::State) }
    }

    /// The name of the cookie that belongs to a state.
    #[must_use]
    pub fn cookie(&self, state: &str) -> String {
        self.states.name(state)
    }

    /// Counts the refusal for the audit log and says why in the log: clients are told less than operators.
    fn told(&self, refusal: Refusal, client: &Client) -> ApiError {
        let user = refusal.user();
        let error = refusal.into_error(&self.registration.settings.name);
        if is_counted(error.code()) {
            self.identity.denials.count(error.code(), client.address.clone(), user);
        }
        error
    }
}

/// Refusals that are counted here, where it is known whose they are.
pub fn is_counted(code: Code) -> bool {
    matches!(code, Code::SsoStateInvalid | Code::SsoFailed | Code::SsoDenied)
}
