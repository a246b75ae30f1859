//! What an answer of AWS means to a job.
//!
//! The texts are ours: a reply's own words are read for the error code and the name of the missing permission, and dropped.

use crate::providers::{
    egress::{EgressError, REFUSED},
    http::retry_after,
};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::{
    orchestrator::HttpResponse,
    result::{ConnectorError, SdkError},
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use keywright_jobs::provider::{NOT_FOUND, ProviderError};
use std::{error::Error, time::Duration};

/// Codes by which the services say "slower" (the SDKs' common list).
const THROTTLING: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Codes by which a credential is refused, whatever it may do.
const UNAUTHENTICATED: &[&str] = &[
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Codes by which the one thing that was asked about is not there.
const MISSING: &[&str] = &["NoSuchEntity", "NotFoundException", "ResourceNotFoundException"];

const DENIED: &[&str] = &["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"];

/// The call that failed, in the words that its error needs.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The IAM action, e.g. `secretsmanager:ListSecrets`.
    pub action: &'static str,
    pub region: &'a str,
    /// Whether a page token was sent.
    pub paged: bool,
}

impl Call<'_> {
    /// For logs and for spreading waits.
    pub fn name(&self) -> String {
        format!("{} {}", self.region, self.action)
    }

    /// Translates what the SDK returned.
    pub fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> ProviderError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => self.unavailable("did not answer in time"),
            SdkError::DispatchFailure(failure) => failure
                .as_connector_error()
                .map_or_else(|| self.unavailable("could not be reached"), |e| self.unsent(e)),
            SdkError::ServiceError(failure) => {
                let meta = failure.err().meta();
                self.answered(&Reply::new(failure.raw(), meta.code(), meta.message()))
            }
            SdkError::ResponseError(failure) => self.answered(&Reply::new(failure.raw(), None, None)),
            // the request could not even be built: endpoint rules, a parameter
            _ => self.rejected("invalid_request", "the request could not be built from these settings"),
        }
    }

    fn unsent(&self, error: &ConnectorError) -> ProviderError {
        if let Some(refused @ EgressError::Refused { .. }) = cause(error) {
            return self.rejected(REFUSED, &refused.to_string());
        }
        match cause(error) {
            Some(CredentialsError::ProviderTimedOut(_)) => {
                self.unavailable("the source of credentials did not answer in time")
            }
            Some(CredentialsError::CredentialsNotLoaded(_)) => ProviderError::Unauthenticated {
                detail: "no AWS credentials were found: the worker has none, or has no such profile".to_owned(),
            },
            Some(_) => ProviderError::Unauthenticated {
                detail:
                    "the AWS credentials could not be obtained; check the profile, or that the role trusts this worker"
                        .to_owned(),
            },
            None if error.is_timeout() => self.unavailable("did not answer in time"),
            None => self.unavailable("could not be reached"),
        }
    }

    fn answered(&self, reply: &Reply<'_>) -> ProviderError {
        let code = reply.code.as_deref().unwrap_or_default();
        let region = self.region;
        if reply.status == 429 || THROTTLING.contains(&code) {
            return ProviderError::Throttled {
                detail: format!("AWS limits the rate of {} in {region}", self.action),
                retry_after: reply.retry_after,
            };
        }
        if UNAUTHENTICATED.contains(&code) || (reply.status == 401 && code.is_empty()) {
            return ProviderError::Unauthenticated {
                detail: format!(
                    "AWS does not accept this credential in {region}: it may be wrong, expired or deleted, or the region not \
                     enabled in this account"
                ),
            };
        }
        if DENIED.contains(&code) || matches!(reply.status, 401 | 403) {
            let permission = reply.message.as_deref().and_then(permission_in).unwrap_or(self.action).to_owned();
            return ProviderError::Denied {
                detail: format!("this identity may not call {permission} in {region}"),
                permission: Some(permission),
            };
        }
        if self.paged && is_bad_token(code, reply.message.as_deref()) {
            return ProviderError::PageExpired;
        }
        if MISSING.contains(&code) {
            return self.rejected(NOT_FOUND, "there is no such thing any more");
        }
        match reply.status {
            200..=299 => self.unexpected_reply("AWS sent an answer that cannot be read"),
            // 501: whoever answers will never know this call
            500 | 502..=599 => self.unavailable("failed inside AWS"),
            status => self.rejected("refused", &format!("AWS refused the call with status {status}")),
        }
    }

    /// The token of the next page, when there is one.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] `unexpected_reply` when it leads nowhere: it is the one that was `sent`.
    pub fn next(&self, told: Option<String>, sent: Option<&str>) -> Result<Option<String>, ProviderError> {
        let next = told.filter(|next| !next.is_empty());
        if next.is_some() && next.as_deref() == sent {
            return Err(self.unexpected_reply("the same page token was given twice"));
        }
        Ok(next)
    }

    /// The answer arrived and makes no sense.
    pub fn unexpected_reply(&self, what: &str) -> ProviderError {
        self.rejected("unexpected_reply", what)
    }

    fn unavailable(&self, what: &str) -> ProviderError {
        ProviderError::Unavailable { detail: format!("{} in {}: {what}", self.action, self.region) }
    }

    fn rejected(&self, code: &str, what: &str) -> ProviderError {
        ProviderError::Rejected { code: code.to_owned(), detail: format!("{} in {}: {what}", self.action, self.region) }
    }
}

