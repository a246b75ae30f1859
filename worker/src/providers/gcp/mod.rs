//! Google Cloud: Secret Manager secrets and keys of service accounts, metadata only.
//!
//! One file per service. None holds an HTTP client: they ask the questions of `rest.rs`, each of which lists. The inventory could
//! not read a value if it wanted to. `tests::no_call_reads_a_value` watches over it. What rotates, and must read and write values for
//! it, is in `rotation` and nowhere else. Why no client library: `docs/adr/0006-google-cloud-over-rest.md`.

mod auth;
mod error;
mod facts;
mod iam;
mod projects;
mod rest;
mod rotation;
mod secretmanager;
#[cfg(test)]
mod tests;

pub use rest::Timeouts;

use crate::providers::{
    egress::{self, EgressError, EgressGuard},
    http::{Outbound, RuntimeTimer, Sleeper},
};
use async_trait::async_trait;
use auth::{Login, Source};
use keywright_jobs::{
    domain::{
        google::{GLOBAL, is_own_host},
        inventory::{Detailed, Identity, Observed, Page, ScopeId},
    },
    provider::{self, Connection, Details, Gate, Inventory, ProviderError, StoredCredential, Target},
};
use projects::Projects;
use rest::{Clients, Rest};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use url::Url;

/// What this process keeps for all its connections to Google Cloud.
pub struct Gcp {
    clients: Clients,
    egress: Arc<EgressGuard>,
    sleeper: Arc<dyn Sleeper>,
    timeouts: Timeouts,
    endpoint: Option<Url>,
    stand_in: Option<SecretString>,
}

impl Gcp {
    /// `egress` is asked about `settings.gcp.endpoint`; `endpoint` is the operator's, in place of Google's own addresses, and is
    /// not asked about.
    pub fn new(egress: Arc<EgressGuard>, endpoint: Option<Url>) -> Self {
        Self {
            clients: Clients::new(),
            egress,
            sleeper: Arc::new(RuntimeTimer),
            timeouts: Timeouts::default(),
            endpoint,
            stand_in: None,
        }
    }

    /// Sends this access token where the worker's own credentials would be used.
    #[must_use]
    pub fn with_token(mut self, token: SecretString) -> Self {
        self.stand_in = Some(token);
        self
    }

    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    #[must_use]
    pub fn with_sleeper(mut self, sleeper: Arc<dyn Sleeper>) -> Self {
        self.sleeper = sleeper;
        self
    }

    /// Opens a project. Tokens are obtained, and may be refused, at the first call.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] `invalid_settings`, `address_refused` or `credential_unreadable`, or
    /// [`ProviderError::Unauthenticated`] when the worker's credentials cannot be used.
    pub async fn connect(
        &self,
        target: &Target,
        credential: Option<&StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError> {
        let Login { project, regions, impersonate, endpoint } = Login::of(target)?;
        let client = match &endpoint {
            Some(endpoint) => {
                let guard = self.may_reach(endpoint).await?;
                self.clients.get(self.timeouts, Some((endpoint, &guard)))?
            }
            None => self.clients.get(self.timeouts, None)?,
        };
        let (source, own) = match (credential, &self.stand_in) {
            (Some(credential), _) => Source::stored(credential)?,
            (None, Some(token)) => (Source::Token(token.clone()), None),
            (None, None) => (Source::ambient()?, None),
        };
        let principal = impersonate.clone().or(own);
        let rest = Arc::new(Rest {
            client,
            outbound: Arc::new(Outbound::new(gate, Arc::clone(&self.sleeper))),
            source,
            impersonate,
            impersonated: Default::default(),
            base: endpoint.or_else(|| self.endpoint.clone()),
        });
        let rotating = rotation::Rotating { rest: Arc::clone(&rest), project: project.clone() };
        let opened = Project { rest: Arc::clone(&rest), project, regions };
        Ok(Connection::new(opened)
            .with_rotations(rotating)
            .with_details(Versions(Arc::clone(&rest)))
            .with_accounts(Projects(Arc::clone(&rest)))
            .with_login(LoggedIn { rest, principal }))
    }

    /// Requests carry an access token, with which whoever receives it can act for its hour. So an address that a user entered must
    /// be Google's own, or one that the operator allowed: a public one is not enough.
    ///
    /// The guard that then watches over each connection. A name that does not resolve now may do so when it is used.
    async fn may_reach(&self, endpoint: &Url) -> Result<EgressGuard, ProviderError> {
        let google = endpoint.domain().is_some_and(is_own_host);
        let guard = if google { EgressGuard::clone(&self.egress) } else { self.egress.listed_only() };
        let (host, port) = (endpoint.host_str().unwrap_or_default(), endpoint.port_or_known_default().unwrap_or(443));
        let detail = match guard.resolve(host, port).await {
            Err(refused @ EgressError::Refused { .. }) if google => format!("settings.gcp.endpoint: {refused}"),
            Err(EgressError::Refused { .. }) => format!(
                "settings.gcp.endpoint: {host} is not Google's and would receive an access token; an operator can allow it with \
                 KEYWRIGHT_EGRESS_ALLOW"
            ),
            _ => return Ok(guard),
        };
        Err(ProviderError::Rejected { code: egress::REFUSED.to_owned(), detail })
    }
}

/// One opened project.
struct Project {
    rest: Arc<Rest>,
    project: String,
    regions: Vec<String>,
}

#[async_trait]
impl Inventory for Project {
    /// Keys of service accounts are global. Secrets are, too, unless they were made in one region; those are looked at in the
    /// regions that the subscription names.
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError> {
        let scope = |region: &str, kind: &str| ScopeId { region: region.to_owned(), kind: kind.to_owned() };
        let mut scopes = Vec::new();
        for region in &self.regions {
            if region == GLOBAL {
                scopes.push(scope(region, iam::KIND));
            }
            scopes.push(scope(region, secretmanager::KIND));
        }
        Ok(scopes)
    }

    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        match (scope.kind.as_str(), scope.region.as_str()) {
            (secretmanager::KIND, region) => secretmanager::page(&self.rest, &self.project, region, page).await,
            (iam::KIND, GLOBAL) => iam::page(&self.rest, &self.project, page).await,
            (kind, region) => Err(ProviderError::Rejected {
                code: "unknown_kind".to_owned(),
                detail: format!("gcp does not list {kind} in {region}"),
            }),
        }
    }
}

/// As whom requests are sent, as far as it is known without a further permission.
struct LoggedIn {
    rest: Arc<Rest>,
    principal: Option<String>,
}

#[async_trait]
impl provider::Login for LoggedIn {
    /// A service account may belong to another project than the one that is looked at, so no account is told.
    async fn identity(&self) -> Result<Identity, ProviderError> {
        self.rest.log_in().await?;
        Ok(Identity { account: None, principal: self.principal.clone() })
    }
}

/// The versions of each secret.
struct Versions(Arc<Rest>);

#[async_trait]
impl Details for Versions {
    fn cadence(&self, kind: &str) -> Option<Duration> {
        (kind == secretmanager::KIND).then_some(secretmanager::CADENCE)
    }

    /// A secret's etag is its own: that a version of it came or went is not known to move it.
    fn has_change_token(&self, _: &str) -> bool {
        false
    }

    async fn complete(&self, scope: &ScopeId, listed: Observed) -> Result<Detailed, ProviderError> {
        if listed.kind == secretmanager::KIND {
            return secretmanager::complete(&self.0, &scope.region, listed).await;
        }
        Ok(Detailed { asset: listed, warnings: Vec::new() })
    }
}
