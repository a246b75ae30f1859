//! Amazon Web Services: secrets, parameters, certificates, KMS keys and access keys, metadata only.
//!
//! One file per service. Each wraps the SDK's client in a type whose only methods list or describe, and nothing else in this
//! folder holds such a client: the inventory could not read a value if it wanted to. `tests::no_call_reads_a_value` watches over it.
//! What rotates, and must read and write values for it, is in `rotation` and nowhere else.

mod account;
mod acm;
mod auth;
mod error;
mod facts;
mod iam;
mod kms;
mod organizations;
mod policy;
mod rotation;
mod secretsmanager;
mod ssm;
mod sts;
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
use iam::Identities;
use keywright_jobs::{
    domain::inventory::{self, Detailed, Observed, Page, ScopeId, Warning},
    provider::{self, Accounts, Connection, Details, Gate, Inventory, ProviderError, StoredCredential, Target},
};
use kms::Keys;
use organizations::Organization;
use secrecy::SecretString;
use secretsmanager::Secrets;
use ssm::Parameters;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use sts::Caller;
use transport::Pools;
use url::Url;

const REGIONAL: [&str; 4] = [acm::KIND, kms::KIND, secretsmanager::KIND, ssm::KIND];
const GLOBAL: [&str; 2] = [iam::KEY_KIND, iam::CERTIFICATE_KIND];
/// Policies and uses may change without a word in the lists.
const DETAILS_STAY_GOOD: Duration = Duration::from_secs(24 * 3600);

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
        let account = Arc::new(Account {
            id: target.external_id.clone(),
            outbound,
            identities: Identities::new(&config),
            config,
            regions: target.regions.iter().cloned().collect(),
            secrets: Mutex::default(),
            parameters: Mutex::default(),
            certificates: Mutex::default(),
            keys: Mutex::default(),
            assumed: Mutex::default(),
        });
        Ok(Connection::new(Opened(Arc::clone(&account)))
            .with_details(Opened(Arc::clone(&account)))
            .with_accounts(Opened(Arc::clone(&account)))
            .with_rotations(rotation::Rotating(Arc::clone(&account)))
            .with_login(Opened(account)))
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
    id: String,
    outbound: Arc<Outbound>,
    config: SdkConfig,
    /// As the subscription says; empty means every enabled one.
    regions: BTreeSet<String>,
    identities: Identities,
    secrets: Mutex<HashMap<String, Secrets>>,
    parameters: Mutex<HashMap<String, Parameters>>,
    certificates: Mutex<HashMap<String, Certificates>>,
    keys: Mutex<HashMap<String, Keys>>,
    /// What [`Inventory::scopes`] had to assume; told with the first page that this connection reads.
    assumed: Mutex<Option<Warning>>,
}

/// The account as the inventory sees it, and as its details do.
struct Opened(Arc<Account>);

#[async_trait]
impl Inventory for Opened {
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError> {
        let Self(account) = self;
        let regions =
            if account.regions.is_empty() { account.enabled_regions().await? } else { account.regions.clone() };
        let scope = |region: &str, kind: &str| ScopeId { region: region.to_owned(), kind: kind.to_owned() };
        let mut scopes: Vec<ScopeId> =
            regions.iter().flat_map(|region| REGIONAL.map(|kind| scope(region, kind))).collect();
        scopes.extend(GLOBAL.map(|kind| scope(iam::REGION, kind)));
        scopes.sort();
        Ok(scopes)
    }

    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        let Self(account) = self;
        let (region, outbound) = (scope.region.as_str(), &*account.outbound);
        let mut read = match scope.kind.as_str() {
            secretsmanager::KIND => account.secrets(region).page(outbound, page).await?,
            ssm::KIND => account.parameters(region).page(outbound, page).await?,
            acm::KIND => account.certificates(region).page(outbound, page).await?,
            kms::KIND => account.keys(region).page(outbound, page).await?,
            iam::KEY_KIND => account.identities.keys(outbound, page).await?,
            iam::CERTIFICATE_KIND => account.identities.certificates(outbound, page).await?,
            kind => return Err(unknown(kind)),
        };
        read.warnings.extend(account.assumed.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(read)
    }
}

#[async_trait]
impl Details for Opened {
    fn cadence(&self, kind: &str) -> Option<Duration> {
        matches!(kind, secretsmanager::KIND | acm::KIND | kms::KIND).then_some(DETAILS_STAY_GOOD)
    }

    fn has_change_token(&self, kind: &str) -> bool {
        // a list of keys is a list of ARNs, and that of certificates does not tell who uses them
        kind == secretsmanager::KIND
    }

    async fn complete(&self, scope: &ScopeId, listed: Observed) -> Result<Detailed, ProviderError> {
        let Self(account) = self;
        let (region, outbound) = (scope.region.as_str(), &*account.outbound);
        match scope.kind.as_str() {
            secretsmanager::KIND => account.secrets(region).complete(outbound, listed).await,
            acm::KIND => account.certificates(region).complete(outbound, listed).await,
            kms::KIND => account.keys(region).complete(outbound, listed).await,
            kind => Err(unknown(kind)),
        }
    }
}

#[async_trait]
impl Accounts for Opened {
    async fn list(&self) -> Result<Vec<inventory::Account>, ProviderError> {
        let Self(account) = self;
        Organization::new(&account.config).accounts(&account.outbound).await
    }
}

#[async_trait]
impl provider::Login for Opened {
    async fn identity(&self) -> Result<inventory::Identity, ProviderError> {
        let Self(account) = self;
        Caller::new(&account.config).identity(&account.outbound).await
    }
}

fn unknown(kind: &str) -> ProviderError {
    ProviderError::Rejected { code: "unknown_kind".to_owned(), detail: format!("aws does not list {kind}") }
}

impl Account {
    fn secrets(&self, region: &str) -> Secrets {
        client(&self.secrets, region, || Secrets::new(&self.config, region))
    }

    fn parameters(&self, region: &str) -> Parameters {
        client(&self.parameters, region, || Parameters::new(&self.config, region))
    }

    fn certificates(&self, region: &str) -> Certificates {
        client(&self.certificates, region, || Certificates::new(&self.config, region))
    }

    fn keys(&self, region: &str) -> Keys {
        client(&self.keys, region, || Keys::new(&self.config, region))
    }

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
