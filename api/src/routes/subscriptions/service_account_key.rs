//! The key of a service account of Google Cloud, as its file holds it.

use super::credential::{Change, object, refusal};
use crate::error::FieldError;
use keywright_jobs::{domain::google::is_own_host, egress::REFUSED};
use poem_openapi::{Object, types::Password};
use url::Url;
use zeroize::Zeroizing;

/// The file of a service account's key, member by member as Google gives it. Only what signs is kept: addresses in it are never
/// asked, and one that is not Google's own is refused.
#[derive(Object)]
pub struct ServiceAccountKey {
    /// A file of another type, such as a workload identity configuration, names files and addresses of the machine it is used on:
    /// give it to the workers with `GOOGLE_APPLICATION_CREDENTIALS`.
    #[oai(rename = "type", validator(pattern = "^service_account$"))]
    pub kind: String,
    #[oai(validator(min_length = 1, max_length = 300, pattern = "^[a-z0-9.:-]+$"))]
    pub project_id: String,
    #[oai(validator(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9]+$"))]
    pub private_key_id: String,
    /// In PEM, unencrypted PKCS#8.
    #[oai(validator(
        max_length = 16384,
        pattern = r"^-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+\n-----END PRIVATE KEY-----\n?$"
    ))]
    pub private_key: Password,
    #[oai(validator(max_length = 320, pattern = r"^[A-Za-z0-9.-]+@[A-Za-z0-9.-]+\.gserviceaccount\.com$"))]
    pub client_email: String,
    #[oai(validator(max_length = 64))]
    pub client_id: Option<String>,
    #[oai(validator(max_length = 2048))]
    pub auth_uri: Option<String>,
    #[oai(validator(max_length = 2048))]
    pub token_uri: Option<String>,
    #[oai(validator(max_length = 2048))]
    pub auth_provider_x509_cert_url: Option<String>,
    #[oai(validator(max_length = 2048))]
    pub client_x509_cert_url: Option<String>,
    #[oai(validator(max_length = 253))]
    pub universe_domain: Option<String>,
}

impl ServiceAccountKey {
    /// What is to be stored; what is wrong goes to `wrong`.
    pub(super) fn stored(self, wrong: &mut Vec<FieldError>) -> Change {
        let private_key = Zeroizing::new(self.private_key.0);
        let addresses = [
            ("auth_uri", &self.auth_uri),
            ("token_uri", &self.token_uri),
            ("auth_provider_x509_cert_url", &self.auth_provider_x509_cert_url),
            ("client_x509_cert_url", &self.client_x509_cert_url),
        ];
        for (name, _) in addresses.iter().filter(|(_, address)| address.as_deref().is_some_and(|text| !is_google(text)))
        {
            let message =
                "This is no address of Google's own; no other is asked for a token. Take the file as Google gives it.";
            wrong.push(refusal(&format!("serviceAccountKey/{name}"), REFUSED, message));
        }
        if self.universe_domain.is_some_and(|domain| domain != "googleapis.com") {
            let message = "This version reaches googleapis.com alone.";
            wrong.push(refusal("serviceAccountKey/universe_domain", "unsupported", message));
        }
        Change::Store(object(&[
            ("project_id", &self.project_id),
            ("private_key_id", &self.private_key_id),
            ("private_key", &private_key),
            ("client_email", &self.client_email),
        ]))
    }
}

fn is_google(address: &str) -> bool {
    let host = |url: &Url| url.domain().is_some_and(|host| is_own_host(host) || host == "accounts.google.com");
    Url::parse(address).is_ok_and(|url| url.scheme() == "https" && url.port().is_none() && host(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_google_are_its_own_over_https() {
        for own in [
            "https://oauth2.googleapis.com/token",
            "https://accounts.google.com/o/oauth2/auth",
            "https://www.googleapis.com/robot/v1/metadata/x509/a%40acme-prod.iam.gserviceaccount.com",
        ] {
            assert!(is_google(own), "{own}");
        }
        for foreign in [
            "http://oauth2.googleapis.com/token",
            "https://oauth2.googleapis.com:8443/token",
            "https://oauth2.googleapis.com.evil.example/token",
            "https://oauth2.googleapis.com@evil.example/token",
            "https://169.254.169.254/token",
            "",
        ] {
            assert!(!is_google(foreign), "{foreign}");
        }
    }
}
