//! The whole facade over a database: what `main` serves, and what tests serve in their own process.

use crate::{
    app::{self, Draining},
    auth::{
        Identity, IdentityGate,
        denials::Audited,
        sso::{Registration, Sso},
        vigil::Vigil,
    },
    client_address::TrustedProxies,
    cors::Cors,
    front::Front,
    idempotency::{self, FingerprintKey},
    licence::LicenceGate,
    limits::{LimitGate, RateLimits, Rule},
    openapi,
    page::CursorKey,
    readiness::DatabaseReadiness,
    routes::{
        approvals::ApprovalsApi,
        audit::AuditApi,
        auth::AuthApi,
        discovery::{AssetsApi, CoverageApi, DuplicatesApi, ScansApi},
        evidence::{self, EvidenceApi},
        jobs::{
            JobsApi,
            control::JobControlApi,
            events::{JobEventsApi, Pace},
        },
        licence::LicenceApi,
        metrics::MetricsApi,
        queues::QueuesApi,
        rotation::{PoliciesApi, RotationsApi},
        schedules::SchedulesApi,
        settings::SettingsApi,
        sso::SsoApi,
        subscriptions::{SubscriptionsApi, questions::QuestionsApi},
        system::SystemApi,
        tokens::TokensApi,
        users::UsersApi,
    },
    strict::Gate,
};
use keywright_jobs::{
    egress::EgressGuard,
    licence::Licence,
    queue::{feed::Feed, wait::Waiters, wake::Wake},
    settings::Live,
    setup::{clock::Clock, config::Config, database::Database, ids, sealing::Sealing},
};
use poem::{EndpointExt, Response, endpoint::BoxEndpoint};
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What the facade is built from.
pub struct Parts {
    pub database: Database,
    pub identity: Arc<Identity>,
    pub sealing: Sealing,
    pub clock: Clock,
    pub licence: Arc<Licence>,
    pub evidence: evidence::Setup,
    /// A worker that was not seen for this long does not count as live.
    pub worker_silence: Duration,
    /// Where it is served: on a loopback address `/metrics` is open.
    pub listen: IpAddr,
    /// What lies between a client and the operations.
    pub edge: Surroundings,
    /// Cancelled when the process begins to stop: whoever waits is answered at once.
    pub draining: CancellationToken,
    pub pace: Pace,
    /// In tests: answers that the document does not describe become failures.
    pub check_answers: bool,
}

/// What the operator says about those who ask.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// How often a principal may ask; empty = as often as they like.
    pub limits: Vec<Rule>,
    pub proxies: TrustedProxies,
    pub cors: Cors,
    /// Where addresses that users enter may lead.
    pub egress: EgressGuard,
    /// TLS ends here.
    pub tls: bool,
    /// As what this instance is known to a provider of single sign-on.
    pub sso: Option<Registration>,
}

impl Surroundings {
    /// # Errors
    /// When a file that the configuration names cannot be read.
    pub fn of(config: &Config) -> io::Result<Self> {
        let minute = config.rate_limit_per_minute.map(Rule::per_minute);
        let hour = config.rate_limit_per_hour.map(Rule::per_hour);
        Ok(Self {
            limits: minute.into_iter().chain(hour).collect(),
            proxies: TrustedProxies(config.trusted_proxies.clone()),
            cors: Cors(config.cors_origins.clone()),
            egress: EgressGuard::new(&config.egress_allow),
            tls: config.tls_files().is_some(),
            sso: Registration::of(config)?,
        })
    }
}

