//! The seam behind which every cloud lives.
//!
//! A cloud is a [`Connection`] of small optional traits: `None` means "this cloud cannot", and no method exists only to
//! return "unsupported". The inventory's type has no method that reads a value.

pub mod rotation;

use crate::{
    domain::inventory::{Account, Detailed, Identity, Observed, Page, ProviderKind, ScopeId},
    pacing::Pacer,
    queue::Held,
    setup::sealing::{SealError, Sealing, places},
};
use async_trait::async_trait;
use keywright_entities::subscription_credential;
use secrecy::SecretSlice;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use thiserror::Error;

/// Where and as whom to connect: what a subscription says, without any secret in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub provider: ProviderKind,
    /// The provider's own id of the account, project, subscription or machine.
    pub external_id: String,
    /// Regions to look at; empty means every region that is enabled.
    pub regions: Vec<String>,
    /// The provider's own object of `subscription.settings`, e.g. `{"roleArn": …}` for aws; an empty object when absent.
    pub settings: Value,
    /// `ambient`, `profile`, `assumeRole` or `stored`.
    pub auth_mode: String,
}

/// What a subscription of the mode `stored` logs in with, still sealed. Has neither `Debug` nor `Serialize`.
#[derive(Clone)]
pub struct StoredCredential {
    sealing: Sealing,
    row: subscription_credential::Model,
}

impl StoredCredential {
    /// The `auth_mode` of subscriptions that have one.
    pub const MODE: &'static str = "stored";

    pub fn sealed(sealing: Sealing, row: subscription_credential::Model) -> Self {
        Self { sealing, row }
    }

    /// Opens it: the provider's own JSON object, e.g. `{"accessKeyId": …}` for aws. To be called where the client is built,
    /// and dropped there, which wipes it.
    ///
    /// # Errors
    /// [`SealError`] when this process does not have its key, or it was changed since.
    pub fn open(&self) -> Result<SecretSlice<u8>, SealError> {
        let subscription = self.row.subscription_id.to_string();
        self.sealing.open(&places::credential(&subscription, self.row.version), &self.row.sealed)
    }
}

/// Opens connections; one implementation dispatches to the clouds, another is the in-memory cloud of the tests.
#[async_trait]
pub trait Providers: Send + Sync {
    /// Opens `target`, with `credential` when that is its mode. Every request that the connection sends must first pass `gate`.
    async fn connect(
        &self,
        target: &Target,
        credential: Option<StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError>;
}

/// One opened cloud, and which of the optional things it can do.
pub struct Connection {
    pub inventory: Box<dyn Inventory>,
    /// `None`: its lists tell everything.
    pub details: Option<Box<dyn Details>>,
    /// `None`: it has no notion of further accounts.
    pub accounts: Option<Box<dyn Accounts>>,
    /// `None`: nobody is logged in.
    pub login: Option<Box<dyn Login>>,
    /// `None`: nothing of it can be rotated.
    pub rotations: Option<Box<dyn rotation::Rotations>>,
}

impl Connection {
    /// A cloud that can list, and nothing else.
    pub fn new(inventory: impl Inventory + 'static) -> Self {
        Self { inventory: Box::new(inventory), details: None, accounts: None, login: None, rotations: None }
    }

    #[must_use]
    pub fn with_details(mut self, details: impl Details + 'static) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    #[must_use]
    pub fn with_accounts(mut self, accounts: impl Accounts + 'static) -> Self {
        self.accounts = Some(Box::new(accounts));
        self
    }

    #[must_use]
    pub fn with_login(mut self, login: impl Login + 'static) -> Self {
        self.login = Some(Box::new(login));
        self
    }

    #[must_use]
    pub fn with_rotations(mut self, rotations: impl rotation::Rotations + 'static) -> Self {
        self.rotations = Some(Box::new(rotations));
        self
    }
}

/// Reads what exists. Metadata only.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// The scopes that this target has now, in a stable order.
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError>;

    /// One page of a scope; `page` is the `next` of the page before.
    ///
    /// # Errors
    /// [`ProviderError::PageExpired`] when the provider no longer accepts `page`: list again from the start.
    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError>;
}

/// The code of a [`ProviderError::Rejected`] that says: there is no such asset any more.
pub const NOT_FOUND: &str = "not_found";

/// Reads what the list of a kind does not tell, by calls for one asset. Metadata only.
///
/// It is asked about an asset only when the list says that the asset changed, or when what was read before is older than
/// [`Details::cadence`].
#[async_trait]
pub trait Details: Send + Sync {
    /// How long what was read of an asset of `kind` stays good while its list entry does not change; `None` when the list tells
    /// everything, so that [`Details::complete`] is never called for it.
    fn cadence(&self, kind: &str) -> Option<Duration>;

