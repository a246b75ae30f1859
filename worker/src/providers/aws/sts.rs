//! STS: as whom an account is logged in. [`Caller`] can ask that, and nothing else.

use super::error::Call;
use crate::providers::http::Outbound;
use aws_config::SdkConfig;
use aws_sdk_sts::{Client, config::retry::RetryConfig};
use keywright_jobs::{domain::inventory::Identity, provider::ProviderError};

pub(super) struct Caller {
    client: Client,
    home: String,
}

impl Caller {
    pub fn new(config: &SdkConfig) -> Self {
        let once = aws_sdk_sts::config::Builder::from(config).retry_config(RetryConfig::disabled()).build();
        let home = config.region().map(ToString::to_string).unwrap_or_default();
        Self { client: Client::from_conf(once), home }
    }

    /// Needs no permission, and cannot be denied.
    pub async fn identity(&self, outbound: &Outbound) -> Result<Identity, ProviderError> {
        let call = Call { action: "sts:GetCallerIdentity", region: &self.home, paged: false };
        let told = outbound
            .call(&call.name(), || async {
                self.client.get_caller_identity().send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        Ok(Identity { account: told.account, principal: told.arn })
    }
}
