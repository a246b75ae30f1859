//! Secrets Manager: what secrets there are. [`Secrets`] can list them and read their policies; no method of it could read a value.

use super::{
    error::Call,
    facts::{Attributes, instant, instant_text, kms_arn},
    policy::{self, Reading},
};
use crate::providers::http::Outbound;
use aws_config::{Region, SdkConfig};
use aws_sdk_secretsmanager::{
    Client,
    config::retry::RetryConfig,
    operation::list_secrets::{ListSecretsError, ListSecretsOutput},
    types::{RotationRulesType, SecretListEntry},
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use keywright_jobs::{
    domain::inventory::{AssetType, Detailed, Observed, Page, Related, Relation, Warning},
    provider::ProviderError,
};
use serde_json::{Map, Value, json};

pub(super) const KIND: &str = "aws.secretsmanager.secret";
const VAULT: &str = "secretsmanager";
/// The most that ListSecrets gives at once.
const PAGE_SIZE: i32 = 100;

#[derive(Clone)]
pub(super) struct Secrets {
    client: Client,
    region: String,
}

impl Secrets {
    pub fn new(config: &SdkConfig, region: &str) -> Self {
        let once = aws_sdk_secretsmanager::config::Builder::from(config)
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self { client: Client::from_conf(once), region: region.to_owned() }
    }

    /// One page, without the secrets that are scheduled for deletion: nobody can use those, and the API hides them by default.
    pub async fn page(&self, outbound: &Outbound, token: Option<&str>) -> Result<Page, ProviderError> {
        let call = Call { action: "secretsmanager:ListSecrets", region: &self.region, paged: token.is_some() };
        let output = outbound
            .call(&call.name(), || async { self.list_page(token).await.map_err(|error| call.failed(&error)) })
            .await?;
        let mut page = Page { next: call.next(output.next_token, token)?, ..Page::default() };
        for entry in output.secret_list.unwrap_or_default() {
            match observe(entry) {
                Ok(asset) => page.assets.push(asset),
                Err(warning) => page.warnings.push(warning),
            }
        }
        Ok(page)
    }

    /// Whom its resource policy lets in.
    pub async fn complete(&self, outbound: &Outbound, listed: Observed) -> Result<Detailed, ProviderError> {
        let call = Call { action: "secretsmanager:GetResourcePolicy", region: &self.region, paged: false };
        let output = outbound
            .call(&call.name(), || async {
                let asked = self.client.get_resource_policy().secret_id(&listed.external_id);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let mut asset = listed;
        let mut attributes = Attributes::default();
        match output.resource_policy.filter(|text| !text.is_empty()) {
            Some(text) => {
                let account = policy::account_of(&asset.external_id).unwrap_or_default();
                Reading::of(&text, account).write(&mut attributes);
            }
            None => attributes.put("policyVerdict", Some("none")),
        }
        asset.attributes.extend(attributes.into_map());
        Ok(Detailed { asset, warnings: Vec::new() })
    }

    async fn list_page(
        &self,
        token: Option<&str>,
    ) -> Result<ListSecretsOutput, SdkError<ListSecretsError, HttpResponse>> {
        self.client.list_secrets().max_results(PAGE_SIZE).set_next_token(token.map(str::to_owned)).send().await
    }
}

fn observe(entry: SecretListEntry) -> Result<Observed, Warning> {
    let attributes = attributes(&entry);
    let key = entry.kms_key_id.clone();
    let name = entry.name.unwrap_or_default();
    let Some(external_id) = entry.arn.filter(|arn| !arn.is_empty()) else {
        return Err(Warning::new(name, "unexpected_reply", "Secrets Manager listed a secret without an ARN."));
    };
    let key = key.map(|key| Related { relation: Relation::EncryptedBy, to: kms_arn(&external_id, &key) });
    let relations = key.into_iter().collect();
    Ok(Observed {
        asset_type: AssetType::Secret,
        kind: KIND.to_owned(),
        vault: VAULT.to_owned(),
        name,
        external_id,
        enabled: Some(entry.deleted_date.is_none()),
        created_at: instant(entry.created_date.as_ref()),
        // a secret of AWS has no end of validity; when it is due for rotation is the attribute nextRotationDate
        expires_at: None,
        not_before: None,
        last_rotated_at: instant(entry.last_rotated_date.as_ref()),
        last_accessed_at: instant(entry.last_accessed_date.as_ref()),
        last_changed_at: instant(entry.last_changed_date.as_ref()),
        tags: entry
            .tags
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .collect(),
        certificate: None,
        attributes,
        relations,
    })
}

fn attributes(entry: &SecretListEntry) -> Map<String, Value> {
    let mut attributes = Attributes::default();
    attributes.put("description", entry.description.as_deref().filter(|text| !text.is_empty()));
    attributes.put("kmsKeyId", entry.kms_key_id.as_deref());
    attributes.put("rotationEnabled", entry.rotation_enabled);
    attributes.put("rotationLambdaArn", entry.rotation_lambda_arn.as_deref());
    attributes.put("rotationRules", entry.rotation_rules.as_ref().map(rotation_rules));
    attributes.put("nextRotationDate", instant_text(entry.next_rotation_date.as_ref()));
    attributes.put("deletedDate", instant_text(entry.deleted_date.as_ref()));
    attributes.put("owningService", entry.owning_service.as_deref());
    attributes.put("primaryRegion", entry.primary_region.as_deref());
    attributes.put("type", entry.r#type.as_deref());
    attributes.put("externalSecretRotationRoleArn", entry.external_secret_rotation_role_arn.as_deref());
    attributes.put("secretVersionsToStages", entry.secret_versions_to_stages.as_ref().map(|stages| json!(stages)));
    attributes.into_map()
}

fn rotation_rules(rules: &RotationRulesType) -> Value {
    let mut attributes = Attributes::default();
    attributes.put("automaticallyAfterDays", rules.automatically_after_days);
    attributes.put("duration", rules.duration.as_deref());
    attributes.put("scheduleExpression", rules.schedule_expression.as_deref());
    attributes.into_map().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_secretsmanager::{primitives::DateTime, types::Tag};

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf";

    #[test]
    fn a_listed_secret_keeps_everything_that_the_list_tells() {
        let entry = SecretListEntry::builder()
            .arn(ARN)
            .name("app/db")
            .description("the database")
            .rotation_enabled(true)
            .rotation_rules(RotationRulesType::builder().automatically_after_days(30).build())
            .created_date(DateTime::from_secs_f64(1_700_000_000.25))
            .last_changed_date(DateTime::from_secs(1_700_000_100))
            .last_rotated_date(DateTime::from_secs(1_700_000_200))
            .last_accessed_date(DateTime::from_secs(1_700_000_300))
            .next_rotation_date(DateTime::from_secs(1_700_000_400))
            .tags(Tag::builder().key("owner").value("payments").build())
            .secret_versions_to_stages("v1", vec!["AWSCURRENT".to_owned()])
            .build();
        let asset = observe(entry).unwrap();
        assert_eq!((asset.name.as_str(), asset.external_id.as_str(), asset.enabled), ("app/db", ARN, Some(true)));
        assert_eq!(asset.created_at.unwrap().to_rfc3339(), "2023-11-14T22:13:20.250+00:00");
        assert_eq!(asset.last_changed_at.unwrap().timestamp(), 1_700_000_100);
        assert_eq!(asset.last_rotated_at.unwrap().timestamp(), 1_700_000_200);
        assert_eq!(asset.last_accessed_at.unwrap().timestamp(), 1_700_000_300);
        assert_eq!(asset.tags.get("owner").map(String::as_str), Some("payments"));
        assert_eq!(
            Value::from(asset.attributes),
            json!({
                "description": "the database",
                "rotationEnabled": true,
                "rotationRules": {"automaticallyAfterDays": 30},
                "nextRotationDate": "2023-11-14T22:20:00+00:00",
                "secretVersionsToStages": {"v1": ["AWSCURRENT"]},
            })
        );
    }

    #[test]
    fn an_entry_without_an_arn_is_told_not_dropped() {
        let warning = observe(SecretListEntry::builder().name("odd").build()).unwrap_err();
        assert_eq!((warning.path.as_str(), warning.code.as_str()), ("odd", "unexpected_reply"));
    }

    #[test]
    fn an_absurd_date_is_absent() {
        let entry = SecretListEntry::builder().arn(ARN).created_date(DateTime::from_secs(i64::MAX)).build();
        assert_eq!(observe(entry).unwrap().created_at, None);
    }
}
