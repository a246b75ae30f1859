//! What is known of the request that is being answered, for error bodies and log lines far from the request itself.

use std::sync::{Arc, OnceLock};

use keywright_jobs::audit::Actor;

use crate::strict::Operation;

tokio::task_local! {
    static CURRENT: Arc<RequestContext>;
}

/// The identity of one request. Also in the request's extensions, for handlers: `Data<&Arc<RequestContext>>`.
#[derive(Debug)]
pub struct RequestContext {
    /// The client's `X-Request-Id` when sane, else our own.
    pub request_id: String,
    /// The path as asked for, without the query.
    pub path: String,
    /// The trace context that jobs of this request carry.
    pub traceparent: Option<String>,
    operation: OnceLock<Arc<Operation>>,
    caller: OnceLock<Actor>,
}

impl RequestContext {
    #[must_use]
    pub fn new(request_id: String, path: String, traceparent: Option<String>) -> Self {
        Self { request_id, path, traceparent, operation: OnceLock::new(), caller: OnceLock::new() }
    }

    /// Remembers the operation that the request is for; only the first call counts.
    pub fn set_operation(&self, operation: Arc<Operation>) {
        let _ = self.operation.set(operation);
    }

    /// Remembers who sent the request; only the first call counts.
    pub fn set_caller(&self, caller: Actor) {
        let _ = self.caller.set(caller);
    }

    /// Who sent the request, once that is known.
    #[must_use]
    pub fn caller(&self) -> Option<&Actor> {
        self.caller.get()
    }

    /// The operation that the request is for; none for a page and for an unknown path.
    #[must_use]
    pub fn operation(&self) -> Option<&Arc<Operation>> {
        self.operation.get()
    }

    /// The pattern that matched, or `-`: low in cardinality and free of ids, fit for logs and metrics.
    #[must_use]
    pub fn route(&self) -> &str {
        self.operation().map_or("-", |operation| operation.pattern.as_str())
    }
}

/// Runs `future` as part of the request.
pub async fn scope<F: Future>(context: Arc<RequestContext>, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

/// The present request; none outside of one.
#[must_use]
pub fn current() -> Option<Arc<RequestContext>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// The present request's id; empty outside of a request.
#[must_use]
pub fn request_id() -> String {
    CURRENT.try_with(|context| context.request_id.clone()).unwrap_or_default()
}

/// The trace context that jobs of the present request carry.
#[must_use]
pub fn traceparent() -> Option<String> {
    CURRENT.try_with(|context| context.traceparent.clone()).ok().flatten()
}

/// The present request's path; empty outside of a request.
#[must_use]
pub fn path() -> String {
    CURRENT.try_with(|context| context.path.clone()).unwrap_or_default()
}