/// What of an error reply decides.
struct Reply<'a> {
    status: u16,
    code: Option<std::borrow::Cow<'a, str>>,
    message: Option<std::borrow::Cow<'a, str>>,
    retry_after: Option<Duration>,
}

impl<'a> Reply<'a> {
    /// `code` and `message` as the SDK read them; a reply in XML (a proxy's, an emulator's, an edge's) is read here.
    fn new(raw: &'a HttpResponse, code: Option<&'a str>, message: Option<&'a str>) -> Self {
        let body = raw.body().bytes().unwrap_or_default();
        let element = |name| xml_element(body, name).map(std::borrow::Cow::Owned);
        Self {
            status: raw.status().as_u16(),
            code: code.map(Into::into).or_else(|| element("Code")),
            message: message.map(Into::into).or_else(|| element("Message")),
            retry_after: told_to_wait(raw),
        }
    }
}

/// `Retry-After`, or AWS's own header in milliseconds.
fn told_to_wait(raw: &HttpResponse) -> Option<Duration> {
    let header = |name| raw.headers().get(name);
    retry_after(header("retry-after"), header("date"))
        .or_else(|| header("x-amz-retry-after")?.trim().parse().ok().map(Duration::from_millis))
}

/// The text of the first `<name>` in the first 4 KiB.
fn xml_element(body: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(body.get(..4096).unwrap_or(body));
    let (_, after) = head.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once("</")?;
    Some(text.trim().to_owned())
}

/// The IAM action in `… is not authorized to perform: secretsmanager:ListSecrets because …`.
fn permission_in(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("to perform: ")?;
    let word = after.split(|c: char| c.is_whitespace() || c == ',').next()?.trim_end_matches('.');
    let (service, action) = word.split_once(':')?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (word.len() <= 100 && plain(service) && plain(action)).then_some(word)
}

fn is_bad_token(code: &str, message: Option<&str>) -> bool {
    let mentions_token = || message.is_some_and(|text| text.to_ascii_lowercase().contains("nexttoken"));
    matches!(
        code,
        "InvalidNextTokenException" | "InvalidNextToken" | "ExpiredNextTokenException" | "InvalidMarkerException"
    ) || (matches!(code, "ValidationException" | "InvalidParameterException" | "InvalidArgsException")
        && mentions_token())
}

