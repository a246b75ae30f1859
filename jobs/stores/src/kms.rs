//! Key management services that wrap the instance's key-encryption key.
//!
//! The service is asked when a process starts, and never for a record: what it unwraps stays in the process's memory.

mod aws;
mod gcp;

use std::{fmt, str::FromStr, time::Duration};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

/// What the service binds the wrapped key to: it unwraps for nothing else.
const PURPOSE: &str = "keywright key-encryption key";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often a request is sent while the service is away or busy.
const ATTEMPTS: u32 = 3;

/// A key of a service, by the name that the operator gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kms {
    Aws(aws::Key),
    Gcp(gcp::Key),
}

/// The text is not the name of a key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "is not the name of a key; write aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID or \
     gcp-kms:projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY"
)]
pub struct WrongName;

/// Why a service did not wrap or unwrap. The text never holds a secret nor the service's raw reply.
#[derive(Debug, Error)]
pub enum KmsError {
    #[error("it did not answer ({detail}); check the network and start again")]
    Unavailable { detail: String },
    #[error("it refuses this process ({detail}); allow its identity to encrypt and decrypt with this key")]
    Denied { detail: String },
    #[error("there are no credentials for it ({detail}); give them as the provider's official tools read them")]
    NoCredentials { detail: String },
    #[error("it cannot use the key ({detail}); check its name, and that it is enabled and for symmetric encryption")]
    Unusable { detail: String },
    #[error("what the database holds was not wrapped by this key, or was changed since ({detail})")]
    NotOurs { detail: String },
    #[error("its answer is not understood ({detail})")]
    Reply { detail: String },
}

impl KmsError {
    /// Whether the same may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Reply { .. })
    }
}

impl Kms {
    /// Reaches Google's service at this address instead of Google's own. AWS's has `AWS_ENDPOINT_URL`, as its SDK reads it.
    #[must_use]
    pub fn at(self, gcp_endpoint: Option<Url>) -> Self {
        match self {
            Self::Gcp(key) => Self::Gcp(gcp::Key { endpoint: gcp_endpoint, ..key }),
            other => other,
        }
    }

    /// Has the service encrypt a key.
    ///
    /// # Errors
    /// [`KmsError`].
    pub async fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, KmsError> {
        match self {
            Self::Aws(aws) => aws.wrap(key).await,
            Self::Gcp(gcp) => gcp.wrap(key).await,
        }
    }

    /// Has the service decrypt what it encrypted.
    ///
    /// # Errors
    /// [`KmsError::NotOurs`] when another key did.
    pub async fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        match self {
            Self::Aws(aws) => aws.unwrap(wrapped).await,
            Self::Gcp(gcp) => gcp.unwrap(wrapped).await,
        }
    }
}

impl FromStr for Kms {
    type Err = WrongName;

    fn from_str(text: &str) -> Result<Self, WrongName> {
        match text.split_once(':') {
            Some(("aws-kms", arn)) => aws::Key::parse(arn).map(Self::Aws),
            Some(("gcp-kms", name)) => gcp::Key::parse(name).map(Self::Gcp),
            _ => None,
        }
        .ok_or(WrongName)
    }
}

impl fmt::Display for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws(key) => write!(f, "aws-kms:{}", key.arn),
            Self::Gcp(key) => write!(f, "gcp-kms:{}", key.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_whole_name_and_is_shown_as_given() {
        for good in [
            "aws-kms:arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "aws-kms:arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab",
            "aws-kms:arn:aws:kms:eu-west-1:123456789012:alias/keywright/prod",
            "gcp-kms:projects/acme-prod/locations/europe-west1/keyRings/main/cryptoKeys/keywright",
        ] {
            assert_eq!(good.parse::<Kms>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "aws-kms:",
            "aws-kms:alias/keywright",
            "aws-kms:arn:aws:s3:eu-west-1:123456789012:key/x",
            "aws-kms:arn:aws:kms:evil.com/#:123456789012:key/x",
            "aws-kms:arn:aws:kms:eu-west-1:12345:key/x",
            "aws-kms:arn:aws:kms:eu-west-1:123456789012:key/",
            "arn:aws:kms:eu-west-1:123456789012:key/x",
            "gcp-kms:projects/p/locations/l/keyRings/r",
            "gcp-kms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "gcp-kms:projects/../locations/l/keyRings/r/cryptoKeys/k",
            "gcp-kms:projects/p/locations/l/keyRings/r/cryptoKeys/k?x=1",
            "azure-kms:x",
        ] {
            assert_eq!(bad.parse::<Kms>(), Err(WrongName), "{bad}");
        }
    }
}
