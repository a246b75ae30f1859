//! Amazon Web Services: Secrets Manager secrets and Certificate Manager certificates, metadata only.
//!
//! One file per service. Each wraps the SDK's client in a type whose only methods list or describe, and nothing else in this
//! folder holds such a client: the inventory could not read a value if it wanted to. `tests::no_call_reads_a_value` watches over it.

mod account;
mod acm;
mod auth;
mod error;
mod facts;
mod secretsmanager;
#[cfg(test)]
mod tests;
mod transport;

pub use auth::Timeouts;

use crate::providers::{
    egress::{self, EgressError, EgressGuard},
    http::{Outbound, RuntimeTimer, Sleeper},
};
use account::Regions;
use acm::Certificates;
use async_trait::async_trait;
use auth::{AccessKey, Login};
use aws_config::SdkConfig;
use keywright_jobs::{
    domain::inventory::{Page, ScopeId, Warning},
    provider::{Connection, Gate, Inventory, ProviderError, StoredCredential, Target},
};
use secrecy::SecretString;
use secretsmanager::Secrets;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use transport::Pools;
use url::Url;

/// What this process keeps for all its AWS connections: the connection pools and who says where they may lead.
pub struct Aws {
    pools: Arc<Pools>,
    egress: Arc<EgressGuard>,
    sleeper: Arc<dyn Sleeper>,
    timeouts: Timeouts,
    stand_in: Option<AccessKey>,
}

impl Aws {
    /// `egress` is asked about `settings.aws.endpoint`; `AWS_ENDPOINT_URL` is the operator's and is not asked about.
    pub fn new(egress: Arc<EgressGuard>) -> Self {
        Self {
            pools: Arc::new(Pools::new(Arc::clone(&egress))),
            egress,
            sleeper: Arc::new(RuntimeTimer),
            timeouts: Timeouts::default(),
            stand_in: None,
        }
    }

    /// Logs in with this access key where the worker's own credentials would be used.
    #[must_use]
    pub fn with_access_key(mut self, id: impl Into<String>, secret: SecretString) -> Self {
        self.stand_in = Some(AccessKey { id: id.into(), secret, session: None });
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

    /// Opens an account. Credentials are obtained, and may turn out wrong, at the first call.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] `invalid_settings`, `address_refused` or `credential_unreadable`.
    pub async fn connect(
        &self,
        target: &Target,
        credential: Option<&StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError> {
        let login = Login::of(target)?;
        if let Some(endpoint) = &login.endpoint {
            self.may_reach(endpoint).await?;
        }
        let outbound = Arc::new(Outbound::new(gate, self.sleeper.clone()));
        let own = credential.map(AccessKey::stored).transpose()?;
        let key = own.as_ref().or(self.stand_in.as_ref());
        let config = login.config(self.pools.clone(), outbound.clone(), self.timeouts, key).await;
        Ok(Connection::new(Account {
            outbound,
            config,
            regions: target.regions.iter().cloned().collect(),
            secrets: Mutex::default(),
            certificates: Mutex::default(),
            assumed: Mutex::default(),
        }))
    }
}

impl Aws {
    /// A name that does not resolve now may do so when it is used.
    async fn may_reach(&self, endpoint: &Url) -> Result<(), ProviderError> {
        let (host, port) = (endpoint.host_str().unwrap_or_default(), endpoint.port_or_known_default().unwrap_or(443));
        match self.egress.resolve(host, port).await {
            Err(refused @ EgressError::Refused { .. }) => Err(ProviderError::Rejected {
                code: egress::REFUSED.to_owned(),
                detail: format!("settings.aws.endpoint: {refused}"),
            }),
            _ => Ok(()),
        }
    }
}

/// One opened account.
struct Account {
    outbound: Arc<Outbound>,
    config: SdkConfig,
    /// As the subscription says; empty means every enabled one.
    regions: BTreeSet<String>,
    secrets: Mutex<HashMap<String, Secrets>>,
    certificates: Mutex<HashMap<String, Certificates>>,
    /// What [`Inventory::scopes`] had to assume; told with the first page that this connection reads.
    assumed: Mutex<Option<Warning>>,
}

#[async_trait]
impl Inventory for Account {
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError> {
        let regions = if self.regions.is_empty() { self.enabled_regions().await? } else { self.regions.clone() };
        let kinds = [acm::KIND, secretsmanager::KIND];
        Ok(regions
            .iter()
            .flat_map(|region| kinds.map(|kind| ScopeId { region: region.clone(), kind: kind.to_owned() }))
            .collect())
    }

    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        let region = scope.region.as_str();
        let mut read = match scope.kind.as_str() {
            secretsmanager::KIND => {
                let secrets = client(&self.secrets, region, || Secrets::new(&self.config, region));
                secrets.page(&self.outbound, page).await?
            }
            acm::KIND => {
                let certificates = client(&self.certificates, region, || Certificates::new(&self.config, region));
                certificates.page(&self.outbound, page).await?
            }
            kind => {
                return Err(ProviderError::Rejected {
                    code: "unknown_kind".to_owned(),
                    detail: format!("aws does not list {kind}"),
                });
            }
        };
        read.warnings.extend(self.assumed.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(read)
    }
}

impl Account {
    /// Asks the account; where it may not or cannot answer, those that every account has enabled.
    async fn enabled_regions(&self) -> Result<BTreeSet<String>, ProviderError> {
        let error = match Regions::new(&self.config).enabled(&self.outbound).await {
            Ok(regions) => return Ok(regions),
            Err(error @ (ProviderError::Denied { .. } | ProviderError::Rejected { .. })) => error,
            Err(error) => return Err(error),
        };
        let home = self.config.region().map(ToString::to_string).unwrap_or_default();
        let detail = format!(
            "The account did not tell which regions it has enabled ({error}); those that every account has are looked at. Allow \
             account:ListRegions, or name the regions in the subscription."
        );
        tracing::warn!(%error, "the enabled regions are assumed");
        *self.assumed.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Warning::new("account:ListRegions", "regions_assumed", detail));
        Ok(account::enabled_by_default(&home))
    }
}

/// The client of a region, made once: the SDK resolves endpoints and signs per client.
fn client<T: Clone>(clients: &Mutex<HashMap<String, T>>, region: &str, open: impl FnOnce() -> T) -> T {
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    clients.entry(region.to_owned()).or_insert_with(open).clone()
}
