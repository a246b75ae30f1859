//! The outermost layer: what holds for every answer, whatever made it.
//!
//! It names the request, keeps a panic from ending more than one request, gives every refusal the one shape, sets the
//! security headers, and writes the access log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use keywright_jobs::{metrics, setup::telemetry::traces::RequestTrace};
use poem::http::{HeaderName, HeaderValue, Method, header};
use poem::{Body, Endpoint, IntoResponse, Request, Response, Result};

use crate::auth::sso::page;
use crate::context::{self, RequestContext};
use crate::error::{ApiError, PROBLEM_JSON, from_status};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes the id of a request that came without a sane one of its own.
pub type RequestIds = Arc<dyn Fn() -> String + Send + Sync>;

/// The layer around everything.
pub struct Edge<E> {
    request_ids: RequestIds,
    inner: E,
}

impl<E: Endpoint> Edge<E> {
    pub fn new(request_ids: RequestIds, inner: E) -> Self {
        Self { request_ids, inner }
    }

    fn request_id(&self, request: &Request) -> String {
        let sent = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        sent.filter(|id| is_sane(id)).map_or_else(|| (self.request_ids)(), str::to_owned)
    }

    async fn answer(&self, request: Request) -> Response {
        match AssertUnwindSafe(self.inner.call(request)).catch_unwind().await {
            Ok(Ok(output)) => in_one_shape(output.into_response()),
            Ok(Err(error)) => in_one_shape(error.into_response()),
            // what was said in the panic is on standard error by the panic hook; it is not repeated
            Err(_) => ApiError::internal("a handler panicked").into_response(),
        }
    }
}

impl<E: Endpoint> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let started = Instant::now();
        let method = request.method().clone();
        let trace = RequestTrace::begin(sent_trace(&request), method.as_str());
        let (id, path) = (self.request_id(&request), request.uri().path().to_owned());
        let context = Arc::new(RequestContext::new(id, path, trace.traceparent.clone()));
        request.extensions_mut().insert(context.clone());
        let wants_page = page::is_wanted(&request);
        let mut response = context::scope(context.clone(), self.answer(request)).await;
        let for_people = context.operation().is_some_and(|operation| page::FOR_PEOPLE.contains(&operation.id.as_str()));
        if wants_page && for_people {
            response = page::of_refusal(response).await;
        }
        if method == Method::HEAD {
            response.set_body(Body::empty());
        }
        set_headers(&mut response, &context);
        response.extensions_mut().insert(Arc::clone(&context));
        let took = started.elapsed();
        let (route, status) = (context.route(), response.status().as_u16());
        metrics::answered(route, method.as_str(), status, took);
        trace.end(method.as_str(), route, status, &context.request_id);
        tracing::info!(
            request_id = %context.request_id,
            %method,
            route,
            status,
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
        Ok(response)
    }
}

/// Two contradict each other, so neither counts.
fn sent_trace(request: &Request) -> Option<&str> {
    let mut sent = request.headers().get_all("traceparent").iter();
    sent.next().filter(|_| sent.next().is_none()).and_then(|value| value.to_str().ok())
}

/// Ids of clients go into logs and the audit trail: only characters that mean nothing there.
fn is_sane(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A refusal that is not a problem object yet was made by the framework.
fn in_one_shape(response: Response) -> Response {
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if !refused || response.content_type() == Some(PROBLEM_JSON) {
        return response;
    }
    from_status(response.status()).into_response()
}

fn set_headers(response: &mut Response, context: &RequestContext) {
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}
