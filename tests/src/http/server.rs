//! One facade behind a port of its own.

use super::{ADMIN_PASSWORD, SILENCE, shifted};
use crate::app::{PATIENCE, sealing};
use chrono::TimeDelta;
use keywright_api::{
    auth::{Identity, Settings, bootstrap},
    routes::jobs::events::Pace,
    server::Listening,
    service::{self, Parts, Surroundings},
};
use keywright_jobs::setup::database::Database;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One facade, as one process serves it. Its drop stops it.
pub struct Server {
    pub address: SocketAddr,
    pub(super) stop: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(super) async fn start(
        database: Database,
        listen: IpAddr,
        edge: Surroundings,
        shift: &Arc<Mutex<TimeDelta>>,
        pace: Pace,
    ) -> Self {
        let stop = CancellationToken::new();
        let sealing = sealing(&database).await;
        let clock = shifted(shift);
        let settings = Settings { cookie_secure: false, ..Settings::default() };
        let identity = Identity::start(database.clone(), &sealing, clock.clone(), settings).await.expect("an identity");
        bootstrap::first_admin(&database, &identity.passwords, Some(&ADMIN_PASSWORD.into())).await.expect("an admin");
        let parts = Parts {
            database,
            identity,
            sealing,
            clock,
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
        Self { address, stop, serving }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.serving.abort();
    }
}
