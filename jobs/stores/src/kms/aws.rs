//! AWS KMS.

use super::{ATTEMPTS, KmsError, PURPOSE, TIMEOUT};
use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
};
use zeroize::Zeroizing;

/// The name in the encryption context, which the service also shows in the account's CloudTrail.
const CONTEXT: &str = "purpose";

/// A key or an alias by its ARN, which tells the region too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) arn: String,
    region: String,
}

impl Key {
    pub(super) fn parse(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [scheme, partition, service, region, account, resource] = parts.as_slice() else { return None };
        let word = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let named = resource.strip_prefix("key/").or_else(|| resource.strip_prefix("alias/"));
        let good = *scheme == "arn"
            && partition.starts_with("aws")
            && *service == "kms"
            && word(region, b"-")
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && named.is_some_and(|name| word(name, b"-_/"));
        good.then(|| Self { arn: arn.to_owned(), region: (*region).to_owned() })
    }

    async fn client(&self) -> Client {
        let limits = TimeoutConfig::builder().connect_timeout(TIMEOUT).operation_attempt_timeout(TIMEOUT).build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(limits)
            .load()
            .await;
        Client::new(&config)
    }

    pub(super) async fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, KmsError> {
        let request = self.client().await.encrypt().key_id(&self.arn).plaintext(Blob::new(key));
        let answer = request.encryption_context(CONTEXT, PURPOSE).send().await.map_err(|error| failed(&error))?;
        answer.ciphertext_blob.map(Blob::into_inner).ok_or_else(empty)
    }

    pub(super) async fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let request = self.client().await.decrypt().key_id(&self.arn).ciphertext_blob(Blob::new(wrapped));
        let answer = request.encryption_context(CONTEXT, PURPOSE).send().await.map_err(|error| failed(&error))?;
        answer.plaintext.map(|blob| Zeroizing::new(blob.into_inner())).ok_or_else(empty)
    }
}

fn empty() -> KmsError {
    KmsError::Reply { detail: "it holds no key".to_owned() }
}

/// Reads the code of a reply and drops its words.
fn failed<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> KmsError {
    let away = |detail: &str| KmsError::Unavailable { detail: detail.to_owned() };
    match error {
        SdkError::TimeoutError(_) => away("no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() || failure.is_io() => away("it cannot be reached"),
        // what is neither sent nor answered lacked what it is signed with
        SdkError::DispatchFailure(_) => {
            KmsError::NoCredentials { detail: "none was found, or it was refused".to_owned() }
        }
        SdkError::ServiceError(failure) => answered(failure.err().code().unwrap_or("unnamed")),
        SdkError::ResponseError(_) => KmsError::Reply { detail: "it is not an answer of AWS KMS".to_owned() },
        _ => KmsError::Unusable { detail: "the request could not be built".to_owned() },
    }
}

fn answered(code: &str) -> KmsError {
    let detail = code.chars().take(64).collect();
    match code {
        "AccessDeniedException" => KmsError::Denied { detail },
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationTokenException" => KmsError::NoCredentials { detail },
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsError::NotOurs { detail },
        "NotFoundException"
        | "DisabledException"
        | "KMSInvalidStateException"
        | "InvalidKeyUsageException"
        | "InvalidArnException"
        | "ValidationException" => KmsError::Unusable { detail },
        _ => KmsError::Unavailable { detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(matches!(answered("AccessDeniedException"), KmsError::Denied { .. }));
        assert!(matches!(answered("IncorrectKeyException"), KmsError::NotOurs { .. }));
        assert!(matches!(answered("DisabledException"), KmsError::Unusable { .. }));
        assert!(answered("ThrottlingException").is_transient() && answered("KMSInternalException").is_transient());
        assert!(!answered("UnrecognizedClientException").is_transient());
    }
}
