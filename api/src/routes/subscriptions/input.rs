//! What clients may say about a subscription.

use super::{
    credential::{AuthInput, Change},
    rules::checked,
};
use crate::{
    error::ApiError,
    patch::{Patch, merge, merge_object},
    wire::ProviderKind,
};
use chrono::{DateTime, Utc};
use keywright_entities::subscription;
use keywright_jobs::egress::EgressGuard;
use poem_openapi::{Enum, Object, types::ToJSON};
use serde_json::json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// As whom the provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum AuthMode {
    /// With what the worker finds in its own surroundings, as the provider's official tools do.
    #[oai(rename = "ambient")]
    Ambient,
    /// With a named profile of the worker's configuration files (aws).
    #[oai(rename = "profile")]
    Profile,
    /// As a role that the worker's own identity may take (aws).
    #[oai(rename = "assumeRole")]
    AssumeRole,
    /// With a key that is stored with the subscription, sealed (aws, gcp).
    #[oai(rename = "stored")]
    Stored,
}

impl AuthMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ambient => "ambient",
            Self::Profile => "profile",
            Self::AssumeRole => "assumeRole",
            Self::Stored => "stored",
        }
    }
}

/// Settings of each provider; only those of the subscription's own provider may be given. In a patch, `null` takes a setting
/// away and what is absent stays.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct SettingsInput {
    pub local: Patch<LocalSettings>,
    pub aws: Patch<AwsSettings>,
    pub gcp: Patch<GcpSettings>,
}

/// What to look at on and from a machine.
#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct LocalSettings {
    /// Files and folders that hold certificates; folders are searched to their ends.
    #[oai(validator(max_items = 1000))]
    pub paths: Patch<Vec<String>>,
    /// TLS servers, each as `host:port`; with `smtp://`, `imap://`, `postgres://` or `tls://` before it where what is usual at the port is
    /// not spoken there.
    #[oai(validator(max_items = 10000))]
    pub endpoints: Patch<Vec<String>>,
    /// Only workers with this label look: paths mean something on one machine.
    #[oai(validator(min_length = 1, max_length = 253))]
    pub worker: Patch<String>,
    /// For PKCS#12 files, by path or beginning of a path: `env:NAME` or `file:/path`, where the worker finds the password.
    pub pkcs12_passwords: Patch<BTreeMap<String, Patch<String>>>,
}

/// How to reach an AWS account.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct AwsSettings {
    /// The role of `assumeRole`.
    pub role_arn: Patch<String>,
    /// The external id that the role's trust policy demands.
    pub external_id: Patch<String>,
    /// The profile of `profile`.
    pub profile: Patch<String>,
    /// Another address than AWS's own.
    #[oai(validator(max_length = 2048))]
    pub endpoint: Patch<String>,
}

/// How to reach a project of Google Cloud.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct GcpSettings {
    /// The e-mail address of the service account to act as.
    #[oai(validator(max_length = 320))]
    pub impersonate: Patch<String>,
    /// Another address than Google's own.
    #[oai(validator(max_length = 2048))]
    pub endpoint: Patch<String>,
}

/// A subscription to be.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct NewSubscription {
    pub provider: ProviderKind,
    /// The provider's own id of the account, project or machine; together with the provider it is unique.
    #[oai(validator(min_length = 1, max_length = 256))]
    pub external_id: String,
    #[oai(validator(min_length = 1, max_length = 256))]
    pub name: String,
    /// Default `true`.
    pub enabled: Option<bool>,
    /// Empty or absent: every region that is enabled.
    #[oai(validator(max_items = 100))]
    pub regions: Option<Vec<String>>,
    pub tags: Option<BTreeMap<String, String>>,
    pub settings: Option<SettingsInput>,
    /// Default `ambient`.
    pub auth: Option<AuthInput>,
}

