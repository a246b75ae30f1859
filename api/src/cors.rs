//! Which other origins a browser lets read our answers: none, unless the operator names them.
//!
//! Credentials are never allowed across origins: pages of other origins send a bearer token, and cookies stay with our own.

use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use poem::{Request, Response};

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const REQUEST_HEADERS: &str = "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, Traceparent, X-Request-Id";
const RESPONSE_HEADERS: &str = "ETag, Idempotent-Replayed, Keywright-Deduplicated, Location, Preference-Applied, RateLimit, \
     RateLimit-Policy, Retry-After, WWW-Authenticate, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id";

/// The origins, as browsers spell them.
#[derive(Clone, Debug, Default)]
pub struct Cors(pub Vec<String>);

impl Cors {
    fn allowed<'a>(&self, origin: Option<&'a HeaderValue>) -> Option<&'a HeaderValue> {
        origin.filter(|origin| self.0.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()))
    }

    /// The answer to a browser that asks whether it may ask; `None` when it is something else, or comes from elsewhere.
    #[must_use]
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let origin = self.allowed(headers.get(header::ORIGIN))?;
        if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::builder()
            .status(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS)
            .header(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS)
            .header(header::ACCESS_CONTROL_MAX_AGE, "600")
            .finish();
        self.allow(Some(origin), response.headers_mut());
        Some(response)
    }

    /// Lets a page of `origin` read the answer, if that is one of ours.
    pub fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.allowed(origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
        }
    }
}