    /// Whether the list of `kind` carries something that moves with every change of an asset: a time, a version, an etag. Where it
    /// does not, a delta scan cannot rely on it and looks as closely as a full one.
    fn has_change_token(&self, _kind: &str) -> bool {
        true
    }

    /// Completes `listed`, which is as the list told it, and keeps its `external_id`.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] [`NOT_FOUND`] when it vanished since it was listed, [`ProviderError::Denied`] when nothing
    /// could be read. Where some could, what is missing is a warning (`Warning::denied`).
    async fn complete(&self, scope: &ScopeId, listed: Observed) -> Result<Detailed, ProviderError>;
}

/// Lists what else this credential's organisation holds: accounts, projects, subscriptions.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// All of them, to the last page.
    async fn list(&self) -> Result<Vec<Account>, ProviderError>;
}

/// Tells as whom a connection is logged in.
#[async_trait]
pub trait Login: Send + Sync {
    /// Obtains the credential if it must. What the provider does not tell, or not without a further permission, is `None`.
    async fn identity(&self) -> Result<Identity, ProviderError>;
}

/// Why a provider did not do what it was asked. The text never holds a secret nor the provider's raw reply.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ProviderError {
    /// The credential works but lacks a right.
    #[error("permission denied: {detail}")]
    Denied {
        detail: String,
        /// The provider's name of the missing permission, e.g. `secretsmanager:ListSecrets`.
        permission: Option<String>,
    },
    /// No credential, or one that the provider does not accept.
    #[error("not authenticated: {detail}")]
    Unauthenticated { detail: String },
    /// Too many requests; `retry_after` when the provider said so.
    #[error("throttled: {detail}")]
    Throttled { detail: String, retry_after: Option<Duration> },
    /// It may work later: a connection problem, a time-out, a 5xx.
    #[error("temporarily unavailable: {detail}")]
    Unavailable { detail: String },
    /// The page token is no longer accepted.
    #[error("the page token expired")]
    PageExpired,
    /// Asking again will not help.
    #[error("{code}: {detail}")]
    Rejected {
        /// A stable word of ours, e.g. `invalid_settings`, `address_refused`, `unexpected_reply`.
        code: String,
        detail: String,
    },
    /// The attempt may not go on: its lease is lost, it was canceled, or the process is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a gate did not let a request through.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Stopped {
    /// Another worker holds the job now: no call, no write.
    #[error("the lease of this attempt is lost")]
    LeaseLost,
    #[error("the job is canceled")]
    Canceled,
    #[error("the job is paused")]
    Paused,
    #[error("the job ran past its deadline")]
    DeadlineExceeded,
    #[error("the worker is shutting down")]
    Shutdown,
}

type GateFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + 'a>>;

/// What decides whether an attempt may send one more request.
pub trait Pass: Send + Sync {
    fn pass(&self) -> GateFuture<'_>;

    /// The attempt that passes; `None` outside a job.
    fn held(&self) -> Option<Held> {
        None
    }
}

/// Stands immediately before every request that is handed to an HTTP client or a socket.
///
/// It waits while the lease is in doubt and refuses once it is lost, so that a frozen or cut-off worker sends at most the one
/// request that it had already handed over.
#[derive(Clone)]
pub struct Gate {
    pass: Arc<dyn Pass>,
    pacer: Option<Pacer>,
}

impl Gate {
    pub fn new(pass: Arc<dyn Pass>) -> Self {
        Self { pass, pacer: None }
    }

    /// What passes it keeps this pace.
    #[must_use]
    pub fn paced(self, pacer: Pacer) -> Self {
        Self { pacer: Some(pacer), ..self }
    }

    /// The pace to keep; `None` outside a job.
    pub fn pacer(&self) -> Option<&Pacer> {
        self.pacer.as_ref()
    }

    /// A gate that is always open: for tools and tests that run outside a job.
    pub fn open() -> Self {
        struct Open;
        impl Pass for Open {
            fn pass(&self) -> GateFuture<'_> {
                Box::pin(std::future::ready(Ok(())))
            }
        }
        Self::new(Arc::new(Open))
    }

    /// # Errors
    /// [`Stopped`] when the attempt must end here.
    pub async fn pass(&self) -> Result<(), Stopped> {
        self.pass.pass().await
    }

    /// The attempt that this gate was made for; `None` outside a job. No cloud is told: the double of the fault tests is.
    pub fn held(&self) -> Option<Held> {
        self.pass.held()
    }
}
