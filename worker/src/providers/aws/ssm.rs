//! Parameter Store: what parameters there are. [`Parameters`] can describe them; no method of it could read a value.

use super::{
    error::Call,
    facts::{Attributes, instant, kms_arn},
};
use crate::providers::http::Outbound;
use aws_config::{Region, SdkConfig};
use aws_sdk_ssm::{
    Client,
    config::retry::RetryConfig,
    operation::describe_parameters::{DescribeParametersError, DescribeParametersOutput},
    types::{ParameterInlinePolicy, ParameterMetadata},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use chrono::{DateTime, Utc};
use keywright_jobs::{
    domain::inventory::{AssetType, Observed, Page, Related, Relation, Warning},
    provider::ProviderError,
};
use serde_json::Value;

pub(super) const KIND: &str = "aws.ssm.parameter";
const VAULT: &str = "ssm";
/// The most that DescribeParameters gives at once.
const PAGE_SIZE: i32 = 50;

#[derive(Clone)]
pub(super) struct Parameters {
    client: Client,
    region: String,
}

impl Parameters {
    pub fn new(config: &SdkConfig, region: &str) -> Self {
        let once = aws_sdk_ssm::config::Builder::from(config)
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self { client: Client::from_conf(once), region: region.to_owned() }
    }

    /// One page, of all types and tiers. Tags are not in the list.
    pub async fn page(&self, outbound: &Outbound, token: Option<&str>) -> Result<Page, ProviderError> {
        let call = Call { action: "ssm:DescribeParameters", region: &self.region, paged: token.is_some() };
        let output = outbound
            .call(&call.name(), || async { self.list_page(token).await.map_err(|error| call.failed(&error)) })
            .await?;
        let mut page = Page { next: call.next(output.next_token, token)?, ..Page::default() };
        for parameter in output.parameters.unwrap_or_default() {
            match observe(parameter) {
                Ok(asset) => page.assets.push(asset),
                Err(warning) => page.warnings.push(warning),
            }
        }
        Ok(page)
    }

    async fn list_page(
        &self,
        token: Option<&str>,
    ) -> Result<DescribeParametersOutput, SdkError<DescribeParametersError, HttpResponse>> {
        self.client.describe_parameters().max_results(PAGE_SIZE).set_next_token(token.map(str::to_owned)).send().await
    }
}

fn observe(parameter: ParameterMetadata) -> Result<Observed, Warning> {
    let name = parameter.name.clone().unwrap_or_default();
    // a name is unique within its region; some that speak for AWS leave the ARN out
    let Some(external_id) = parameter.arn.clone().or(parameter.name.clone()).filter(|id| !id.is_empty()) else {
        return Err(Warning::new("ssm", "unexpected_reply", "Parameter Store listed a parameter without a name."));
    };
    let policies: Vec<Policy> = parameter.policies().iter().map(Policy::of).collect();
    let key = parameter.key_id.as_deref().map(|key| kms_arn(&external_id, key));
    let mut attributes = Attributes::default();
    attributes.put("parameterType", parameter.r#type.as_ref().map(|word| word.as_str()));
    attributes.put("tier", parameter.tier.as_ref().map(|word| word.as_str()));
    attributes.put("dataType", parameter.data_type.as_deref());
    attributes.put("version", Some(parameter.version).filter(|version| *version > 0));
    attributes.put("description", parameter.description.as_deref().filter(|text| !text.is_empty()));
    attributes.put("kmsKeyId", parameter.key_id.as_deref());
    attributes.put("lastModifiedUser", parameter.last_modified_user.as_deref());
    let told: Vec<Value> = policies.iter().map(Policy::told).collect();
    attributes.put("policies", Some(told).filter(|policies| !policies.is_empty()));
    Ok(Observed {
        asset_type: AssetType::Secret,
        kind: KIND.to_owned(),
        vault: VAULT.to_owned(),
        name,
        external_id,
        enabled: None,
        created_at: None,
        expires_at: policies.iter().filter_map(|policy| policy.expires_at).min(),
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: instant(parameter.last_modified_date.as_ref()),
        tags: Default::default(),
        certificate: None,
        attributes: attributes.into_map(),
        relations: key.into_iter().map(|to| Related { relation: Relation::EncryptedBy, to }).collect(),
    })
}

/// What happens to a parameter of the advanced tier, and when.
struct Policy {
    name: Option<String>,
    status: Option<String>,
    attributes: Option<Value>,
    expires_at: Option<DateTime<Utc>>,
}

impl Policy {
    fn of(policy: &ParameterInlinePolicy) -> Self {
        let text = policy.policy_text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let attributes = text.as_ref().and_then(|text| text.get("Attributes")).cloned();
        let expires = policy.policy_type.as_deref() == Some("Expiration");
        let at = attributes.as_ref().filter(|_| expires).and_then(|all| all.get("Timestamp")).and_then(Value::as_str);
        let expires_at = at.and_then(|at| DateTime::parse_from_rfc3339(at).ok()).map(|at| at.to_utc());
        Self { name: policy.policy_type.clone(), status: policy.policy_status.clone(), attributes, expires_at }
    }

    fn told(&self) -> Value {
        let mut told = Attributes::default();
        told.put("type", self.name.as_deref());
        told.put("status", self.status.as_deref());
        told.put("attributes", self.attributes.clone());
        told.into_map().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ssm::{
        primitives::DateTime as Instant,
        types::{ParameterTier, ParameterType},
    };
    use serde_json::json;

    #[test]
    fn a_parameter_keeps_what_the_list_tells_and_ends_when_its_policy_says() {
        let policy = |kind: &str, text: &str| {
            ParameterInlinePolicy::builder().policy_type(kind).policy_text(text).policy_status("Pending").build()
        };
        let asset = observe(
            ParameterMetadata::builder()
                .name("/app/db")
                .arn("arn:aws:ssm:eu-west-1:123456789012:parameter/app/db")
                .r#type(ParameterType::SecureString)
                .tier(ParameterTier::Advanced)
                .key_id("alias/aws/ssm")
                .version(3)
                .last_modified_date(Instant::from_secs(1_700_000_000))
                .policies(policy("ExpirationNotification", r#"{"Attributes":{"Before":"15","Unit":"Days"}}"#))
                .policies(policy("Expiration", r#"{"Attributes":{"Timestamp":"2027-12-02T21:34:33.000Z"}}"#))
                .policies(policy("NoChangeNotification", "not JSON"))
                .build(),
        )
        .unwrap();
        assert_eq!(asset.expires_at.unwrap().to_rfc3339(), "2027-12-02T21:34:33+00:00");
        assert_eq!(asset.last_changed_at.unwrap().timestamp(), 1_700_000_000);
        assert_eq!(
            asset.relations,
            [Related {
                relation: Relation::EncryptedBy,
                to: "arn:aws:kms:eu-west-1:123456789012:alias/aws/ssm".to_owned(),
            }]
        );
        assert_eq!(asset.attributes["policies"][2], json!({"type": "NoChangeNotification", "status": "Pending"}));
        assert_eq!(
            (&asset.attributes["parameterType"], &asset.attributes["tier"]),
            (&json!("SecureString"), &json!("Advanced"))
        );
    }

    #[test]
    fn a_parameter_without_a_name_is_told_not_dropped() {
        assert_eq!(observe(ParameterMetadata::builder().build()).unwrap_err().code, "unexpected_reply");
    }
}
