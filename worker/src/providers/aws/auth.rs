//! Whose credentials a subscription uses, and at which endpoint.

use super::transport;
use crate::providers::http::Outbound;
use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableRegionProvider, meta::region::ProvideRegion,
    profile::ProfileFileCredentialsProvider, profile::ProfileFileRegionProvider, provider_config::ProviderConfig,
    retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use keywright_jobs::provider::{ProviderError, StoredCredential, Target};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use url::Url;

/// Where global questions are asked when neither the subscription nor the worker's environment names a region.
const FALLBACK_REGION: &str = "us-east-1";
/// Shown in the account's CloudTrail beside what an assumed role did.
const SESSION_NAME: &str = "keywright";

/// How long one attempt may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the first byte sent to the last byte read.
    pub attempt: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), attempt: Duration::from_secs(30) }
    }
}

/// An access key in place of the worker's own credentials. Its secrets are wiped when it is dropped; the SDK wipes its copies.
#[derive(Clone)]
pub(super) struct AccessKey {
    pub id: String,
    pub secret: SecretString,
    pub session: Option<SecretString>,
}

/// As the API stores it. The API takes no characters that JSON escapes, so that no copy is made on the way.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: Option<&'a str>,
}

impl AccessKey {
    /// # Errors
    /// [`ProviderError::Rejected`] `credential_unreadable`.
    pub fn stored(credential: &StoredCredential) -> Result<Self, ProviderError> {
        let unreadable = |detail: String| ProviderError::Rejected { code: "credential_unreadable".to_owned(), detail };
        let opened = credential.open().map_err(|error| unreadable(format!("the stored credential: {error}")))?;
        let stored: Stored<'_> = serde_json::from_slice(opened.expose_secret())
            .map_err(|_| unreadable("the stored credential has a form that this worker does not know".to_owned()))?;
        Ok(Self {
            id: stored.access_key_id.to_owned(),
            secret: stored.secret_access_key.into(),
            session: stored.session_token.map(Into::into),
        })
    }
}

/// `subscription.settings.aws`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Settings {
    role_arn: Option<String>,
    external_id: Option<String>,
    profile: Option<String>,
    endpoint: Option<String>,
}

/// Settings that were found valid.
#[derive(Debug, PartialEq)]
pub(super) struct Login {
    profile: Option<String>,
    role: Option<Role>,
    /// Entered by a user: to be shown to the egress check before it is used.
    pub endpoint: Option<Url>,
    home: Option<String>,
}

#[derive(Debug, PartialEq)]
struct Role {
    arn: String,
    external_id: Option<String>,
}

impl Login {
    /// # Errors
    /// [`ProviderError::Rejected`] `invalid_settings`, naming the setting.
    pub fn of(target: &Target) -> Result<Self, ProviderError> {
        let settings: Settings = serde_json::from_value(target.settings.clone())
            .map_err(|_| invalid("settings.aws may hold roleArn, externalId, profile and endpoint, each a text"))?;
        if let Some(region) = target.regions.iter().find(|region| !is_region_name(region)) {
            let shown: String = region.chars().take(32).collect();
            return Err(invalid(&format!("regions: {shown:?} is not the name of an AWS region")));
        }
        let role = match (target.auth_mode.as_str(), settings.role_arn) {
            ("ambient" | StoredCredential::MODE, _) => None,
            ("profile", _) if settings.profile.as_deref().is_some_and(|name| !name.is_empty()) => None,
            ("profile", _) => return Err(invalid("settings.aws.profile must name the profile to use")),
            ("assumeRole", Some(arn)) if is_role_arn(&arn) => Some(Role { arn, external_id: settings.external_id }),
            ("assumeRole", _) => return Err(invalid("settings.aws.roleArn must be the ARN of the role to assume")),
            _ => return Err(invalid("auth.mode must be ambient, profile, assumeRole or stored for aws")),
        };
        // an ambient login takes no profile: it is what the worker runs as; a stored one has its own key
        let takes_none = ["ambient", StoredCredential::MODE].contains(&target.auth_mode.as_str());
        let profile = settings.profile.filter(|name| !takes_none && !name.is_empty());
        let endpoint = settings.endpoint.as_deref().map(endpoint).transpose()?;
        Ok(Self { profile, role, endpoint, home: target.regions.first().cloned() })
    }

