//! Whose credentials a subscription uses, and at which endpoint.

use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder, CacheableResource, CredentialsProvider,
    service_account::{AccessSpecifier, Builder as ServiceAccount},
};
use keywright_jobs::{
    domain::google::{GLOBAL, is_own_host, is_project_id, is_region, is_service_account},
    provider::{ProviderError, StoredCredential, Target},
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// The one scope that all services here take; what may be done with it is decided by roles.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long a source of tokens, such as the metadata server, may take.
const TOKEN_WITHIN: Duration = Duration::from_secs(20);

/// `subscription.settings.gcp`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    impersonate: Option<String>,
    endpoint: Option<String>,
}

/// Settings that were found valid.
#[derive(Debug, PartialEq)]
pub(super) struct Login {
    pub project: String,
    /// Without repetitions, in order; at least one.
    pub regions: Vec<String>,
    /// The service account to act as.
    pub impersonate: Option<String>,
    /// Entered by a user: to be shown to the egress check before it is used.
    pub endpoint: Option<Url>,
}

impl Login {
    /// # Errors
    /// [`ProviderError::Rejected`] `invalid_settings`, naming the setting.
    pub fn of(target: &Target) -> Result<Self, ProviderError> {
        let settings: Settings = serde_json::from_value(target.settings.clone())
            .map_err(|_| invalid("settings.gcp may hold impersonate and endpoint, each a text"))?;
        if !["ambient", StoredCredential::MODE].contains(&target.auth_mode.as_str()) {
            return Err(invalid("auth.mode must be ambient or stored for gcp"));
        }
        if !is_project_id(&target.external_id) {
            return Err(invalid("externalId must be the id of a project, e.g. acme-prod, not its number or name"));
        }
        if let Some(region) = target.regions.iter().find(|region| !is_region(region)) {
            let shown: String = region.chars().take(32).collect();
            return Err(invalid(&format!(
                "regions: {shown:?} is neither global nor the name of a Google Cloud region"
            )));
        }
        if settings.impersonate.as_deref().is_some_and(|account| !is_service_account(account)) {
            return Err(invalid("settings.gcp.impersonate must be the e-mail address of a service account"));
        }
        let mut regions = target.regions.clone();
        regions.sort();
        regions.dedup();
        if regions.is_empty() {
            regions.push(GLOBAL.to_owned());
        }
        let endpoint = settings.endpoint.as_deref().map(endpoint).transpose()?;
        Ok(Self { project: target.external_id.clone(), regions, impersonate: settings.impersonate, endpoint })
    }
}

/// Where access tokens come from.
pub(super) enum Source {
    /// Google's own library: application default credentials, or a stored key, which signs its tokens by itself.
    Google(AccessTokenCredentials),
    /// A token as it is.
    Token(SecretString),
}

impl Source {
    /// What the worker runs as: a file that `GOOGLE_APPLICATION_CREDENTIALS` names (a key, a user's login, a workload identity
    /// configuration, an impersonation), that of `gcloud auth application-default login`, or the machine's own service account.
    ///
    /// # Errors
    /// [`ProviderError::Unauthenticated`] when that file cannot be used.
    pub fn ambient() -> Result<Self, ProviderError> {
        let found = Builder::default().with_scopes([SCOPE]).build_access_token_credentials();
        found.map(Self::Google).map_err(|_| ProviderError::Unauthenticated {
            detail: "the worker's Google Cloud credentials cannot be used: the file of GOOGLE_APPLICATION_CREDENTIALS is missing, \
                     unreadable or of an unknown kind"
                .to_owned(),
        })
    }

    /// The source, and the e-mail address of the service account whose key it is.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] `credential_unreadable`.
    pub fn stored(credential: &StoredCredential) -> Result<(Self, Option<String>), ProviderError> {
        let unreadable = |detail: String| ProviderError::Rejected { code: "credential_unreadable".to_owned(), detail };
        let opened = credential.open().map_err(|error| unreadable(format!("the stored credential: {error}")))?;
        let key = serde_json::from_slice(opened.expose_secret()).ok().and_then(own_parts);
        let key = key
            .ok_or_else(|| unreadable("the stored credential has a form that this worker does not know".to_owned()))?;
        let email = key.get("client_email").and_then(Value::as_str).map(str::to_owned);
        let scopes = AccessSpecifier::from_scopes([SCOPE]);
        let built = ServiceAccount::new(key).with_access_specifier(scopes).build_access_token_credentials();
        built
            .map(|source| (Self::Google(source), email))
            .map_err(|_| unreadable("the stored key of a service account cannot be used".to_owned()))
    }

