//! A worker's own small HTTP face: is it alive, is it working?

use keywright_jobs::queue::backend::Polls;
use poem::{
    EndpointExt, IntoResponse, Response, Route, Server, get, handler,
    http::StatusCode,
    listener::{Listener, TcpListener},
    web::{Data, Json},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A worker is ready when it has reached its queue this recently.
const FRESH: Duration = Duration::from_secs(30);

/// Serves `/health` and `/ready` until `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn start(address: SocketAddr, polls: Arc<Polls>, stop: CancellationToken) -> std::io::Result<()> {
    let acceptor = TcpListener::bind(address).into_acceptor().await?;
    let routes = Route::new().at("/health", get(health)).at("/ready", get(ready)).data(polls);
    tokio::spawn(async move {
        let served =
            Server::new_with_acceptor(acceptor).run_with_graceful_shutdown(routes, stop.cancelled(), None).await;
        if let Err(error) = served {
            tracing::warn!(%error, "the worker's own HTTP face ended");
        }
    });
    Ok(())
}

#[handler]
fn health() -> Response {
    Json(serde_json::json!({"status": "ok"})).into_response()
}

#[handler]
fn ready(polls: Data<&Arc<Polls>>) -> Response {
    let age = polls.age();
    let ready = age.is_some_and(|age| age < FRESH);
    let body = Json(serde_json::json!({
        "status": if ready { "ready" } else { "unavailable" },
        "lastClaimPollSecondsAgo": age.map(|age| age.as_secs()),
    }));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    body.with_status(status).into_response()
}
