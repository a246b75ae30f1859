//! One facade of an instance.

use super::{ADMIN_PASSWORD, Shift, shifted};
use crate::{
    app::{PATIENCE, TestApp, sealing},
    licence::Terms,
};
use keywright_api::{
    auth::{Identity, Settings, bootstrap},
    routes::{evidence::Setup, jobs::events::Pace},
    server::Listening,
    service::{self, Parts, Surroundings},
};
use keywright_jobs::{licence::Licence, setup::database::Database};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// As packages name whoever runs the instance.
pub const ORGANISATION: &str = "Acme & Sons";

/// A worker that was not seen for this long does not count as live.
const SILENCE: Duration = Duration::from_secs(16);

/// One facade, as one process serves it. Its drop stops it.
pub struct Server {
    pub address: SocketAddr,
    pub licence: Arc<Licence>,
    pub(super) stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(super) async fn start(
        database: Database,
        listen: IpAddr,
        edge: Surroundings,
        shift: &Shift,
        pace: Pace,
        terms: Option<Terms>,
        evidence: Setup,
    ) -> Self {
        let stop = CancellationToken::new();
        let sealing = sealing(&database).await;
        let clock = shifted(shift);
        let settings = Settings { cookie_secure: false, ..Settings::default() };
        let identity = Identity::start(database.clone(), &sealing, clock.clone(), settings).await.expect("an identity");
        bootstrap::first_admin(&database, &identity.passwords, Some(&ADMIN_PASSWORD.into())).await.expect("an admin");
        let (key, file) = (terms.as_ref().map(|terms| terms.key), terms.and_then(|terms| terms.file));
        let licence = Arc::new(Licence::open(key, file, database.clone(), clock.clone()).await.expect("a licence"));
        let parts = Parts {
            database,
            identity,
            sealing,
            clock,
            licence: Arc::clone(&licence),
            evidence,
            worker_silence: SILENCE,
            listen,
            edge,
            draining: stop.clone(),
            pace,
            check_answers: true,
        };
        let endpoint = service::build(parts).expect("the facade is consistent");
        let listening = Listening::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listening.address();
        let serving = tokio::spawn(listening.serve(endpoint, stop.clone(), PATIENCE));
        Self { address, licence, stop, serving }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.serving.abort();
    }
}

/// The store in which the app's workers put their packages.
pub(super) fn evidence(app: &TestApp) -> Setup {
    Setup { store: app.workshop().store, organisation: ORGANISATION.to_owned(), signed_urls: None }
}