impl poem_openapi::types::Example for NewSubscription {
    fn example() -> Self {
        let local = LocalSettings { paths: Patch::Set(vec!["/etc/ssl/certs".to_owned()]), ..LocalSettings::default() };
        Self {
            provider: ProviderKind::Local,
            external_id: "laptop".to_owned(),
            name: "This machine".to_owned(),
            enabled: None,
            regions: None,
            tags: None,
            settings: Some(SettingsInput { local: Patch::Set(local), aws: Patch::Keep, gcp: Patch::Keep }),
            auth: None,
        }
    }
}

/// A merge patch: what is absent stays as it is.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct SubscriptionPatch {
    #[oai(validator(min_length = 1, max_length = 256))]
    pub name: Option<String>,
    pub enabled: Option<bool>,
    /// `null`: every region that is enabled.
    #[oai(validator(max_items = 100))]
    pub regions: Patch<Vec<String>>,
    /// Tags to set, and with `null` to remove; `null` in place of the object removes them all.
    pub tags: Patch<BTreeMap<String, Patch<String>>>,
    pub settings: Patch<SettingsInput>,
    /// `null`: `ambient`.
    pub auth: Patch<AuthInput>,
}

impl NewSubscription {
    /// The row, and what is to be stored beside it.
    ///
    /// # Errors
    /// 400 that names everything that is wrong.
    pub fn into_row(
        self,
        id: Uuid,
        now: DateTime<Utc>,
        egress: &EgressGuard,
    ) -> Result<(subscription::Model, Change), ApiError> {
        let mut wrong = Vec::new();
        let mut settings = json!({});
        merge(&mut settings, self.settings.unwrap_or_default().to_json().unwrap_or_default());
        let mode = self.auth.as_ref().map_or(AuthMode::Ambient, |auth| auth.mode);
        let provider = self.provider.into();
        let change = self.auth.map_or(Change::Keep, |auth| auth.change(provider, None, &mut wrong));
        let row = subscription::Model {
            id,
            provider,
            external_id: self.external_id,
            name: self.name,
            enabled: self.enabled.unwrap_or(true),
            regions: json!(self.regions.unwrap_or_default()),
            tags: json!(self.tags.unwrap_or_default()),
            settings,
            auth_mode: mode.as_str().to_owned(),
            auth_updated_at: now,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            last_scan_at: None,
            last_scan_state: None,
            version: 1,
        };
        Ok((checked(row, egress, wrong)?, change))
    }
}

impl SubscriptionPatch {
    /// The row after the patch, and what becomes of what is stored beside it.
    ///
    /// # Errors
    /// 400 that names everything that is wrong.
    pub fn apply(
        self,
        mut row: subscription::Model,
        now: DateTime<Utc>,
        egress: &EgressGuard,
    ) -> Result<(subscription::Model, Change), ApiError> {
        let mut wrong = Vec::new();
        if let Some(name) = self.name {
            row.name = name;
        }
        if let Some(enabled) = self.enabled {
            row.enabled = enabled;
        }
        match self.regions {
            Patch::Keep => {}
            Patch::Clear => row.regions = json!([]),
            Patch::Set(regions) => row.regions = json!(regions),
        }
        merge_object(&mut row.tags, self.tags.to_json());
        merge_object(&mut row.settings, self.settings.to_json());
        let (mode, change) = match self.auth {
            Patch::Keep => (None, Change::Keep),
            Patch::Clear => (Some(AuthMode::Ambient), Change::Remove),
            Patch::Set(auth) => (Some(auth.mode), auth.change(row.provider, Some(&row.auth_mode), &mut wrong)),
        };
        if let Some(mode) = mode {
            row.auth_mode = mode.as_str().to_owned();
            // a credential that stays as it is was not updated
            if mode != AuthMode::Stored || !matches!(change, Change::Keep) {
                row.auth_updated_at = now;
            }
        }
        row.updated_at = now;
        row.version += 1;
        Ok((checked(row, egress, wrong)?, change))
    }
}
