//! Who is logged in to the cloud in memory, and which further accounts there are.

use super::{MemoryCloud, Operation};
use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::{Account, Identity},
    provider::{Accounts, Gate, Login, ProviderError},
};

impl MemoryCloud {
    /// Puts an account into the organisation of this one, whose own place in it must be put like any other.
    pub fn member(&self, account: &str, member: &str, state: &str) {
        let found = Account { external_id: member.to_owned(), name: format!("the {member}"), state: state.to_owned() };
        self.lock().members.entry(account.to_owned()).or_default().push(found);
    }
}

#[derive(Clone)]
pub(super) struct MemoryOrganization {
    cloud: MemoryCloud,
    account: String,
    gate: Gate,
}

impl MemoryOrganization {
    pub fn new(cloud: MemoryCloud, account: String, gate: Gate) -> Self {
        Self { cloud, account, gate }
    }
}

#[async_trait]
impl Accounts for MemoryOrganization {
    async fn list(&self) -> Result<Vec<Account>, ProviderError> {
        self.cloud.call(&self.gate, &self.account, Operation::Accounts).await?;
        Ok(self.cloud.lock().members.get(&self.account).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl Login for MemoryOrganization {
    async fn identity(&self) -> Result<Identity, ProviderError> {
        self.cloud.call(&self.gate, &self.account, Operation::Identity).await?;
        let principal = Some(format!("memory:{}:keywright", self.account));
        Ok(Identity { account: Some(self.account.clone()), principal })
    }
}
