//! Google Cloud KMS over its REST interface: two calls, for which its client library would be thousands of types.

use super::{ATTEMPTS, KmsError, PURPOSE, TIMEOUT};
use base64::{Engine, engine::general_purpose::STANDARD};
use google_cloud_auth::credentials::Builder;
use reqwest::{StatusCode, redirect::Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use url::Url;
use zeroize::{Zeroize, Zeroizing};

const ENDPOINT: &str = "https://cloudkms.googleapis.com";
/// May encrypt and decrypt, and nothing outside KMS.
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
const PAUSE: Duration = Duration::from_millis(500);

/// A key by its resource name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) name: String,
    pub(super) endpoint: Option<Url>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encrypt<'a> {
    plaintext: &'a str,
    additional_authenticated_data: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decrypt {
    ciphertext: String,
    additional_authenticated_data: String,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

impl Key {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        let ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key] = parts.as_slice() else {
            return None;
        };
        // a project may belong to a domain: `example.com:project`
        let word = |text: &&str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        let good = [project, location, ring, key].into_iter().all(word);
        good.then(|| Self { name: name.to_owned(), endpoint: None })
    }

    pub(super) async fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, KmsError> {
        let plaintext = Zeroizing::new(STANDARD.encode(key));
        let request = Encrypt { plaintext: &plaintext, additional_authenticated_data: STANDARD.encode(PURPOSE) };
        let answer: Encrypted = self.ask("encrypt", &request).await?;
        STANDARD.decode(&answer.ciphertext).map_err(|_| reply("its ciphertext is not base64"))
    }

    pub(super) async fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let request =
            Decrypt { ciphertext: STANDARD.encode(wrapped), additional_authenticated_data: STANDARD.encode(PURPOSE) };
        let answer: Decrypted = self.ask("decrypt", &request).await?;
        let bytes = STANDARD.decode(&answer.plaintext).map_err(|_| reply("its plaintext is not base64"))?;
        Ok(Zeroizing::new(bytes))
    }

    async fn ask<A: for<'de> Deserialize<'de>>(&self, verb: &str, request: &impl Serialize) -> Result<A, KmsError> {
        let base = self.endpoint.as_ref().map_or(ENDPOINT, Url::as_str).trim_end_matches('/');
        let address = format!("{base}/v1/{}:{verb}", self.name);
        let none = |detail: &str| KmsError::NoCredentials { detail: detail.to_owned() };
        let credentials = Builder::default().with_scopes([SCOPE]).build_access_token_credentials();
        let credentials = credentials.map_err(|_| none("none was found, or it is of an unknown kind"))?;
        let token = credentials.access_token().await.map_err(|error| {
            if error.is_transient() { away("its source of tokens") } else { none("no token was given for them") }
        })?;
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build();
        let client = client.map_err(|_| away("no client"))?;
        let mut attempt = 1;
        loop {
            let sent = client.post(&address).bearer_auth(&token.token).json(request).send().await;
            let error = match sent {
                Ok(answer) if answer.status().is_success() => {
                    return answer.json().await.map_err(|_| reply("it is not an answer of Cloud KMS"));
                }
                Ok(answer) => refused(answer.status(), verb),
                Err(_) => away("it cannot be reached"),
            };
            if attempt == ATTEMPTS || !error.is_transient() {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(PAUSE * attempt).await;
        }
    }
}

fn away(detail: &str) -> KmsError {
    KmsError::Unavailable { detail: detail.to_owned() }
}

fn reply(detail: &str) -> KmsError {
    KmsError::Reply { detail: detail.to_owned() }
}

fn refused(status: StatusCode, verb: &str) -> KmsError {
    let detail = status.as_u16().to_string();
    match status {
        StatusCode::UNAUTHORIZED => KmsError::NoCredentials { detail },
        StatusCode::FORBIDDEN => KmsError::Denied { detail },
        StatusCode::BAD_REQUEST if verb == "decrypt" => KmsError::NotOurs { detail },
        StatusCode::TOO_MANY_REQUESTS => KmsError::Unavailable { detail },
        status if status.is_client_error() => KmsError::Unusable { detail },
        _ => KmsError::Unavailable { detail },
    }
}
