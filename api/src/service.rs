//! The whole facade over a database: what `main` serves, and what tests serve in their own process.

use crate::{
    app::{self, Draining},
    auth::{Identity, IdentityGate, denials::Audited, vigil::Vigil},
    idempotency,
    licence::LicenceGate,
    openapi,
    page::CursorKey,
    readiness::DatabaseReadiness,
    routes::{
        approvals::ApprovalsApi,
        auth::AuthApi,
        discovery::{AssetsApi, ScansApi},
        jobs::{
            JobsApi,
            control::JobControlApi,
            events::{JobEventsApi, Pace},
        },
        licence::LicenceApi,
        metrics::MetricsApi,
        queues::QueuesApi,
        schedules::SchedulesApi,
        settings::SettingsApi,
        subscriptions::SubscriptionsApi,
        system::SystemApi,
        tokens::TokensApi,
        users::UsersApi,
    },
};
use keywright_jobs::{
    licence::Licence,
    queue::{feed::Feed, wait::Waiters, wake::Wake},
    settings::Live,
    setup::{clock::Clock, database::Database, ids, sealing::Sealing},
};
use poem::{EndpointExt, Response, endpoint::BoxEndpoint};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What the facade is built from.
pub struct Parts {
    pub database: Database,
    pub identity: Arc<Identity>,
    pub sealing: Sealing,
    pub clock: Clock,
    pub licence: Arc<Licence>,
    /// A worker that was not seen for this long does not count as live.
    pub worker_silence: Duration,
    /// Where it is served: on a loopback address `/metrics` is open.
    pub listen: IpAddr,
    /// Cancelled when the process begins to stop: whoever waits is answered at once.
    pub draining: CancellationToken,
    pub pace: Pace,
    /// In tests: answers that the document does not describe become failures.
    pub check_answers: bool,
}

/// The endpoint that answers all requests. Its background tasks end with `draining`.
///
/// # Errors
/// When no cursor key can be derived, or the document is not consistent.
pub fn build(parts: Parts) -> anyhow::Result<BoxEndpoint<'static, Response>> {
    let Parts { database, identity, sealing, clock, licence, worker_silence, listen, draining, pace, check_answers } =
        parts;
    let wake = Wake::start(&database, draining.clone());
    let waiters = Waiters::start(database.clone(), &wake, draining.clone());
    let feed = Feed::start(database.clone(), &wake, pace.progress, draining.clone());
    let vigil = Vigil::start(Arc::clone(&identity), pace.heartbeat, draining.clone());
    tokio::spawn(idempotency::prune(database.clone(), draining.clone()));
    let denials = Arc::clone(&identity.denials);
    tokio::spawn(Arc::clone(&identity).maintain(draining.clone()));
    let settings = Live::new(database.clone());
    licence.watch(draining.clone());
    let readiness = DatabaseReadiness { database: database.clone(), worker_silence };
    let api = (
        SystemApi::new(Arc::new(readiness)),
        MetricsApi::new(database.clone(), Arc::clone(&identity), listen, worker_silence),
        AuthApi::new(Arc::clone(&identity)),
        TokensApi::new(Arc::clone(&identity)),
        UsersApi::new(Arc::clone(&identity), Arc::clone(&licence)),
        SubscriptionsApi { database: database.clone(), licence: Arc::clone(&licence) },
        ScansApi {
            database: database.clone(),
            waiters: waiters.clone(),
            clock: clock.clone(),
            settings: settings.clone(),
        },
        AssetsApi { database: database.clone(), clock, settings: settings.clone() },
        JobsApi { database: database.clone(), waiters: waiters.clone() },
        JobControlApi { database: database.clone(), waiters },
        JobEventsApi { database: database.clone(), feed, vigil, pace, draining: draining.clone() },
        SchedulesApi { database: database.clone() },
        ApprovalsApi { database: database.clone(), settings: settings.clone() },
        SettingsApi { database: database.clone(), settings },
        LicenceApi { licence: Arc::clone(&licence) },
        QueuesApi { database, worker_silence },
    );
    let options = app::Options {
        cursor_key: CursorKey::new(&*sealing.derive("cursor")?),
        request_ids: Arc::new(|| ids::new().to_string()),
        gates: vec![Arc::new(IdentityGate(identity)), Arc::new(LicenceGate(licence))],
        draining: Draining(draining),
        document: openapi::Options::default(),
        check_answers,
    };
    Ok(Audited::new(denials, app::build(api, options)?).boxed())
}
