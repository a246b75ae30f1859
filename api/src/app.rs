//! The assembly: operations, pages and layers become one endpoint.
//!
//! ```text
//! Edge (request id, panic, one shape, headers, log)
//!  └ Conformance (tests only)
//!     └ StrictInput (known path → gates → parameters → body)
//!        └ Streamed (whole lists, page by page)
//!           └ router (operations, /docs, /redoc, /openapi.json)
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt, IntoEndpoint, Request, Response};
use poem_openapi::{OpenApi, OpenApiService};
use tokio_util::sync::CancellationToken;

use crate::conformance::Conformance;
use crate::edge::{Edge, RequestIds};
use crate::error::ApiError;
use crate::idempotency::{FingerprintKey, InFlight};
use crate::page::CursorKey;
use crate::streamed::Streamed;
use crate::strict::{Gate, Operation, Operations, StrictInput};
use crate::{docs, openapi};

/// What the facade needs beside its operations.
pub struct Options {
    /// Signs cursors; derived from the instance's master key.
    pub cursor_key: CursorKey,
    /// Names what requests with an idempotency key ask for; derived likewise.
    pub fingerprint_key: FingerprintKey,
    /// Makes request ids.
    pub request_ids: RequestIds,
    /// Asked in order before the input of an operation is looked at.
    pub gates: Vec<Arc<dyn Gate>>,
    /// Cancelled when the process begins to stop: handlers that wait answer at once.
    pub draining: Draining,
    /// What the document says that depends on the configuration.
    pub document: openapi::Options,
    /// In tests: answers that the document does not describe become failures.
    pub check_answers: bool,
}

/// The signal that the process is stopping. In the request's data: `Data<&Draining>`.
#[derive(Debug, Clone, Default)]
pub struct Draining(pub CancellationToken);

/// While draining, nothing new is begun; only liveness is still answered.
#[async_trait]
impl Gate for Draining {
    async fn admit(&self, _: &mut Request, operation: &Operation) -> Result<(), ApiError> {
        if self.0.is_cancelled() && operation.pattern != "/health" { Err(ApiError::draining()) } else { Ok(()) }
    }
}

/// The endpoint that serves `api`.
///
/// # Errors
/// When the document of `api` cannot be served: a fault of the code that its tests show.
pub fn build<T: OpenApi + 'static>(api: T, options: Options) -> anyhow::Result<BoxEndpoint<'static, Response>> {
    let document = openapi::document::<T>(options.document);
    let problems = openapi::problems::<T>(&document);
    anyhow::ensure!(problems.is_empty(), "the OpenAPI document is not consistent: {}", problems.join("; "));
    let operations = Arc::new(Operations::compile(&document, docs::PAGES, options.check_answers)?);
    let service = OpenApiService::new(api, "Keywright", env!("CARGO_PKG_VERSION"));
    let router = docs::pages(&document).nest_no_strip("/", service.into_endpoint());
    let mut gates: Vec<Arc<dyn Gate>> = vec![Arc::new(options.draining.clone())];
    gates.extend(options.gates);
    let router = Streamed::new(router, gates.clone());
    let inner = StrictInput::new(Arc::clone(&operations), gates, options.fingerprint_key, router)
        .data(operations)
        .data(options.cursor_key)
        .data(options.draining)
        .data(InFlight::default());
    Ok(if options.check_answers {
        Edge::new(options.request_ids, Conformance::new(inner)).boxed()
    } else {
        Edge::new(options.request_ids, inner).boxed()
    })
}

#[cfg(test)]
mod tests;