/// The endpoint that answers all requests. Its background tasks end with `draining`.
///
/// # Errors
/// When no cursor key can be derived, or the document is not consistent.
pub fn build(parts: Parts) -> anyhow::Result<BoxEndpoint<'static, Response>> {
    let Parts {
        database,
        identity,
        sealing,
        clock,
        licence,
        evidence,
        worker_silence,
        listen,
        edge,
        draining,
        pace,
        check_answers,
    } = parts;
    let wake = Wake::start(&database, draining.clone());
    let waiters = Waiters::start(database.clone(), &wake, draining.clone());
    let feed = Feed::start(database.clone(), &wake, pace.progress, draining.clone());
    let vigil = Vigil::start(Arc::clone(&identity), draining.clone());
    tokio::spawn(idempotency::prune(database.clone(), draining.clone()));
    let denials = Arc::clone(&identity.denials);
    tokio::spawn(Arc::clone(&identity).maintain(draining.clone()));
    let limits = RateLimits::new(edge.limits, database.clone(), clock.clone());
    let gate: Arc<dyn Gate> = match &limits {
        Some(limits) => {
            tokio::spawn(limits.clone().prune(draining.clone()));
            Arc::new(LimitGate::new(Arc::clone(&identity), limits.clone()))
        }
        None => Arc::new(IdentityGate(Arc::clone(&identity))),
    };
    let settings = Live::new(database.clone());
    licence.watch(draining.clone());
    let sso = match edge.sso {
        Some(registration) => {
            let (identity, licence) = (Arc::clone(&identity), Arc::clone(&licence));
            Some(Arc::new(Sso::new(identity, licence, &sealing, &edge.egress, registration)?))
        }
        None => None,
    };
    let readiness = DatabaseReadiness { database: database.clone(), worker_silence };
    let api = (
        SystemApi::new(Arc::new(readiness)),
        MetricsApi::new(database.clone(), Arc::clone(&identity), listen, worker_silence),
        (AuthApi::new(Arc::clone(&identity)), SsoApi { identity: Arc::clone(&identity), sso }),
        TokensApi::new(Arc::clone(&identity)),
        UsersApi::new(Arc::clone(&identity), Arc::clone(&licence)),
        (
            SubscriptionsApi {
                database: database.clone(),
                egress: Arc::new(edge.egress),
                licence: Arc::clone(&licence),
                sealing: sealing.clone(),
            },
            QuestionsApi { database: database.clone(), waiters: waiters.clone() },
        ),
        ScansApi {
            database: database.clone(),
            waiters: waiters.clone(),
            clock: clock.clone(),
            settings: settings.clone(),
        },
        (
            AssetsApi { database: database.clone(), clock: clock.clone(), settings: settings.clone() },
            CoverageApi { database: database.clone(), clock: clock.clone(), settings: settings.clone() },
            DuplicatesApi { database: database.clone(), clock, settings: settings.clone() },
        ),
        JobsApi { database: database.clone(), waiters: waiters.clone() },
        JobControlApi { database: database.clone(), waiters: waiters.clone() },
        JobEventsApi { database: database.clone(), feed, vigil, pace, draining: draining.clone() },
        SchedulesApi { database: database.clone() },
        (
            ApprovalsApi { database: database.clone(), settings: settings.clone() },
            AuditApi { database: database.clone(), sealing: sealing.clone(), waiters: waiters.clone() },
            (
                PoliciesApi { database: database.clone() },
                RotationsApi { database: database.clone(), waiters: waiters.clone(), licence: Arc::clone(&licence) },
            ),
        ),
        SettingsApi { database: database.clone(), settings },
        (
            LicenceApi { licence: Arc::clone(&licence) },
            EvidenceApi { database: database.clone(), waiters, setup: evidence },
        ),
        QueuesApi { database, worker_silence },
    );
    let options = app::Options {
        cursor_key: CursorKey::new(&*sealing.derive("cursor")?),
        fingerprint_key: FingerprintKey::new(&*sealing.derive("idempotency")?),
        request_ids: Arc::new(|| ids::new().to_string()),
        gates: vec![gate, Arc::new(LicenceGate(licence))],
        draining: Draining(draining),
        document: openapi::Options::default(),
        check_answers,
    };
    let inner = Audited::new(denials, app::build(api, options)?).boxed();
    Ok(Front { proxies: edge.proxies, cors: edge.cors, limits, tls: edge.tls, inner }.boxed())
}
