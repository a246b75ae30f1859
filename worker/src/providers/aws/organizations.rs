//! Organizations: which further accounts there are. [`Organization`] can list them, and nothing else.

use super::error::Call;
use crate::providers::http::Outbound;
use aws_config::SdkConfig;
use aws_sdk_organizations::{Client, config::retry::RetryConfig, types};
use keywright_jobs::{domain::inventory::Account, provider::ProviderError};

/// The most that ListAccounts gives at once.
const PAGE_SIZE: i32 = 20;

pub(super) struct Organization {
    client: Client,
    home: String,
}

impl Organization {
    pub fn new(config: &SdkConfig) -> Self {
        let once = aws_sdk_organizations::config::Builder::from(config).retry_config(RetryConfig::disabled()).build();
        let home = config.region().map(ToString::to_string).unwrap_or_default();
        Self { client: Client::from_conf(once), home }
    }

    /// All accounts, those that are closed or suspended too. Only the management account and its delegates may ask.
    pub async fn accounts(&self, outbound: &Outbound) -> Result<Vec<Account>, ProviderError> {
        let mut accounts = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let call = Call { action: "organizations:ListAccounts", region: &self.home, paged: token.is_some() };
            let page = outbound
                .call(&call.name(), || async {
                    let asked = self.client.list_accounts().max_results(PAGE_SIZE).set_next_token(token.clone());
                    asked.send().await.map_err(|error| call.failed(&error))
                })
                .await?;
            accounts.extend(page.accounts.unwrap_or_default().into_iter().filter_map(account));
            token = call.next(page.next_token, token.as_deref())?;
            if token.is_none() {
                return Ok(accounts);
            }
        }
    }
}

fn account(account: types::Account) -> Option<Account> {
    let status = account.status.map(|status| status.as_str().to_owned());
    let state = account.state.map(|state| state.as_str().to_owned()).or(status);
    Some(Account {
        external_id: account.id.filter(|id| !id.is_empty())?,
        name: account.name.unwrap_or_default(),
        state: state.unwrap_or_default(),
    })
}