/// The error of this type behind an error.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_runtime_api::client::dns::ResolveDnsError;

    const CALL: Call<'_> = Call { action: "secretsmanager:ListSecrets", region: "eu-west-1", paged: true };

    fn answered(status: u16, code: &str, message: &str) -> ProviderError {
        CALL.answered(&Reply {
            status,
            code: Some(code.into()).filter(|_| !code.is_empty()),
            message: Some(message.into()),
            retry_after: None,
        })
    }

    #[test]
    fn a_name_that_leads_inside_is_told_as_refused_and_not_tried_again() {
        let refused = EgressError::Refused { host: "moved.test".to_owned(), address: [10, 0, 0, 1].into() };
        let error = ConnectorError::io(ResolveDnsError::new(refused).into());
        let ProviderError::Rejected { code, detail } = CALL.unsent(&error) else { panic!("it must not be retried") };
        assert_eq!(code, REFUSED);
        assert!(detail.contains("moved.test leads to 10.0.0.1"), "{detail}");
    }

    fn denied(permission: &str) -> ProviderError {
        ProviderError::Denied {
            detail: format!("this identity may not call {permission} in eu-west-1"),
            permission: Some(permission.to_owned()),
        }
    }

    #[test]
    fn a_refusal_names_the_permission_of_the_message() {
        let message = "User: arn:aws:iam::1:user/x is not authorized to perform: secretsmanager:ListSecrets because no \
                       identity-based policy allows it";
        assert_eq!(answered(400, "AccessDeniedException", message), denied("secretsmanager:ListSecrets"));
        let kms = "User is not authorized to perform: kms:Decrypt.";
        assert_eq!(answered(400, "AccessDeniedException", kms), denied("kms:Decrypt"));
    }

    #[test]
    fn a_refusal_without_a_readable_message_names_the_action() {
        assert_eq!(answered(403, "", "<html>no</html>"), denied("secretsmanager:ListSecrets"));
        assert_eq!(
            answered(403, "AccessDenied", "not authorized to perform: <script>:x"),
            denied("secretsmanager:ListSecrets")
        );
    }

    #[test]
    fn a_refused_credential_is_not_a_missing_permission() {
        for code in ["UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException"] {
            assert!(matches!(answered(403, code, ""), ProviderError::Unauthenticated { .. }), "{code}");
        }
    }

    #[test]
    fn throttling_is_known_by_status_or_code() {
        assert!(matches!(answered(429, "", ""), ProviderError::Throttled { .. }));
        assert!(matches!(answered(400, "ThrottlingException", ""), ProviderError::Throttled { .. }));
        assert!(matches!(answered(503, "SlowDown", ""), ProviderError::Throttled { .. }));
    }

    #[test]
    fn a_bad_token_is_an_expired_page_only_when_one_was_sent() {
        assert_eq!(answered(400, "InvalidNextTokenException", ""), ProviderError::PageExpired);
        assert_eq!(answered(400, "ValidationException", "bad NextToken"), ProviderError::PageExpired);
        assert!(matches!(answered(400, "ValidationException", "bad MaxResults"), ProviderError::Rejected { .. }));
        let first = Call { paged: false, ..CALL };
        let reply =
            Reply { status: 400, code: Some("InvalidNextTokenException".into()), message: None, retry_after: None };
        assert!(matches!(first.answered(&reply), ProviderError::Rejected { .. }));
    }

    #[test]
    fn other_statuses_are_passing_or_final() {
        assert!(matches!(answered(500, "InternalServiceError", ""), ProviderError::Unavailable { .. }));
        assert!(matches!(answered(501, "", ""), ProviderError::Rejected { .. }));
        assert!(matches!(answered(404, "", ""), ProviderError::Rejected { .. }));
        let ProviderError::Rejected { code, .. } = answered(200, "", "") else { panic!("a broken answer is final") };
        assert_eq!(code, "unexpected_reply");
    }

    #[test]
    fn the_reply_s_own_words_never_come_through() {
        for status in [200, 400, 403, 418, 429, 500] {
            assert!(!format!("{:?}", answered(status, "Odd", "s3cr3t")).contains("s3cr3t"), "{status}");
        }
    }

    #[test]
    fn xml_is_read_for_its_code() {
        let body =
            b"<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>x</Message></Error></ErrorResponse>";
        assert_eq!(xml_element(body, "Code").as_deref(), Some("InvalidClientTokenId"));
        assert_eq!(xml_element(b"<Code>cut", "Code"), None);
        assert_eq!(xml_element(&[0xff; 9000], "Code"), None);
    }
}
