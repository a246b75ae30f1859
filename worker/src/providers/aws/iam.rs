//! Identity and Access Management: what access keys and server certificates there are. [`Identities`] can list them, and nothing
//! else: no method of it could make a key or read one.

mod report;

use super::{
    error::Call,
    facts::{Attributes, instant},
};
use crate::providers::http::Outbound;
use aws_config::SdkConfig;
use aws_sdk_iam::{
    Client,
    config::retry::RetryConfig,
    types::{AccessKeyMetadata, ReportStateType, ServerCertificateMetadata, StatusType, User},
};
use futures::{StreamExt, TryStreamExt, stream};
use keywright_jobs::{
    domain::inventory::{AssetType, Observed, Page, Related, Relation, Warning},
    provider::{NOT_FOUND, ProviderError},
};
use std::time::Duration;

pub(super) const KEY_KIND: &str = "aws.iam.accessKey";
pub(super) const CERTIFICATE_KIND: &str = "aws.iam.serverCertificate";
/// IAM is one for all regions.
pub(super) const REGION: &str = "global";
const VAULT: &str = "iam";
/// The most that ListServerCertificates gives at once.
const CERTIFICATES_AT_ONCE: i32 = 1000;
/// Each costs two calls or more.
const USERS_AT_ONCE: i32 = 100;
/// IAM's limits are unpublished, and shared with all who manage the account.
const ASKED_AT_ONCE: usize = 4;
/// How often to ask whether a report is ready, and how long to wait between: AWS takes seconds.
const REPORT_ASKED: u32 = 20;
const REPORT_WAIT: Duration = Duration::from_secs(2);
/// Of a page of users, where there is no report; the marker follows.
const USERS: &str = "users:";

#[derive(Clone)]
pub(super) struct Identities {
    client: Client,
}

/// A key as either way of listing tells it.
struct Key {
    user: String,
    user_arn: String,
    /// 1 or 2, as in the report.
    ordinal: usize,
    active: bool,
    asset: Observed,
}

impl Identities {
    pub fn new(config: &SdkConfig) -> Self {
        let once = aws_sdk_iam::config::Builder::from(config).retry_config(RetryConfig::disabled()).build();
        Self { client: Client::from_conf(once) }
    }

