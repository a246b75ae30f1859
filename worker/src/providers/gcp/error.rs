//! What an answer of Google Cloud means to a job.
//!
//! The texts are ours: a reply's own words are read for its status, its reason and the name of the missing permission, and
//! dropped.

use crate::providers::{
    egress::{EgressError, REFUSED},
    http::retry_after,
};
use keywright_jobs::provider::ProviderError;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use std::{error::Error, time::Duration};

/// A project that does not exist, or that this identity may not know of.
pub(super) const PROJECT_NOT_FOUND: &str = "project_not_found";
/// What was asked about vanished since it was listed.
pub(super) const NOT_FOUND: &str = "not_found";
const API_DISABLED: &str = "api_disabled";

/// The call that failed, in the words that its error needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The permission that it needs, e.g. `secretmanager.secrets.list`.
    pub permission: &'static str,
    /// The project, the secret or the service account that it is about.
    pub subject: &'a str,
    /// Whether a page token was sent.
    pub paged: bool,
    /// What a 404 says is missing.
    pub missing: &'static str,
}

/// An answer that is no success.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    status: u16,
    told: Told,
    retry_after: Option<Duration>,
}

/// The error object of <https://cloud.google.com/apis/design/errors>.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Envelope {
    error: Told,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    status: String,
    details: Vec<Value>,
}

impl Refusal {
    /// Reads what decides. A body in another form, such as a proxy's page, tells nothing, and the status alone counts.
    pub fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let told = serde_json::from_slice::<Envelope>(body).unwrap_or_default().error;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = retry_after(header("retry-after"), header("date")).or_else(|| told.retry_delay());
        Self { status, told, retry_after }
    }

    fn reason(&self) -> &str {
        self.told.detail("ErrorInfo").and_then(|info| info.get("reason")?.as_str()).unwrap_or_default()
    }

    /// A word of the reply's metadata, if it is no more than a word.
    fn metadata(&self, name: &str) -> Option<&str> {
        let word = self.told.detail("ErrorInfo")?.get("metadata")?.get(name)?.as_str()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (word.len() <= 100 && word.contains('.') && word.bytes().all(plain)).then_some(word)
    }
}

impl Told {
    fn detail(&self, name: &str) -> Option<&Value> {
        let is = |detail: &&Value| {
            let kind = detail.get("@type").and_then(Value::as_str);
            kind.and_then(|kind| kind.rsplit_once("google.rpc.")).is_some_and(|(_, found)| found == name)
        };
        self.details.iter().find(is)
    }

