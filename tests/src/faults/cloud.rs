//! The clouds of `keywright-test-worker`: every account is the double's, and what the double orders is done here, in the worker.

use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::{AssetType, Detailed, Observed, Page, ScopeId},
    provider::{Connection, Details, Gate, Inventory, ProviderError, Providers, StoredCredential, Target},
    setup::config,
};
use keywright_worker::providers::http::{Outbound, RuntimeTimer};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Where the double is.
pub const DOUBLE: &str = "KWTEST_DOUBLE";
/// Who asks.
pub const WORKER: &str = "KWTEST_WORKER";
pub const KIND: &str = "aws.secretsmanager.secret";
/// Accounts whose names begin like this are called as IAM is: all their regions share one budget.
pub const SHARED: &str = "shared";
/// The budget of such an account, in calls per second.
pub const SHARED_RATE: f64 = 10.0;

/// Accounts whose names begin like this are looked at closely, asset by asset.
pub const DETAILED: &str = "detailed";

/// One request to the double, which is one effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    pub worker: String,
    pub job: Uuid,
    pub epoch: i64,
    pub account: String,
    pub step: Step,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    Scopes,
    Page { region: String, page: u32 },
    Look { asset: String },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// To be done before the answer is looked at.
    pub order: Option<Order>,
    pub regions: Vec<String>,
    pub secrets: Vec<String>,
    pub next: Option<u32>,
}

/// What happens in the worker while it works at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Takes this many milliseconds, and lets others work meanwhile.
    Take(u64),
    /// Keeps a core and its thread busy for this many milliseconds.
    Compute(u64),
    /// Keeps its thread for ever.
    Hang,
    Panic,
    Abort,
    /// Asks for more memory than there is.
    Exhaust,
    Throttled,
    /// For this many milliseconds.
    ThrottledFor(u64),
    Denied,
}

/// All accounts of the double.
pub struct DoubleCloud {
    url: String,
    worker: String,
    http: reqwest::Client,
}

impl DoubleCloud {
    /// As the environment says.
    ///
    /// # Errors
    /// When it does not say where the double is.
    pub fn from_environment() -> anyhow::Result<Self> {
        let given = |name: &str| config::variable(name).ok_or_else(|| anyhow::anyhow!("{name} is not set"));
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url: given(DOUBLE)?, worker: given(WORKER)?, http })
    }
}

#[async_trait]
impl Providers for DoubleCloud {
    async fn connect(
        &self,
        target: &Target,
        _: Option<StoredCredential>,
        gate: Gate,
    ) -> Result<Connection, ProviderError> {
        let account = target.external_id.clone();
        let (url, worker, http) = (self.url.clone(), self.worker.clone(), self.http.clone());
        let outbound = Outbound::new(gate.clone(), Arc::new(RuntimeTimer));
        let detailed = account.starts_with(DETAILED);
        let account = Opened(Arc::new(Account { url, worker, http, account, gate, outbound }));
        let connection = Connection::new(account.clone());
        Ok(if detailed { connection.with_details(account) } else { connection })
    }
}

#[derive(Clone)]
struct Opened(Arc<Account>);

struct Account {
    url: String,
    worker: String,
    http: reqwest::Client,
    account: String,
    gate: Gate,
    outbound: Outbound,
}

impl Account {
    async fn ask(&self, step: Step) -> Result<Reply, ProviderError> {
        let what = match &step {
            _ if self.account.starts_with(SHARED) => "global iam:ListUsers".to_owned(),
            Step::Scopes => "global secretsmanager:ListSecrets".to_owned(),
            Step::Page { region, .. } => format!("{region} secretsmanager:ListSecrets"),
            Step::Look { .. } => "global secretsmanager:GetResourcePolicy".to_owned(),
        };
        self.outbound.call(&what, || self.ask_once(step.clone())).await
    }

    async fn ask_once(&self, step: Step) -> Result<Reply, ProviderError> {
        let held = self.gate.held().expect("only jobs ask");
        let (worker, account) = (self.worker.clone(), self.account.clone());
        let ask = Ask { worker, job: held.id, epoch: held.epoch, account, step };
        let request = self.http.post(&self.url).json(&ask);
        self.gate.pass().await?;
        let away = |error: reqwest::Error| ProviderError::Unavailable { detail: error.to_string() };
        let reply: Reply = request.send().await.map_err(away)?.json().await.map_err(away)?;
        if let Some(order) = reply.order {
            obey(order).await?;
        }
        Ok(reply)
    }
}

async fn obey(order: Order) -> Result<(), ProviderError> {
    match order {
        Order::Take(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        Order::Compute(millis) => {
            let until = Instant::now() + Duration::from_millis(millis);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        Order::Hang => loop {
            std::thread::park();
        },
        Order::Panic => panic!("the double ordered a panic"),
        Order::Abort => std::process::abort(),
        Order::Exhaust => drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 60))),
        Order::Throttled => {
            return Err(ProviderError::Throttled { detail: "as ordered".to_owned(), retry_after: None });
        }
        Order::ThrottledFor(millis) => {
            let retry_after = Some(Duration::from_millis(millis));
            return Err(ProviderError::Throttled { detail: "as ordered".to_owned(), retry_after });
        }
        Order::Denied => return Err(ProviderError::Denied { detail: "as ordered".to_owned(), permission: None }),
    }
    Ok(())
}

#[async_trait]
impl Inventory for Opened {
    async fn scopes(&self) -> Result<Vec<ScopeId>, ProviderError> {
        let reply = self.0.ask(Step::Scopes).await?;
        Ok(reply.regions.into_iter().map(|region| ScopeId { region, kind: KIND.to_owned() }).collect())
    }

    async fn list(&self, scope: &ScopeId, page: Option<&str>) -> Result<Page, ProviderError> {
        let page = page.map_or(0, |page| page.parse().expect("a token of ours"));
        let reply = self.0.ask(Step::Page { region: scope.region.clone(), page }).await?;
        let assets = reply.secrets.into_iter().map(secret).collect();
        Ok(Page { assets, warnings: Vec::new(), next: reply.next.map(|page| page.to_string()) })
    }
}

#[async_trait]
impl Details for Opened {
    fn cadence(&self, _: &str) -> Option<Duration> {
        Some(Duration::from_secs(24 * 3600))
    }

    async fn complete(&self, _: &ScopeId, listed: Observed) -> Result<Detailed, ProviderError> {
        self.0.ask(Step::Look { asset: listed.external_id.clone() }).await?;
        Ok(Detailed { asset: listed, warnings: Vec::new() })
    }
}

fn secret(name: String) -> Observed {
    Observed {
        asset_type: AssetType::Secret,
        kind: KIND.to_owned(),
        vault: "double".to_owned(),
        external_id: name.clone(),
        name,
        enabled: None,
        created_at: None,
        expires_at: None,
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        tags: BTreeMap::new(),
        certificate: None,
        attributes: serde_json::Map::new(),
        relations: Vec::new(),
    }
}