    fn call(action: &'static str, paged: bool) -> Call<'static> {
        Call { action, region: REGION, paged }
    }

    /// All keys of the account, by its report; where that is not allowed, those of a page of users.
    pub async fn keys(&self, outbound: &Outbound, token: Option<&str>) -> Result<Page, ProviderError> {
        if let Some(token) = token {
            return self.keys_of_users(outbound, token.strip_prefix(USERS)).await;
        }
        let error = match self.report(outbound).await {
            Ok(keys) => return Ok(Page { assets: keys, ..Page::default() }),
            Err(error @ (ProviderError::Denied { .. } | ProviderError::Rejected { .. })) => error,
            Err(error) => return Err(error),
        };
        let mut page = self.keys_of_users(outbound, None).await?;
        let path = match &error {
            ProviderError::Denied { permission: Some(permission), .. } => permission.clone(),
            _ => "iam:GenerateCredentialReport".to_owned(),
        };
        let detail =
            format!("Each user was asked about instead, and the keys of the root user are not known: {error}.");
        page.warnings.push(Warning::new(path, "no_credential_report", detail));
        Ok(page)
    }

    async fn report(&self, outbound: &Outbound) -> Result<Vec<Observed>, ProviderError> {
        let generate = Self::call("iam:GenerateCredentialReport", false);
        for _ in 0..REPORT_ASKED {
            let state = outbound
                .call(&generate.name(), || async {
                    self.client.generate_credential_report().send().await.map_err(|error| generate.failed(&error))
                })
                .await?;
            if state.state == Some(ReportStateType::Complete) {
                return self.finished_report(outbound).await;
            }
            outbound.wait(REPORT_WAIT).await?;
        }
        Err(ProviderError::Unavailable { detail: "the credential report is not ready yet".to_owned() })
    }

    async fn finished_report(&self, outbound: &Outbound) -> Result<Vec<Observed>, ProviderError> {
        let get = Self::call("iam:GetCredentialReport", false);
        let report = outbound
            .call(&get.name(), || async {
                self.client.get_credential_report().send().await.map_err(|error| get.failed(&error))
            })
            .await?;
        let content = report.content.map(|blob| blob.into_inner()).unwrap_or_default();
        let text = String::from_utf8(content).map_err(|_| get.unexpected_reply("the report is no text"))?;
        let keys = report::keys(&text).ok_or_else(|| get.unexpected_reply("the report has not the usual columns"))?;
        Ok(keys.into_iter().map(Key::into_asset).collect())
    }

    async fn keys_of_users(&self, outbound: &Outbound, marker: Option<&str>) -> Result<Page, ProviderError> {
        let call = Self::call("iam:ListUsers", marker.is_some());
        let output = outbound
            .call(&call.name(), || async {
                let asked = self.client.list_users().max_items(USERS_AT_ONCE).set_marker(marker.map(str::to_owned));
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let next = call.next(output.marker.filter(|_| output.is_truncated), marker)?;
        let asked = stream::iter(output.users).map(|user| self.keys_of(outbound, user)).buffered(ASKED_AT_ONCE);
        let keys: Vec<(Vec<Observed>, Vec<Warning>)> = asked.try_collect().await?;
        let mut page = Page { next: next.map(|marker| format!("{USERS}{marker}")), ..Page::default() };
        for (keys, warnings) in keys {
            page.assets.extend(keys);
            page.warnings.extend(warnings);
        }
        page.warnings.sort_by(|one, two| one.path.cmp(&two.path));
        page.warnings.dedup_by(|one, two| one.path == two.path);
        Ok(page)
    }

    async fn keys_of(&self, outbound: &Outbound, user: User) -> Result<(Vec<Observed>, Vec<Warning>), ProviderError> {
        let call = Self::call("iam:ListAccessKeys", false);
        let listed = outbound
            .call(&call.name(), || async {
                let asked = self.client.list_access_keys().user_name(&user.user_name);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await;
        let mut listed = match listed {
            Ok(listed) => listed.access_key_metadata,
            // deleted since the users were listed
            Err(ProviderError::Rejected { code, .. }) if code == NOT_FOUND => Vec::new(),
            Err(error) => return Err(error),
        };
        listed.sort_by_key(|key| instant(key.create_date.as_ref()));
        let (mut keys, mut warnings) = (Vec::new(), Vec::new());
        for (number, key) in listed.into_iter().enumerate() {
            let mut asset = Key::of(&user, number + 1, &key).into_asset();
            if let Some(id) = &key.access_key_id {
                warnings.extend(self.last_used(outbound, id, &mut asset).await?);
            }
            keys.push(asset);
        }
        Ok((keys, warnings))
    }

    async fn last_used(
        &self,
        outbound: &Outbound,
        id: &str,
        asset: &mut Observed,
    ) -> Result<Option<Warning>, ProviderError> {
        let call = Self::call("iam:GetAccessKeyLastUsed", false);
        let answer = outbound
            .call(&call.name(), || async {
                let asked = self.client.get_access_key_last_used().access_key_id(id);
                asked.send().await.map_err(|error| call.failed(&error))
            })
            .await;
        let used = match answer {
            Ok(answer) => answer.access_key_last_used,
            Err(ProviderError::Denied { detail, permission }) => {
                let detail = format!("When keys were used last is not known: {detail}.");
                return Ok(Some(Warning::new(permission.unwrap_or_default(), "last_use_unknown", detail)));
            }
            Err(ProviderError::Rejected { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(used) = used {
            asset.last_accessed_at = instant(used.last_used_date.as_ref());
            put_last_use(asset, &used.service_name, &used.region);
        }
        Ok(None)
    }

    pub async fn certificates(&self, outbound: &Outbound, marker: Option<&str>) -> Result<Page, ProviderError> {
        let call = Self::call("iam:ListServerCertificates", marker.is_some());
        let output = outbound
            .call(&call.name(), || async {
                let asked = self.client.list_server_certificates().max_items(CERTIFICATES_AT_ONCE);
                asked.set_marker(marker.map(str::to_owned)).send().await.map_err(|error| call.failed(&error))
            })
            .await?;
        let next = call.next(output.marker.filter(|_| output.is_truncated), marker)?;
        let assets = output.server_certificate_metadata_list.into_iter().map(certificate).collect();
        Ok(Page { assets, warnings: Vec::new(), next })
    }
}

impl Key {
    fn of(user: &User, ordinal: usize, key: &AccessKeyMetadata) -> Self {
        let mut asset = blank(AssetType::Credential, KEY_KIND);
        asset.created_at = instant(key.create_date.as_ref());
        let active = key.status == Some(StatusType::Active);
        Self { user: user.user_name.clone(), user_arn: user.arn.clone(), ordinal, active, asset }
    }

    /// The report does not tell the id of a key, so that a key is known by its user and its place in both ways of listing.
    fn into_asset(self) -> Observed {
        let mut asset = self.asset;
        let mut attributes = Attributes::default();
        attributes.put("user", Some(self.user.as_str()));
        attributes.put("ordinal", Some(self.ordinal));
        asset.attributes.extend(attributes.into_map());
        asset.enabled = Some(self.active);
        asset.last_rotated_at = asset.created_at;
        asset.name = format!("{}/{}", self.user, self.ordinal);
        asset.external_id = format!("{}/accessKey/{}", self.user_arn, self.ordinal);
        asset.relations = vec![Related { relation: Relation::BelongsTo, to: self.user_arn }];
        asset
    }
}

/// Where it was used last is, as when, no change of the key.
fn put_last_use(asset: &mut Observed, service: &str, region: &str) {
    let told = |word: &str| {
        Some(word.to_owned()).filter(|word| !["", "N/A", "no_information", "not_supported"].contains(&word.as_str()))
    };
    let mut attributes = Attributes::default();
    attributes.put("service", told(service));
    attributes.put("region", told(region));
    let used = attributes.into_map();
    if !used.is_empty() {
        asset.attributes.insert("lastUse".to_owned(), used.into());
    }
}

fn certificate(listed: ServerCertificateMetadata) -> Observed {
    let mut asset = blank(AssetType::Certificate, CERTIFICATE_KIND);
    asset.expires_at = instant(listed.expiration.as_ref());
    asset.created_at = instant(listed.upload_date.as_ref());
    asset.last_changed_at = asset.created_at;
    asset.name = listed.server_certificate_name;
    asset.external_id = listed.arn;
    let mut attributes = Attributes::default();
    attributes.put("path", Some(listed.path));
    attributes.put("serverCertificateId", Some(listed.server_certificate_id));
    asset.attributes = attributes.into_map();
    asset
}

fn blank(asset_type: AssetType, kind: &str) -> Observed {
    Observed {
        asset_type,
        kind: kind.to_owned(),
        vault: VAULT.to_owned(),
        name: String::new(),
        external_id: String::new(),
        enabled: None,
        created_at: None,
        expires_at: None,
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        tags: Default::default(),
        certificate: None,
        attributes: Default::default(),
        relations: Vec::new(),
    }
}
