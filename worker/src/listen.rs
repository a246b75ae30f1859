//! A worker's own small HTTP face: is it alive, is it working, and how?

use keywright_jobs::{
    metrics::{self, Gauges},
    queue::backend::Polls,
    setup::database::Database,
};
use poem::{
    EndpointExt, IntoResponse, Request, Response, Route, Server, get, handler,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Json},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// A worker is ready when it has reached its queue this recently.
const FRESH: Duration = Duration::from_secs(30);

/// What it shows.
pub struct Face {
    pub polls: Arc<Polls>,
    /// Set once the database is open.
    pub database: Arc<OnceLock<Database>>,
    /// `/metrics` is for everybody who reaches the address: the operator said so. A worker knows no tokens.
    pub metrics_open: bool,
}

struct Shown {
    face: Face,
    listen: IpAddr,
}

/// Serves `/health`, `/ready` and `/metrics` until `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn start(address: SocketAddr, face: Face, stop: CancellationToken) -> std::io::Result<()> {
    let acceptor = TcpListener::bind(address).into_acceptor().await?;
    for bound in acceptor.local_addr() {
        tracing::info!(address = %bound, "the worker's own HTTP face is open");
    }
    let shown = Arc::new(Shown { face, listen: address.ip() });
    let routes =
        Route::new().at("/health", get(health)).at("/ready", get(ready)).at("/metrics", get(scrape)).data(shown);
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
fn scrape(shown: Data<&Arc<Shown>>, request: &Request) -> Response {
    let peer = request.remote_addr().as_socket_addr().map(SocketAddr::ip);
    let forwarded = metrics::FORWARDED.iter().any(|name| request.headers().contains_key(*name));
    if !shown.face.metrics_open && !metrics::is_local(shown.listen, peer, forwarded) {
        let refused =
            "A worker serves /metrics over a loopback address only, unless KEYWRIGHT_WORKER_METRICS_OPEN=true.\n";
        return refused.with_status(StatusCode::FORBIDDEN).into_response();
    }
    match shown.text() {
        Ok(text) => Response::builder().content_type(metrics::CONTENT_TYPE).body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Shown {
    fn text(&self) -> anyhow::Result<String> {
        let gauges = Gauges::default();
        if let Some(database) = self.face.database.get() {
            metrics::pool(&gauges, database)?;
        }
        let age = self.face.polls.age().map(|age| ([], age.as_secs_f64()));
        let help = "Since when the worker has not reached its queue; absent before it did for the first time.";
        gauges.add("keywright_worker_last_poll_age_seconds", help, [], age)?;
        Ok(metrics::text(&gauges)?)
    }
}

#[handler]
fn ready(shown: Data<&Arc<Shown>>) -> Response {
    let age = shown.face.polls.age();
    let ready = age.is_some_and(|age| age < FRESH);
    let body = Json(serde_json::json!({
        "status": if ready { "ready" } else { "unavailable" },
        "lastClaimPollSecondsAgo": age.map(|age| age.as_secs()),
    }));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    body.with_status(status).into_response()
}