    /// The SDK's configuration for this login. Nothing is sent yet: credentials are obtained at the first call.
    pub async fn config(
        &self,
        pools: Arc<transport::Pools>,
        outbound: Arc<Outbound>,
        timeouts: Timeouts,
        key: Option<&AccessKey>,
    ) -> SdkConfig {
        let home = self.home_region().await;
        let entered = self.endpoint.as_ref().and_then(Url::port_or_known_default);
        let client = transport::gated(pools, outbound, entered);
        // for the look-up of credentials alone; our own calls are retried by `Outbound`
        let retries = RetryConfig::standard().with_max_attempts(3);
        let limits = TimeoutConfig::builder()
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.attempt)
            .operation_attempt_timeout(timeouts.attempt)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(home.clone())
            .http_client(client.clone())
            .retry_config(retries.clone())
            .timeout_config(limits.clone())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint.as_str());
        }
        if let Some(profile) = &self.profile {
            let environment = ProviderConfig::without_region()
                .with_region(Some(home.clone()))
                .with_http_client(client)
                .with_retry_config(retries)
                .with_timeout_config(limits);
            // not the default chain, in which an access key in the environment comes before the profile that was asked for
            let credentials = ProfileFileCredentialsProvider::builder().profile_name(profile).configure(&environment);
            loader = loader.profile_name(profile).credentials_provider(credentials.build());
        } else if let Some(key) = key {
            let session = key.session.as_ref().map(|session| session.expose_secret().to_owned());
            let secret = key.secret.expose_secret();
            loader = loader.credentials_provider(Credentials::new(&key.id, secret, session, None, "keywright"));
        }
        let base = loader.load().await;
        let Some(role) = &self.role else { return base };
        let mut assumed =
            AssumeRoleProvider::builder(&role.arn).session_name(SESSION_NAME).region(home).configure(&base);
        if let Some(id) = &role.external_id {
            assumed = assumed.external_id(id);
        }
        let assumed = SharedCredentialsProvider::new(assumed.build().await);
        base.into_builder().credentials_provider(assumed).build()
    }

    /// The instance metadata service is not asked for a region: botocore does not either, and off EC2 it costs seconds.
    async fn home_region(&self) -> Region {
        if let Some(home) = &self.home {
            return Region::new(home.clone());
        }
        if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
            return region;
        }
        let mut file = ProfileFileRegionProvider::builder();
        if let Some(profile) = &self.profile {
            file = file.profile_name(profile);
        }
        file.build().region().await.unwrap_or_else(|| Region::from_static(FALLBACK_REGION))
    }
}

fn endpoint(text: &str) -> Result<Url, ProviderError> {
    let url = Url::parse(text).map_err(|_| invalid("settings.aws.endpoint is not a URL"))?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(url)
    } else {
        Err(invalid("settings.aws.endpoint must be http(s)://host[:port][/path] without credentials or query"))
    }
}

/// A region becomes part of a host name, so it must not be able to end one.
fn is_region_name(name: &str) -> bool {
    let mut parts = name.split('-');
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 32 && name.contains('-') && parts.all(plain)
}

fn is_role_arn(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    parts.next() == Some("arn")
        && parts.next().is_some_and(|partition| partition.starts_with("aws"))
        && parts.next() == Some("iam")
        && parts.next() == Some("")
        && parts.next().is_some_and(|account| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
        && parts.next().is_some_and(|resource| resource.starts_with("role/") && resource.len() > 5)
}

fn invalid(detail: &str) -> ProviderError {
    ProviderError::Rejected { code: "invalid_settings".to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywright_jobs::domain::inventory::ProviderKind;
    use serde_json::{Value, json};

    fn login(auth_mode: &str, settings: Value, regions: &[&str]) -> Result<Login, ProviderError> {
        Login::of(&Target {
            provider: ProviderKind::Aws,
            external_id: "123456789012".to_owned(),
            regions: regions.iter().map(|&region| region.to_owned()).collect(),
            settings,
            auth_mode: auth_mode.to_owned(),
        })
    }

    fn refused(login: Result<Login, ProviderError>) -> bool {
        matches!(login, Err(ProviderError::Rejected { code, .. }) if code == "invalid_settings")
    }

    #[test]
    fn each_mode_asks_for_its_own_setting() {
        assert!(login("ambient", json!({}), &[]).is_ok());
        assert!(login("profile", json!({"profile": "prod"}), &[]).is_ok());
        assert!(
            login("assumeRole", json!({"roleArn": "arn:aws:iam::123456789012:role/x", "externalId": "e"}), &[]).is_ok()
        );
        assert!(login("assumeRole", json!({"roleArn": "arn:aws-us-gov:iam::123456789012:role/a/b"}), &[]).is_ok());
        assert!(refused(login("profile", json!({}), &[])));
        assert!(refused(login("assumeRole", json!({"roleArn": "arn:aws:iam::1:user/x"}), &[])));
        assert!(login("stored", json!({"profile": "prod"}), &[]).unwrap().profile.is_none());
        assert!(refused(login("Stored", json!({}), &[])));
    }

    #[test]
    fn unknown_or_mistyped_settings_are_refused() {
        assert!(refused(login("ambient", json!({"rolearn": "x"}), &[])));
        assert!(refused(login("ambient", json!({"endpoint": 7}), &[])));
    }

    #[test]
    fn a_region_cannot_reach_outside_its_place_in_the_host_name() {
        assert!(login("ambient", json!({}), &["eu-west-1", "us-gov-east-1", "cn-north-1"]).is_ok());
        for bad in ["", "evil.com/#", "eu-west-1.evil.com", "EU-WEST-1", "eu--west", "euwest", "a-\u{e9}"] {
            assert!(refused(login("ambient", json!({}), &[bad])), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_an_http_address_and_nothing_more() {
        assert!(login("ambient", json!({"endpoint": "http://127.0.0.1:5000"}), &[]).is_ok());
        for bad in ["file:///etc/passwd", "127.0.0.1:5000", "http://u:p@host", "http://host/?x=1", "not a url"] {
            assert!(refused(login("ambient", json!({"endpoint": bad}), &[])), "{bad}");
        }
    }

    #[test]
    fn an_ambient_login_ignores_a_profile() {
        assert_eq!(login("ambient", json!({"profile": "prod"}), &[]).unwrap().profile, None);
        assert_eq!(login("profile", json!({"profile": "prod"}), &[]).unwrap().profile.as_deref(), Some("prod"));
    }
}
