//! The one wire shape of errors: `application/problem+json` (RFC 9457) for every answer that is not a success.
//!
//! Handlers return `Result<Success, ApiError>`. The statuses that an operation can refuse with are documented by
//! [`crate::openapi`], by rule, so that a handler cannot forget one.

mod code;
mod convert;

use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::types::{ToJSON, Type};
use poem_openapi::{ApiResponse, Object};
use serde_json::{Map, Value};

pub use self::code::Code;
pub use self::convert::from_status;
use crate::context;

/// The media type of every refusal.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One field or parameter that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
pub struct FieldError {
    /// Where: a JSON pointer (RFC 6901) into the body, or `/query/NAME`, `/header/NAME`.
    pub pointer: String,
    /// Which rule was broken, stable: `required`, `unknown_field`, `type`, `enum`, `format`, `minimum`, …
    pub code: String,
    /// What would be right. Never repeats the value that was sent.
    pub message: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code: code.into(), message: message.into() }
    }
}

/// Why a request was refused or failed (RFC 9457).
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub struct Problem {
    /// A reference to the explanation of this kind of problem; `#` and the code at its end.
    #[oai(rename = "type")]
    pub kind: String,
    /// The same sentence for every occurrence of the code.
    pub title: String,
    pub status: u16,
    /// What happened this time, what it means and what to do.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// The same as `title`.
    pub error: String,
    /// Stable, for programs to branch on.
    pub code: String,
    /// Names the request in the log and the audit trail.
    pub request_id: String,
    /// The fields and parameters that are wrong, all of them.
    pub errors: Option<Vec<FieldError>>,
    /// With 403: the permission that is missing.
    pub required_permission: Option<String>,
    /// With 403 `tier_required` and `limit_reached`: the lowest licence tier that has the feature, or room for more.
    pub required_tier: Option<String>,
    /// With a 409 about a job: that job.
    pub job_id: Option<String>,
}