    fn retry_delay(&self) -> Option<Duration> {
        let text = self.detail("RetryInfo")?.get("retryDelay")?.as_str()?;
        let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl Call<'_> {
    /// For logs and for spreading waits.
    pub fn name(&self) -> String {
        format!("{} {}", self.subject, self.permission)
    }

    /// No answer came.
    pub fn unsent(&self, error: &reqwest::Error) -> ProviderError {
        if let Some(refused @ EgressError::Refused { .. }) = cause(error) {
            return self.rejected(REFUSED, &refused.to_string());
        }
        self.unavailable(if error.is_timeout() { "did not answer in time" } else { "could not be reached" })
    }

    pub fn answered(&self, refusal: &Refusal) -> ProviderError {
        let (status, word, reason) = (refusal.status, refusal.told.status.as_str(), refusal.reason());
        if status == 429 || word == "RESOURCE_EXHAUSTED" || reason == "RATE_LIMIT_EXCEEDED" {
            return ProviderError::Throttled {
                detail: format!("Google Cloud limits the rate of {} on {}", self.permission, self.subject),
                retry_after: refusal.retry_after,
            };
        }
        if let Some(error) = self.by_reason(reason, refusal) {
            return error;
        }
        if status == 401 || word == "UNAUTHENTICATED" {
            return ProviderError::Unauthenticated {
                detail: "Google Cloud does not accept this credential: it may be wrong, expired, disabled or deleted"
                    .to_owned(),
            };
        }
        if status == 403 || word == "PERMISSION_DENIED" {
            return self.denied(refusal.metadata("permission").unwrap_or(self.permission));
        }
        // a page token is the only part of these requests that can go bad
        if self.paged && matches!(status, 400 | 410) && word != "FAILED_PRECONDITION" {
            return ProviderError::PageExpired;
        }
        match status {
            404 => self.rejected(self.missing, "Google Cloud knows no such thing"),
            408 | 500 | 502..=599 => self.unavailable("failed inside Google Cloud"),
            status => self.rejected("refused", &format!("Google Cloud refused the call with status {status}")),
        }
    }

    /// What a 403 means when it says more than that.
    fn by_reason(&self, reason: &str, refusal: &Refusal) -> Option<ProviderError> {
        Some(match reason {
            "SERVICE_DISABLED" => {
                let service = refusal.metadata("service").unwrap_or("of this call");
                let text = format!("the API {service} is not enabled in this project; `gcloud services enable` enables it");
                self.rejected(API_DISABLED, &text)
            }
            "BILLING_DISABLED" => self.rejected("billing_disabled", "the project has no billing account"),
            "CONSUMER_INVALID" => self.rejected(PROJECT_NOT_FOUND, "Google Cloud knows no such project"),
            "CONSUMER_SUSPENDED" => self.rejected("project_suspended", "the project is suspended"),
            "USER_PROJECT_DENIED" => self.denied("serviceusage.services.use"),
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => ProviderError::Unauthenticated {
                detail: "the access token lacks the scope cloud-platform; give it to the machine or credential that the worker \
                         runs with"
                    .to_owned(),
            },
            _ => return None,
        })
    }

    fn denied(&self, permission: &str) -> ProviderError {
        ProviderError::Denied {
            detail: format!("this identity lacks {permission} on {}", self.subject),
            permission: Some(permission.to_owned()),
        }
    }

    /// The answer arrived and makes no sense.
    pub fn unexpected_reply(&self, what: &str) -> ProviderError {
        self.rejected("unexpected_reply", what)
    }

    fn unavailable(&self, what: &str) -> ProviderError {
        ProviderError::Unavailable { detail: format!("{} on {}: {what}", self.permission, self.subject) }
    }

    fn rejected(&self, code: &str, what: &str) -> ProviderError {
        let detail = format!("{} on {}: {what}", self.permission, self.subject);
        ProviderError::Rejected { code: code.to_owned(), detail }
    }
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
    use serde_json::json;

    const CALL: Call<'_> = Call {
        permission: "secretmanager.secrets.list",
        subject: "projects/acme",
        paged: true,
        missing: PROJECT_NOT_FOUND,
    };

    fn answered(status: u16, word: &str, info: Value) -> ProviderError {
        let detail = match info {
            Value::Object(mut info) => {
                info.insert("@type".to_owned(), "type.googleapis.com/google.rpc.ErrorInfo".into());
                json!([info])
            }
            _ => json!([]),
        };
        let body = json!({"error": {"code": status, "message": "s3cr3t", "status": word, "details": detail}});
        CALL.answered(&Refusal::new(status, &HeaderMap::new(), body.to_string().as_bytes()))
    }

    fn code(error: ProviderError) -> String {
        let ProviderError::Rejected { code, .. } = error else { panic!("{error}") };
        code
    }

    #[test]
    fn a_refusal_names_the_permission_that_the_reply_names_or_that_the_call_needs() {
        let permission = |error| {
            let ProviderError::Denied { permission, .. } = error else { panic!("{error}") };
            permission.unwrap()
        };
        let named =
            json!({"reason": "IAM_PERMISSION_DENIED", "metadata": {"permission": "resourcemanager.projects.get"}});
        assert_eq!(permission(answered(403, "PERMISSION_DENIED", named)), "resourcemanager.projects.get");
        for odd in ["<script>.x", "", "nodot", &"a.".repeat(100)] {
            let info = json!({"reason": "IAM_PERMISSION_DENIED", "metadata": {"permission": odd}});
            assert_eq!(permission(answered(403, "PERMISSION_DENIED", info)), CALL.permission, "{odd}");
        }
        let page = Refusal::new(403, &HeaderMap::new(), b"<html>Forbidden</html>");
        assert_eq!(permission(CALL.answered(&page)), CALL.permission);
        let user = json!({"reason": "USER_PROJECT_DENIED"});
        assert_eq!(permission(answered(403, "PERMISSION_DENIED", user)), "serviceusage.services.use");
    }

