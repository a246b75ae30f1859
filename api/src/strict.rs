//! Strict input: what the served document does not describe is refused before a handler runs.
//!
//! The layer is compiled from the document itself, so that the two cannot disagree. It finds the operation, lets the gates
//! decide (authentication, rate limits), checks parameters and body, and hands the body on. Only paths that it knows reach
//! the router.

mod body;
mod head;
mod json;
mod operations;
mod params;
mod report;
mod schema;
mod secrets;

use std::sync::Arc;

use async_trait::async_trait;
use poem::{Endpoint, IntoResponse, Request, Response, Result};

pub(crate) use self::body::refuse;
pub use self::body::{BodyPatience, Sent};
pub use self::head::MAX_URI;
pub use self::operations::{Match, Operation, Operations};
pub(crate) use self::report::problems;
pub(crate) use self::schema::{Members, compile, resolve};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::idempotency::{Fingerprint, FingerprintKey, KEY};

/// Most bytes of a body: 1 MiB.
pub const MAX_BODY: usize = 1 << 20;

const FORM: &str = "application/x-www-form-urlencoded";

/// A decision that comes before the input is looked at: who is asking, and may they ask now.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Lets the request through, perhaps with something for the handler in its extensions.
    ///
    /// # Errors
    /// The refusal to answer with.
    async fn admit(&self, request: &mut Request, operation: &Operation) -> Result<(), ApiError>;

    /// Looks again at a request that it admitted and that is still being answered, which counts for nothing.
    ///
    /// # Errors
    /// The refusal with which the answer ends.
    async fn readmit(&self, request: &mut Request, operation: &Operation) -> Result<(), ApiError> {
        self.admit(request, operation).await
    }

    /// Hears of a request that is for no operation, before it is told so.
    ///
    /// # Errors
    /// The refusal to answer with instead.
    async fn turn_away(&self, _request: &Request) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The layer around the router.
pub struct StrictInput<E> {
    operations: Arc<Operations>,
    gates: Vec<Arc<dyn Gate>>,
    fingerprints: FingerprintKey,
    inner: E,
}

impl<E> StrictInput<E> {
    pub fn new(operations: Arc<Operations>, gates: Vec<Arc<dyn Gate>>, fingerprints: FingerprintKey, inner: E) -> Self {
        Self { operations, gates, fingerprints, inner }
    }

    async fn turn_away(&self, request: &Request) -> Result<(), ApiError> {
        for gate in &self.gates {
            gate.turn_away(request).await?;
        }
        Ok(())
    }

    async fn check(&self, request: &mut Request) -> Result<(), ApiError> {
        if let Err(refusal) = head::check(request) {
            self.turn_away(request).await?;
            return Err(refusal);
        }
        let (operation, path) = match self.operations.find(request.method().as_str(), request.uri().path()) {
            Match::Operation(operation, path) => (operation, path),
            Match::Page => return Ok(()),
            Match::MethodNotAllowed(allow) => {
                self.turn_away(request).await?;
                return Err(ApiError::method_not_allowed(&allow));
            }
            Match::NotFound => {
                self.turn_away(request).await?;
                return Err(ApiError::not_found("path"));
            }
        };
        if let Some(context) = request.data::<Arc<RequestContext>>() {
            context.set_operation(operation.clone());
        }
        for gate in &self.gates {
            gate.admit(request, &operation).await?;
        }
        params::check(request, &operation, &path)?;
        let sent = match &operation.body {
            Some(body) => body::check(request, body).await?,
            None => Sent::Nothing,
        };
        if operation.takes_key && request.headers().contains_key(KEY) {
            let fingerprint = Fingerprint::of(&self.fingerprints, request.uri().query(), &sent);
            request.extensions_mut().insert(fingerprint);
        }
        Ok(())
    }
}

impl<E: Endpoint> Endpoint for StrictInput<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        self.check(&mut request).await?;
        self.inner.call(request).await.map(IntoResponse::into_response)
    }
}
