//! Which regions an account uses. [`Regions`] can list them, and nothing else.

use super::error::Call;
use crate::providers::http::Outbound;
use aws_config::SdkConfig;
use aws_sdk_account::{
    Client,
    config::retry::RetryConfig,
    operation::list_regions::{ListRegionsError, ListRegionsOutput},
    types::RegionOptStatus,
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use keywright_jobs::provider::ProviderError;
use std::collections::BTreeSet;

/// The regions that are enabled in every account of a partition, as AWS documented them on 2026-11-24
/// (AWS Account Management Reference Guide, "Enable or disable AWS Regions"). Regions that an account opted in to are not among them.
const ENABLED_BY_DEFAULT: &[&str] = &[
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];
const ENABLED_BY_DEFAULT_CHINA: &[&str] = &["cn-north-1", "cn-northwest-1"];
const ENABLED_BY_DEFAULT_GOVCLOUD: &[&str] = &["us-gov-east-1", "us-gov-west-1"];

/// The regions of the partition that `region` is in, when the account cannot be asked.
pub(super) fn enabled_by_default(region: &str) -> BTreeSet<String> {
    let names = match region {
        _ if region.starts_with("cn-") => ENABLED_BY_DEFAULT_CHINA,
        _ if region.starts_with("us-gov-") => ENABLED_BY_DEFAULT_GOVCLOUD,
        _ => ENABLED_BY_DEFAULT,
    };
    names.iter().map(|&name| name.to_owned()).collect()
}

pub(super) struct Regions {
    client: Client,
    home: String,
}

impl Regions {
    pub fn new(config: &SdkConfig) -> Self {
        let once = aws_sdk_account::config::Builder::from(config).retry_config(RetryConfig::disabled()).build();
        let home = config.region().map(ToString::to_string).unwrap_or_default();
        Self { client: Client::from_conf(once), home }
    }

    /// # Errors
    /// [`ProviderError::Denied`] or `Rejected` when this account or endpoint does not answer the question.
    pub async fn enabled(&self, outbound: &Outbound) -> Result<BTreeSet<String>, ProviderError> {
        let mut enabled = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let call = Call { action: "account:ListRegions", region: &self.home, paged: token.is_some() };
            let page = outbound
                .call(&call.name(), || async {
                    self.list_page(token.as_deref()).await.map_err(|error| call.failed(&error))
                })
                .await?;
            enabled.extend(page.regions.unwrap_or_default().into_iter().filter_map(|region| region.region_name));
            let next = page.next_token.filter(|next| !next.is_empty());
            if next.is_some() && next == token {
                return Err(call.unexpected_reply("the same page token was given twice"));
            }
            match next {
                Some(next) => token = Some(next),
                None if enabled.is_empty() => return Err(call.unexpected_reply("no region is enabled")),
                None => return Ok(enabled),
            }
        }
    }

    async fn list_page(
        &self,
        token: Option<&str>,
    ) -> Result<ListRegionsOutput, SdkError<ListRegionsError, HttpResponse>> {
        self.client
            .list_regions()
            .region_opt_status_contains(RegionOptStatus::Enabled)
            .region_opt_status_contains(RegionOptStatus::EnabledByDefault)
            .max_results(50)
            .set_next_token(token.map(str::to_owned))
            .send()
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_s_regions_stay_within_it() {
        assert!(enabled_by_default("cn-north-1").iter().all(|name| name.starts_with("cn-")));
        assert!(enabled_by_default("us-gov-west-1").iter().all(|name| name.starts_with("us-gov-")));
        assert!(enabled_by_default("eu-west-1").contains("us-east-1"));
    }
}
