//! What Prometheus scrapes.

use super::Tag;
use crate::{
    auth::{Identity, caller, permissions::Permission},
    error::ApiError,
};
use keywright_jobs::{
    metrics::{self, Gauges},
    queue::overview::{self, Queue},
    setup::database::Database,
};
use poem::{Request, http::header};
use poem_openapi::{
    OpenApi,
    payload::{PlainText, Response},
};
use sea_orm::DbErr;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// However often it is scraped, and by however many, the database is asked this seldom.
const FRESH: Duration = Duration::from_secs(3);

pub struct MetricsApi {
    database: Database,
    identity: Arc<Identity>,
    listen: IpAddr,
    worker_silence: Duration,
    /// How the queues stood; `None` inside: the database did not answer.
    looked: Mutex<Option<(Instant, Option<Standing>)>>,
}

#[derive(Clone)]
struct Standing {
    queues: BTreeMap<String, Queue>,
    workers: usize,
}

impl MetricsApi {
    pub fn new(database: Database, identity: Arc<Identity>, listen: IpAddr, worker_silence: Duration) -> Self {
        Self { database, identity, listen, worker_silence, looked: Mutex::default() }
    }

    async fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let peer = request.remote_addr().as_socket_addr().map(SocketAddr::ip);
        let forwarded = metrics::FORWARDED.iter().any(|name| request.headers().contains_key(*name));
        if metrics::is_local(self.listen, peer, forwarded) {
            return Ok(());
        }
        let principal = caller::authenticate(&self.identity, request).await?;
        principal.require_own_password()?;
        principal.require(Permission::SystemRead)
    }

    async fn standing(&self) -> Option<Standing> {
        // whoever comes meanwhile waits for the same answer
        let mut looked = self.looked.lock().await;
        match &*looked {
            Some((at, standing)) if at.elapsed() < FRESH => standing.clone(),
            _ => {
                let standing = self.look().await;
                if let Err(error) = &standing {
                    tracing::warn!(%error, "the queues could not be read for a scrape");
                }
                let standing = standing.ok();
                *looked = Some((Instant::now(), standing.clone()));
                standing
            }
        }
    }

    async fn look(&self) -> Result<Standing, DbErr> {
        let queues = overview::queues(&self.database).await?;
        let workers = overview::live_workers(&self.database, self.worker_silence).await?.len();
        Ok(Standing { queues, workers })
    }
}

/// What one gauge tells of a queue.
type Value = fn(&Queue) -> f64;

fn gauges(database: &Database, standing: Option<Standing>) -> Result<Gauges, ApiError> {
    let gauges = Gauges::default();
    let up = [([], f64::from(u8::from(standing.is_some())))];
    let written = || {
        gauges.add("keywright_database_up", "Whether the database answered this scrape.", [], up)?;
        metrics::pool(&gauges, database)?;
        let Some(Standing { queues, workers }) = standing else { return Ok(()) };
        gauges.add("keywright_workers_live", "Workers that were seen lately.", [], [([], workers as f64)])?;
        let each = |of: Value| queues.iter().map(move |(kind, queue)| ([kind.clone()], of(queue)));
        let jobs: [(&str, &str, Value); 4] = [
            ("keywright_jobs_queued", "Jobs that are queued, now or for later.", |queue| queue.queued as f64),
            ("keywright_jobs_running", "Jobs that run, or whose parts do.", |queue| queue.running as f64),
            ("keywright_jobs_waiting", "Jobs that wait: for a retry, a worker, a person.", |queue| {
                queue.waiting as f64
            }),
            (
                "keywright_jobs_oldest_age_seconds",
                "For how long the oldest job that is due has been due; 0 when none is.",
                |queue| queue.oldest.unwrap_or_default().as_secs_f64(),
            ),
        ];
        jobs.into_iter().try_for_each(|(name, help, of)| gauges.add(name, help, ["kind"], each(of)))
    };
    let written: Result<(), _> = written();
    written.map_err(anyhow::Error::from).map_err(ApiError::internal)?;
    Ok(gauges)
}

#[OpenApi(tag = "Tag::System")]
impl MetricsApi {
    /// Get the metrics of the server
    ///
    /// In Prometheus's text format. Open when the server listens on a loopback address and is asked from one, not through a
    /// proxy; otherwise it needs a token with the permission `system:read`, which every role has. Without the database what it
    /// would tell is missing, and `keywright_database_up` is 0.
    #[oai(path = "/metrics", method = "get", operation_id = "getMetrics")]
    async fn metrics(&self, request: &Request) -> Result<Response<PlainText<String>>, ApiError> {
        self.admit(request).await?;
        let gauges = gauges(&self.database, self.standing().await)?;
        let text = metrics::text(&gauges).map_err(ApiError::internal)?;
        Ok(Response::new(PlainText(text)).header(header::CONTENT_TYPE, metrics::CONTENT_TYPE))
    }
}