/// A refusal or a failure, ready to be answered.
///
/// Its `detail` is shown to the client: it never holds a secret, a stack trace or a provider's or driver's raw text.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    detail: String,
    errors: Option<Vec<FieldError>>,
    required_permission: Option<String>,
    required_tier: Option<String>,
    job_id: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// A refusal with the code's own status and title.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            detail: detail.into(),
            errors: None,
            required_permission: None,
            required_tier: None,
            job_id: None,
            headers: Vec::new(),
        }))
    }

    /// 400: fields or parameters are wrong; `errors` names all of them.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let detail = format!("{} not valid; see errors.", plural(errors.len(), "value is", "values are"));
        Self::new(Code::ValidationFailed, detail).with_errors(errors)
    }

    /// 400 about one field or parameter, for rules that the schema cannot say.
    pub fn invalid(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::validation(vec![FieldError::new(pointer, code, message)])
    }

    /// 404, also for what exists but the caller may not see. `what` is the kind of thing: "job", "subscription".
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}, or you may not see it."))
    }

    /// 401 with the challenge of RFC 6750; `code` is one of the `token_…` codes or `login_failed`.
    pub fn unauthorized(code: Code, detail: impl Into<String>) -> Self {
        let challenge = match code {
            Code::TokenInvalid | Code::TokenExpired | Code::TokenRevoked => {
                HeaderValue::from_static(r#"Bearer realm="keywright", error="invalid_token""#)
            }
            _ => HeaderValue::from_static(r#"Bearer realm="keywright""#),
        };
        Self::new(code, detail).with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 403: the caller's role or token lacks `permission`.
    pub fn permission_denied(permission: impl Into<String>) -> Self {
        let permission = permission.into();
        let mut error = Self::new(Code::PermissionDenied, format!("This needs the permission {permission}."));
        error.0.required_permission = Some(permission);
        error
    }

    /// 403: the licence's tier does not have the feature.
    pub fn tier_required(tier: impl Into<String>) -> Self {
        let tier = tier.into();
        let mut error = Self::new(Code::TierRequired, format!("This needs a licence of tier {tier} or higher."));
        error.0.required_tier = Some(tier);
        error
    }

    /// 405 with the methods that the path does have.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let error = Self::new(Code::MethodNotAllowed, format!("This path answers to {allow}."));
        match HeaderValue::from_str(allow) {
            Ok(value) => error.with_header(header::ALLOW, value),
            Err(_) => error,
        }
    }

    /// 409 with the code of the refusal, about a present state of things.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Code::Conflict, detail)
    }

    /// 412: the `If-Match` that was sent is not the present version.
    #[must_use]
    pub fn precondition_failed() -> Self {
        Self::new(Code::PreconditionFailed, "It was changed since you read it: read it again and decide anew.")
    }

    /// 428: this change is refused without `If-Match`.
    #[must_use]
    pub fn precondition_required() -> Self {
        Self::new(Code::PreconditionRequired, "Send If-Match with the ETag of the version that you read.")
    }

    /// 422: the idempotency key came with another body before.
    #[must_use]
    pub fn idempotency_key_reused() -> Self {
        Self::new(Code::IdempotencyKeyReused, "This Idempotency-Key was used with another body. Take a new key.")
    }

    /// 409: the request that first used the idempotency key has not been answered yet.
    #[must_use]
    pub fn idempotency_in_progress() -> Self {
        let detail = "The first request with this Idempotency-Key is still under way. Try again for its answer.";
        Self::new(Code::IdempotencyInProgress, detail).with_retry_after(1)
    }

    /// 429: the caller's budget is used up for that many seconds.
    #[must_use]
    pub fn rate_limited(retry_after: u32) -> Self {
        let detail = format!("Too many requests. Try again in {retry_after} s.");
        Self::new(Code::RateLimited, detail).with_retry_after(retry_after)
    }

    /// 413: the body has more than `limit` bytes.
    #[must_use]
    pub fn payload_too_large(limit: usize) -> Self {
        Self::new(Code::PayloadTooLarge, format!("A body has at most {limit} bytes."))
    }

    /// 503: what others are sending fills the memory that there is for requests. Nothing can follow on the connection.
    #[must_use]
    pub fn crowded() -> Self {
        let detail =
            "So much is being sent to this server that there is no room for the body. Nothing was done; try again.";
        Self::new(Code::Overloaded, detail)
            .with_retry_after(1)
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// 503 while the process shuts down: another one, or the same after a restart, will answer.
    #[must_use]
    pub fn draining() -> Self {
        Self::new(Code::Draining, "This server is shutting down. Try again.").with_retry_after(1)
    }

    /// 503: the database cannot be reached or did not answer in time.
    #[must_use]
    pub fn database_unavailable() -> Self {
        // a connection that breaks while it commits leaves it open whether it did
        let detail = "The database did not answer. What was asked for was not done, unless the connection broke at its very end. \
            Try again: with an Idempotency-Key nothing is made twice.";
        Self::new(Code::DatabaseUnavailable, detail).with_retry_after(2)
    }

    /// 500. The cause is logged here, once, with the request's id; the client is told only that id.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(request_id = %context::request_id(), %cause, "request failed");
        Self::new(Code::Internal, "The server failed. The request's id leads to the cause in its log.")
    }

    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = Some(errors);
        self
    }

    /// Names the lowest tier that has what is refused (`requiredTier`).
    #[must_use]
    pub fn with_required_tier(mut self, tier: Option<&str>) -> Self {
        self.0.required_tier = tier.map(str::to_owned);
        self
    }

    /// Names the job that the refusal is about (`jobId`).
    #[must_use]
    pub fn with_job_id(mut self, id: impl std::fmt::Display) -> Self {
        self.0.job_id = Some(id.to_string());
        self
    }

    /// Whole seconds after which trying again makes sense (RFC 9110, 10.2.3).
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        self.0.errors.as_deref().unwrap_or_default()
    }

    /// The problem object for the request that is being answered; also the last line of a broken NDJSON stream.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let parts = &*self.0;
        Problem {
            kind: parts.code.type_uri(),
            title: parts.code.title().to_owned(),
            status: parts.code.status().as_u16(),
            detail: parts.detail.clone(),
            instance: context::path(),
            error: parts.code.title().to_owned(),
            code: parts.code.as_str().to_owned(),
            request_id: context::request_id(),
            errors: parts.errors.clone(),
            required_permission: parts.required_permission.clone(),
            required_tier: parts.required_tier.clone(),
            job_id: parts.job_id.clone(),
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.detail)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.to_problem().to_json().unwrap_or_else(|| Value::Object(Map::new()));
        let mut response = Response::builder().status(self.status()).content_type(PROBLEM_JSON).body(body.to_string());
        let code = self.0.code;
        for (name, value) in self.0.headers {
            response.headers_mut().append(name, value);
        }
        response.extensions_mut().insert(code);
        response
    }
}

impl From<ApiError> for poem::Error {
    fn from(error: ApiError) -> Self {
        let code = error.code();
        let mut error = Self::from_response(error.into_response());
        error.set_data(code);
        error
    }
}

impl ApiResponse for ApiError {
    fn meta() -> MetaResponses {
        MetaResponses { responses: Vec::new() }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("{count} {one}") } else { format!("{count} {many}") }
}
