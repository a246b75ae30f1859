//! Key Management Service: what keys there are. [`Keys`] can list and describe them; no method of it could use one.

use super::{
    error::Call,
    facts::{Attributes, instant, instant_text},
    policy::{self, Reading},
};
use crate::providers::http::Outbound;
use aws_config::{Region, SdkConfig};
use aws_sdk_kms::{
    Client,
    config::retry::RetryConfig,
    types::{AliasListEntry, KeyListEntry, KeyManagerType, KeyMetadata, KeySpec, OriginType, Tag},
};
use keywright_jobs::{
    domain::inventory::{AssetType, Detailed, Observed, Page, Related, Relation, Warning},
    provider::ProviderError,
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::OnceCell;

pub(super) const KIND: &str = "aws.kms.key";
const VAULT: &str = "kms";
/// The most that ListKeys gives at once.
const KEYS_AT_ONCE: i32 = 1000;
/// The most that ListAliases gives at once.
const ALIASES_AT_ONCE: i32 = 100;
const TAGS_AT_ONCE: i32 = 50;
/// The only policy that a key has.
const POLICY: &str = "default";

/// By the id of the key that they lead to.
type Aliases = HashMap<String, Vec<AliasListEntry>>;

#[derive(Clone)]
pub(super) struct Keys {
    client: Client,
    region: String,
    aliases: Arc<OnceCell<Aliases>>,
}

impl Keys {
    pub fn new(config: &SdkConfig, region: &str) -> Self {
        let once = aws_sdk_kms::config::Builder::from(config)
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self { client: Client::from_conf(once), region: region.to_owned(), aliases: Arc::default() }
    }

    fn call(&self, action: &'static str, paged: bool) -> Call<'_> {
        Call { action, region: &self.region, paged }
    }

    /// One page, of the account's own keys and those that AWS manages in it.
    pub async fn page(&self, outbound: &Outbound, token: Option<&str>) -> Result<Page, ProviderError> {
        let mut warnings = Vec::new();
        let aliases = match self.aliases.get_or_try_init(|| self.all_aliases(outbound)).await {
            Ok(aliases) => aliases,
            Err(ProviderError::Denied { detail, permission }) => {
                if token.is_none() {
                    let detail = format!("Keys are named by their ids: {detail}.");
                    warnings.push(Warning::denied(permission.unwrap_or_default(), detail));
                }
                &Aliases::new()
            }
            Err(error) => return Err(error),
        };
        let call = self.call("kms:ListKeys", token.is_some());
        let output = outbound
            .call(&call.name(), || async {
                let asked = self.client.list_keys().limit(KEYS_AT_ONCE).set_marker(token.map(str::to_owned));
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let mut page = Page { next: call.next(output.next_marker, token)?, warnings, ..Page::default() };
        for key in output.keys.unwrap_or_default() {
            match observe(key, aliases) {
                Ok(asset) => page.assets.push(asset),
                Err(warning) => page.warnings.push(warning),
            }
        }
        Ok(page)
    }

    async fn all_aliases(&self, outbound: &Outbound) -> Result<Aliases, ProviderError> {
        let mut aliases = Aliases::new();
        let mut token: Option<String> = None;
        loop {
            let call = self.call("kms:ListAliases", token.is_some());
            let page = outbound
                .call(&call.name(), || async {
                    let asked = self.client.list_aliases().limit(ALIASES_AT_ONCE).set_marker(token.clone());
                    asked.send().await.map_err(|error| call.failed(&error))
                })
                .await?;
            for alias in page.aliases.unwrap_or_default() {
                // those that AWS keeps for keys that nobody has needed yet lead nowhere
                if let Some(key) = alias.target_key_id.clone() {
                    aliases.entry(key).or_default().push(alias);
                }
            }
            token = call.next(page.next_marker, token.as_deref())?;
            if token.is_none() {
                return Ok(aliases);
            }
        }
    }

    /// The key's state, rotation, tags and whom its policy lets in. Of a key that AWS manages only the first: the rest is AWS's.
    pub async fn complete(&self, outbound: &Outbound, listed: Observed) -> Result<Detailed, ProviderError> {
        let id = listed.external_id.clone();
        let call = self.call("kms:DescribeKey", false);
        let described = outbound
            .call(&call.name(), || async {
                self.client.describe_key().key_id(&id).send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let Some(metadata) = described.key_metadata else {
            return Err(call.unexpected_reply("nothing was told of the key"));
        };
        let mut detailed = Detailed { asset: listed, warnings: Vec::new() };
        let mut attributes = facts(&mut detailed.asset, &metadata);
        if metadata.key_manager == Some(KeyManagerType::Customer) {
            self.policy(outbound, &id, &mut attributes, &mut detailed.warnings).await?;
            self.tags(outbound, &id, &mut detailed).await?;
            if rotates(&metadata) {
                self.rotation(outbound, &id, &mut attributes, &mut detailed.warnings).await?;
            }
        }
        detailed.asset.attributes.extend(attributes.into_map());
        Ok(detailed)
    }

    async fn policy(
        &self,
        outbound: &Outbound,
        id: &str,
        attributes: &mut Attributes,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ProviderError> {
        let call = self.call("kms:GetKeyPolicy", false);
        let answer = outbound
            .call(&call.name(), || async {
                let asked = self.client.get_key_policy().key_id(id).policy_name(POLICY);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await;
        let Some(answer) = read(answer, warnings)? else { return Ok(()) };
        if let (Some(text), Some(account)) = (answer.policy, policy::account_of(id)) {
            Reading::of(&text, account).write(attributes);
        }
        Ok(())
    }

    async fn rotation(
        &self,
        outbound: &Outbound,
        id: &str,
        attributes: &mut Attributes,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ProviderError> {
        let call = self.call("kms:GetKeyRotationStatus", false);
        let answer = outbound
            .call(&call.name(), || async {
                self.client.get_key_rotation_status().key_id(id).send().await.map_err(|error| call.failed(&error))
            })
            .await;
        let Some(answer) = read(answer, warnings)? else { return Ok(()) };
        attributes.put("rotationEnabled", Some(answer.key_rotation_enabled));
        attributes.put("rotationPeriodInDays", answer.rotation_period_in_days);
        attributes.put("nextRotationDate", instant_text(answer.next_rotation_date.as_ref()));
        Ok(())
    }

    async fn tags(&self, outbound: &Outbound, id: &str, detailed: &mut Detailed) -> Result<(), ProviderError> {
        let mut token: Option<String> = None;
        loop {
            let call = self.call("kms:ListResourceTags", token.is_some());
            let answer = outbound
                .call(&call.name(), || async {
                    let asked = self.client.list_resource_tags().key_id(id).limit(TAGS_AT_ONCE);
                    asked.set_marker(token.clone()).send().await.map_err(|error| call.failed(&error))
                })
                .await;
            let Some(answer) = read(answer, &mut detailed.warnings)? else { return Ok(()) };
            let tags = answer.tags.unwrap_or_default().into_iter();
            detailed.asset.tags.extend(tags.map(|Tag { tag_key, tag_value, .. }| (tag_key, tag_value)));
            token = call.next(answer.next_marker, token.as_deref())?;
            if token.is_none() {
                return Ok(());
            }
        }
    }
}

/// What was answered; a lack of permission is told instead.
fn read<T>(answer: Result<T, ProviderError>, warnings: &mut Vec<Warning>) -> Result<Option<T>, ProviderError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ProviderError::Denied { detail, permission }) => {
            let detail = format!("Some of what belongs to keys is missing, or as it was read before: {detail}.");
            warnings.push(Warning::denied(permission.unwrap_or_default(), detail));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Only these can be rotated by AWS: for others the question is an error.
fn rotates(key: &KeyMetadata) -> bool {
    key.key_spec == Some(KeySpec::SymmetricDefault)
        && key.origin == Some(OriginType::AwsKms)
        && key.deletion_date.is_none()
}

fn observe(key: KeyListEntry, aliases: &Aliases) -> Result<Observed, Warning> {
    let id = key.key_id.unwrap_or_default();
    let Some(external_id) = key.key_arn.filter(|arn| !arn.is_empty()) else {
        return Err(Warning::new(id, "unexpected_reply", "KMS listed a key without an ARN."));
    };
    let mut named: Vec<&AliasListEntry> = aliases.get(&id).into_iter().flatten().collect();
    named.sort_by(|one, two| one.alias_name.cmp(&two.alias_name));
    let names: Vec<&str> = named.iter().filter_map(|alias| alias.alias_name.as_deref()).collect();
    let mut attributes = Attributes::default();
    attributes.put("keyId", Some(id.as_str()));
    attributes.put("aliases", Some(names.clone()).filter(|names| !names.is_empty()));
    let to = named.iter().filter_map(|alias| alias.alias_arn.clone().or_else(|| alias.alias_name.clone()));
    Ok(Observed {
        asset_type: AssetType::Key,
        kind: KIND.to_owned(),
        vault: VAULT.to_owned(),
        name: names.first().map_or(id.clone(), |name| (*name).to_owned()),
        external_id,
        enabled: None,
        created_at: None,
        expires_at: None,
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        tags: Default::default(),
        certificate: None,
        attributes: attributes.into_map(),
        relations: to.map(|to| Related { relation: Relation::NamedBy, to }).collect(),
    })
}

fn facts(asset: &mut Observed, key: &KeyMetadata) -> Attributes {
    asset.enabled = Some(key.enabled);
    asset.created_at = instant(key.creation_date.as_ref());
    // of imported key material
    asset.expires_at = instant(key.valid_to.as_ref());
    let region = key.multi_region_configuration.as_ref();
    let mut attributes = Attributes::default();
    attributes.put("manager", key.key_manager.as_ref().map(|word| word.as_str()));
    attributes.put("state", key.key_state.as_ref().map(|word| word.as_str()));
    attributes.put("spec", key.key_spec.as_ref().map(|word| word.as_str()));
    attributes.put("usage", key.key_usage.as_ref().map(|word| word.as_str()));
    attributes.put("origin", key.origin.as_ref().map(|word| word.as_str()));
    attributes.put("description", key.description.as_deref().filter(|text| !text.is_empty()));
    attributes.put("deletionDate", instant_text(key.deletion_date.as_ref()));
    attributes.put("pendingDeletionWindowInDays", key.pending_deletion_window_in_days);
    attributes.put("customKeyStoreId", key.custom_key_store_id.as_deref());
    attributes.put("expirationModel", key.expiration_model.as_ref().map(|word| word.as_str()));
    attributes.put("multiRegion", key.multi_region);
    attributes.put(
        "multiRegionKeyType",
        region.and_then(|region| region.multi_region_key_type.as_ref()).map(|word| word.as_str()),
    );
    attributes
        .put("primaryKeyArn", region.and_then(|region| region.primary_key.as_ref()).and_then(|key| key.arn.as_deref()));
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kms::primitives::DateTime;
    use serde_json::json;

    const ARN: &str = "arn:aws:kms:eu-west-1:123456789012:key/k1";

    fn listed(aliases: &[&str]) -> Observed {
        let alias = |name: &str| {
            AliasListEntry::builder()
                .alias_name(name)
                .alias_arn(format!("arn:aws:kms:eu-west-1:123456789012:{name}"))
                .target_key_id("k1")
                .build()
        };
        let aliases = HashMap::from([("k1".to_owned(), aliases.iter().map(|name| alias(name)).collect())]);
        observe(KeyListEntry::builder().key_id("k1").key_arn(ARN).build(), &aliases).unwrap()
    }

    #[test]
    fn a_key_is_named_by_its_first_alias_or_its_id() {
        assert_eq!(listed(&[]).name, "k1");
        let named = listed(&["alias/b", "alias/a"]);
        assert_eq!((named.name.as_str(), &named.attributes["aliases"]), ("alias/a", &json!(["alias/a", "alias/b"])));
        assert_eq!(named.relations[1].to, "arn:aws:kms:eu-west-1:123456789012:alias/b");
        assert_eq!(observe(KeyListEntry::builder().key_id("k").build(), &HashMap::new()).unwrap_err().path, "k");
    }

    #[test]
    fn a_key_of_imported_material_ends_with_it() {
        let key = KeyMetadata::builder()
            .key_id("k1")
            .enabled(true)
            .key_spec(KeySpec::SymmetricDefault)
            .origin(OriginType::External)
            .key_manager(KeyManagerType::Customer)
            .valid_to(DateTime::from_secs(1_800_000_000))
            .build()
            .unwrap();
        let mut asset = listed(&[]);
        let attributes = facts(&mut asset, &key).into_map();
        assert_eq!(asset.expires_at.unwrap().timestamp(), 1_800_000_000);
        assert_eq!((&attributes["manager"], &attributes["origin"]), (&json!("CUSTOMER"), &json!("EXTERNAL")));
        assert!(!rotates(&key));
    }
}