    #[test]
    fn an_api_that_is_off_and_a_project_that_is_gone_are_no_missing_permissions() {
        let off = json!({"reason": "SERVICE_DISABLED", "metadata": {"service": "secretmanager.googleapis.com"}});
        let ProviderError::Rejected { code: word, detail } = answered(403, "PERMISSION_DENIED", off) else { panic!() };
        assert_eq!(word, API_DISABLED);
        assert!(detail.contains("secretmanager.googleapis.com"), "{detail}");
        let gone = json!({"reason": "CONSUMER_INVALID"});
        assert_eq!(code(answered(403, "PERMISSION_DENIED", gone)), PROJECT_NOT_FOUND);
        assert_eq!(code(answered(404, "NOT_FOUND", Value::Null)), PROJECT_NOT_FOUND);
        let scope = json!({"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"});
        assert!(matches!(answered(403, "PERMISSION_DENIED", scope), ProviderError::Unauthenticated { .. }));
        assert!(matches!(answered(401, "UNAUTHENTICATED", Value::Null), ProviderError::Unauthenticated { .. }));
    }

    #[test]
    fn throttling_is_waited_for_as_long_as_header_or_body_say() {
        let wait = |headers: &HeaderMap, body: Value| match CALL.answered(&Refusal::new(
            429,
            headers,
            body.to_string().as_bytes(),
        )) {
            ProviderError::Throttled { retry_after, .. } => retry_after,
            error => panic!("{error}"),
        };
        let told = json!({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]}});
        assert_eq!(wait(&HeaderMap::new(), told.clone()), Some(Duration::from_millis(1500)));
        let header = HeaderMap::from_iter([("retry-after".parse().unwrap(), "7".parse().unwrap())]);
        assert_eq!(wait(&header, told), Some(Duration::from_secs(7)));
        for odd in ["-1s", "soon", "5", "NaNs", "1e300s"] {
            let told = json!({"error": {"details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": odd}]}});
            assert_eq!(wait(&HeaderMap::new(), told), None, "{odd}");
        }
        let quota = json!({"reason": "RATE_LIMIT_EXCEEDED"});
        assert!(matches!(answered(403, "PERMISSION_DENIED", quota), ProviderError::Throttled { .. }));
        assert!(matches!(answered(503, "RESOURCE_EXHAUSTED", Value::Null), ProviderError::Throttled { .. }));
    }

    #[test]
    fn a_bad_request_is_an_expired_page_only_when_a_token_was_sent() {
        assert_eq!(answered(400, "INVALID_ARGUMENT", Value::Null), ProviderError::PageExpired);
        assert_eq!(code(answered(400, "FAILED_PRECONDITION", Value::Null)), "refused");
        let first = Call { paged: false, ..CALL };
        assert_eq!(code(first.answered(&Refusal { status: 400, ..Refusal::default() })), "refused");
    }

    #[test]
    fn other_statuses_are_passing_or_final() {
        for status in [408, 500, 502, 503, 504] {
            assert!(matches!(answered(status, "", Value::Null), ProviderError::Unavailable { .. }), "{status}");
        }
        for status in [302, 409, 412, 501] {
            assert_eq!(code(answered(status, "", Value::Null)), "refused", "{status}");
        }
    }

    #[test]
    fn the_reply_s_own_words_never_come_through() {
        for status in [302, 400, 401, 403, 404, 418, 429, 500] {
            let info = json!({"reason": "s3cr3t", "metadata": {"permission": "s3cr3t", "service": "s3cr3t"}});
            assert!(!format!("{:?}", answered(status, "s3cr3t", info)).contains("s3cr3t"), "{status}");
        }
    }
}
