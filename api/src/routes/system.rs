//! Whether the server runs, and as what.

use std::sync::Arc;

use async_trait::async_trait;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::error::ApiError;

/// What `/ready` asks: whether the database and its schema are there, and what is amiss without stopping service.
#[async_trait]
pub trait Readiness: Send + Sync {
    async fn check(&self) -> Ready;
}

/// The outcome of a readiness check.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct Ready {
    /// Requests can be served: the database answers and has the schema that this version needs.
    pub ready: bool,
    /// Served, but something is missing, such as a live worker.
    pub degraded: bool,
    /// What is missing, one sentence each.
    pub reasons: Vec<String>,
}

impl poem_openapi::types::Example for Ready {
    fn example() -> Self {
        Self { ready: true, degraded: true, reasons: vec!["no live worker".to_owned()] }
    }
}

/// The process is alive.
#[derive(Debug, Clone, Object)]
#[oai(example)]
pub struct Health {
    /// Always `ok`: a process that cannot answer says nothing.
    pub status: String,
}

impl poem_openapi::types::Example for Health {
    fn example() -> Self {
        Self { status: "ok".to_owned() }
    }
}

/// What is running.
#[derive(Debug, Clone, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct Version {
    pub name: String,
    /// The version of the API server (semantic versioning).
    pub version: String,
}

impl poem_openapi::types::Example for Version {
    fn example() -> Self {
        Self { name: "keywright".to_owned(), version: "0.1.0".to_owned() }
    }
}

#[derive(ApiResponse)]
enum ReadyResponse {
    /// Ready, possibly degraded.
    #[oai(status = 200)]
    Ready(Json<Ready>),
}

/// Liveness, readiness, version.
pub struct SystemApi {
    readiness: Arc<dyn Readiness>,
}

impl SystemApi {
    #[must_use]
    pub fn new(readiness: Arc<dyn Readiness>) -> Self {
        Self { readiness }
    }
}

#[OpenApi(tag = "Tag::System")]
impl SystemApi {
    /// Is the process alive
    ///
    /// Touches neither the database nor anything else.
    #[oai(path = "/health", method = "get", operation_id = "getHealth")]
    async fn health(&self) -> Result<Json<Health>, ApiError> {
        Ok(Json(Health { status: "ok".to_owned() }))
    }

    /// Can requests be served
    ///
    /// 503 without the database or its schema; 200 with `degraded` when only something like a live worker is missing.
    #[oai(path = "/ready", method = "get", operation_id = "getReadiness")]
    async fn ready(&self) -> Result<ReadyResponse, ApiError> {
        let outcome = self.readiness.check().await;
        if outcome.ready {
            Ok(ReadyResponse::Ready(Json(outcome)))
        } else {
            let detail = format!("Not ready: {}.", outcome.reasons.join("; "));
            Err(ApiError::new(crate::error::Code::DatabaseUnavailable, detail).with_retry_after(2))
        }
    }

    /// Get the version of the server
    #[oai(path = "/api/system/version", method = "get", operation_id = "getVersion")]
    async fn version(&self) -> Result<Json<Version>, ApiError> {
        Ok(Json(Version { name: "keywright".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use poem::{Endpoint, Request};

    use super::*;
    use crate::app::{self, Draining};
    use crate::page::CursorKey;

    struct Fixed(Ready);

    #[async_trait]
    impl Readiness for Fixed {
        async fn check(&self) -> Ready {
            self.0.clone()
        }
    }

    async fn get(uri: &str, ready: Ready) -> (u16, String) {
        let options = app::Options {
            cursor_key: CursorKey::new(b"test"),
            fingerprint_key: crate::idempotency::FingerprintKey::new(b"test"),
            request_ids: Arc::new(|| "made".to_owned()),
            gates: Vec::new(),
            draining: Draining::default(),
            document: crate::openapi::Options::default(),
            check_answers: true,
        };
        let app = app::build(SystemApi::new(Arc::new(Fixed(ready))), options).unwrap();
        let mut response = app.get_response(Request::builder().uri_str(uri).finish()).await;
        (response.status().as_u16(), response.take_body().into_string().await.unwrap())
    }

    #[tokio::test]
    async fn readiness_is_200_degraded_or_503() {
        let ready = |ready, degraded| Ready { ready, degraded, reasons: vec!["no schema".to_owned()] };
        let (status, body) = get("/ready", ready(true, true)).await;
        assert_eq!((status, body.as_str()), (200, r#"{"degraded":true,"ready":true,"reasons":["no schema"]}"#));
        let (status, body) = get("/ready", ready(false, false)).await;
        assert!(status == 503 && body.contains("database_unavailable") && body.contains("no schema"), "{body}");
        assert_eq!(get("/health", ready(false, false)).await.0, 200);
        assert!(get("/api/system/version", ready(true, false)).await.1.contains(env!("CARGO_PKG_VERSION")));
    }
}