    /// The headers that say whom a request comes from. Asks for a token where none is at hand.
    ///
    /// # Errors
    /// [`ProviderError::Unauthenticated`], or `Unavailable` when it may work later.
    pub async fn headers(&self) -> Result<HeaderMap, ProviderError> {
        let credentials = match self {
            Self::Google(credentials) => credentials,
            Self::Token(token) => return bearer(token.expose_secret()),
        };
        // the type of the argument belongs to a crate that nothing else here needs
        let told = tokio::time::timeout(TOKEN_WITHIN, credentials.headers(Default::default())).await;
        let late = |_| ProviderError::Unavailable {
            detail: "the source of Google Cloud tokens did not answer in time".to_owned(),
        };
        match told.map_err(late)? {
            Ok(CacheableResource::New { data, .. }) => Ok(data),
            Ok(CacheableResource::NotModified) => Err(unauthenticated()),
            Err(error) if error.is_transient() => Err(ProviderError::Unavailable {
                detail: "the source of Google Cloud tokens cannot be reached".to_owned(),
            }),
            Err(_) => Err(unauthenticated()),
        }
    }
}

fn unauthenticated() -> ProviderError {
    ProviderError::Unauthenticated {
        detail: "no Google Cloud token was given for this credential: it may be wrong, disabled or deleted, or the worker has none"
            .to_owned(),
    }
}

/// # Errors
/// [`ProviderError::Unauthenticated`] when the token cannot be sent.
pub(super) fn bearer(token: &str) -> Result<HeaderMap, ProviderError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unauthenticated())?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// Of a key, what signs. Addresses in it, and the universe that would decide where tokens are sent, are left out whatever the
/// API let through.
fn own_parts(key: Value) -> Option<Value> {
    let Value::Object(mut key) = key else { return None };
    let mut own = json!({"type": "service_account"});
    for name in ["project_id", "private_key_id", "private_key", "client_email"] {
        own.as_object_mut()?.insert(name.to_owned(), key.remove(name).filter(Value::is_string)?);
    }
    Some(own)
}

fn endpoint(text: &str) -> Result<Url, ProviderError> {
    let url = Url::parse(text).map_err(|_| invalid("settings.gcp.endpoint is not a URL"))?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !plain {
        return Err(invalid("settings.gcp.endpoint must be http(s)://host[:port][/path] without credentials or query"));
    }
    if url.domain().is_some_and(is_own_host) && url.scheme() != "https" {
        return Err(invalid("settings.gcp.endpoint must be https where it is Google's own"));
    }
    Ok(url)
}

fn invalid(detail: &str) -> ProviderError {
    ProviderError::Rejected { code: "invalid_settings".to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywright_jobs::domain::inventory::ProviderKind;

    fn login(project: &str, settings: Value, regions: &[&str]) -> Result<Login, ProviderError> {
        Login::of(&Target {
            provider: ProviderKind::Gcp,
            external_id: project.to_owned(),
            regions: regions.iter().map(|&region| region.to_owned()).collect(),
            settings,
            auth_mode: "ambient".to_owned(),
        })
    }

    fn refused(login: Result<Login, ProviderError>) -> bool {
        matches!(login, Err(ProviderError::Rejected { code, .. }) if code == "invalid_settings")
    }

    #[test]
    fn names_are_what_they_must_be() {
        assert_eq!(login("acme-prod", json!({}), &[]).unwrap().regions, [GLOBAL]);
        let regions = ["us-east1", "global", "us-east1"];
        assert_eq!(login("acme-prod", json!({}), &regions).unwrap().regions, ["global", "us-east1"]);
        assert!(refused(login("123456789012", json!({}), &[])));
        assert!(refused(login("acme-prod", json!({}), &["evil.com/#"])));
    }

    #[test]
    fn settings_are_what_they_say_and_nothing_more() {
        let with = |settings| login("acme-prod", settings, &[]);
        for good in ["audit@acme-prod.iam.gserviceaccount.com", "123-compute@developer.gserviceaccount.com"] {
            assert_eq!(with(json!({"impersonate": good})).unwrap().impersonate.as_deref(), Some(good));
        }
        for bad in [
            "audit",
            "audit@example.com",
            "a/b@x.gserviceaccount.com",
            "@x.gserviceaccount.com",
            "a@..gserviceaccount.com",
        ] {
            assert!(refused(with(json!({"impersonate": bad}))), "{bad}");
        }
        assert!(with(json!({"endpoint": "http://127.0.0.1:5000"})).is_ok());
        assert!(with(json!({"endpoint": "https://secretmanager-psc.p.googleapis.com"})).is_ok());
        for bad in
            ["file:///etc/passwd", "127.0.0.1:5000", "http://u:p@host", "http://host/?x=1", "http://iam.googleapis.com"]
        {
            assert!(refused(with(json!({"endpoint": bad}))), "{bad}");
        }
        assert!(refused(with(json!({"Endpoint": "https://x"}))));
    }

    #[test]
    fn of_a_stored_key_only_what_signs_is_used() {
        let key = json!({
            "type": "external_account", "project_id": "acme-prod", "private_key_id": "1", "private_key": "p",
            "client_email": "c", "token_uri": "https://evil.example", "universe_domain": "evil.example",
        });
        let own = own_parts(key).unwrap();
        let names: Vec<&str> = own.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["client_email", "private_key", "private_key_id", "project_id", "type"]);
        assert_eq!(own["type"], "service_account");
        assert_eq!(own_parts(json!({"private_key": 7})), None);
    }
}
