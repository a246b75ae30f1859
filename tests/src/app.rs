//! Keywright in one process: runners over the in-memory cloud on a database of the test's own.

use crate::{database::TestDatabase, faults::dice::short_or_long, instance::MASTER_KEY};
use keywright_entities::{
    asset, clock, job,
    scope::Scope,
    subscription,
    types::{ProviderKind, ScanMode, Trigger},
};
use keywright_jobs::{
    evidence::{Layout, LayoutError, Report, Store, Workshop, objects::Place},
    kinds::discovery::request::{self, OnConflict, ScanRequest},
    queue::{
        Enqueued, Requester,
        limits::Limits,
        wait::{Until, Waiters},
        wake::Wake,
    },
    retention::Retention,
    setup::{clock::Clock, config::MasterKeySource, database::Database, ids, sealing::Sealing},
};
use keywright_worker::{
    providers::memory::MemoryCloud,
    runner::{Ended, Runner},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a test waits for what must happen; far more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The same, where a test lasts longer: after faults of a minute.
pub fn patience() -> Duration {
    short_or_long(PATIENCE, 15 * PATIENCE)
}

/// A cloud, a database and whoever waits for jobs on it.
pub struct TestApp {
    pub cloud: MemoryCloud,
    pub waiters: Waiters,
    pub stop: CancellationToken,
    database: TestDatabase,
    data: TempDir,
}

impl TestApp {
    pub fn on(database: TestDatabase) -> Self {
        let stop = CancellationToken::new();
        let wake = Wake::start(&database.database, stop.clone());
        let waiters = Waiters::start(database.database.clone(), &wake, stop.clone());
        Self { cloud: MemoryCloud::default(), waiters, stop, database, data: TempDir::new().expect("a directory") }
    }

    /// What packages are built with here: a local store, and reports that are laid out as plain words.
    pub fn workshop(&self) -> Workshop {
        workshop(self.data.path())
    }

    /// Where the app's packages lie.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    pub fn database(&self) -> &Database {
        &self.database.database
    }

    /// Connections and wake-ups of one's own, as another process has.
    pub async fn another(&self) -> Database {
        self.database.another().await
    }

    /// Starts a worker as another process would be: with connections of its own.
    pub async fn worker(&self, settings: WorkerSettings) -> TestWorker {
        let runner = Runner {
            database: self.database.another().await,
            providers: Arc::new(self.cloud.clone()),
            sealing: sealing(self.database()).await,
            evidence: settings.evidence.unwrap_or_else(|| self.workshop()),
            clock: Clock::system(),
            name: "test".to_owned(),
            labels: settings.labels,
            concurrency: settings.concurrency,
            lease: settings.lease,
            grace: settings.grace,
            polls: Arc::default(),
            retention: Retention::default(),
            limits: settings.limits,
            quota_percent: 100,
        };
        let stop = CancellationToken::new();
        TestWorker { ended: tokio::spawn(runner.run(stop.clone())), stop }
    }

    /// An enabled subscription to an account of the cloud.
    pub async fn subscribe(&self, account: &str) -> Uuid {
        subscribe(self.database(), ProviderKind::Aws, account, json!([]), json!({})).await
    }

    /// Asks for a scan of everything.
    pub async fn scan(&self) -> Uuid {
        scan(self.database(), None).await
    }

    /// The job once it has ended.
    pub async fn ended(&self, id: Uuid) -> job::Model {
        self.waiters.wait(id, Until::Done, PATIENCE).await;
        let ended = job(self.database(), id).await;
        assert!(ended.state.is_done(), "the job has not ended: {ended:?}");
        ended
    }
}

/// A local store in this folder, and reports that are laid out as plain words.
pub fn workshop(data: &Path) -> Workshop {
    let store = Store::new(Place::Local, data, None);
    Workshop::new(store, data, Some(Arc::new(PlainLayout)))
}

/// Lays out nothing, fast: names the package and what is attached.
struct PlainLayout;

impl Layout for PlainLayout {
    fn lay_out(&self, report: &Report) -> Result<Vec<u8>, LayoutError> {
        let attached: Vec<&str> = report.attachments.iter().map(|file| file.name.as_str()).collect();
        Ok(format!("%PDF of {} with {}", report.package, attached.join(" ")).into_bytes())
    }
}

/// What a worker in the test is like.
pub struct WorkerSettings {
    pub labels: Vec<String>,
    pub concurrency: usize,
    pub lease: Duration,
    pub grace: Duration,
    pub limits: Limits,
    /// `None`: that of the app.
    pub evidence: Option<Workshop>,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            concurrency: 4,
            lease: Duration::from_secs(8),
            grace: Duration::ZERO,
            limits: Limits::default(),
            evidence: None,
        }
    }
}

/// A worker in this process; ends with its value.
pub struct TestWorker {
    ended: JoinHandle<anyhow::Result<Ended>>,
    stop: CancellationToken,
}

impl TestWorker {
    /// Stops it as SIGTERM does.
    pub async fn stop(mut self) -> Ended {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.ended).await.expect("the worker stops");
        ended.expect("the worker does not panic").expect("the worker runs")
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sealing under the tests' key.
pub async fn sealing(database: &Database) -> Sealing {
    Sealing::start(database, &MasterKeySource::Given(MASTER_KEY.into())).await.expect("the tests' key")
}

/// Writes an enabled subscription.
pub async fn subscribe(
    database: &Database,
    provider: ProviderKind,
    account: &str,
    regions: Value,
    settings: Value,
) -> Uuid {
    let now = clock::now(database.reader()).await.expect("the database tells its time");
    let row = subscription::ActiveModel {
        id: Set(ids::new()),
        provider: Set(provider),
        external_id: Set(account.to_owned()),
        name: Set(account.to_owned()),
        enabled: Set(true),
        regions: Set(regions),
        tags: Set(json!({})),
        settings: Set(settings),
        auth_mode: Set("ambient".to_owned()),
        auth_updated_at: Set(now),
        created_at: Set(now),
        updated_at: Set(now),
        deleted_at: Set(None),
        last_scan_at: Set(None),
        last_scan_state: Set(None),
        version: Set(1),
    };
    row.insert(database.reader()).await.expect("a new subscription").id
}

/// Asks for a scan of these subscriptions, or of all.
pub async fn scan(database: &Database, subscriptions: Option<Vec<Uuid>>) -> Uuid {
    let wanted =
        ScanRequest { mode: ScanMode::Full, subscriptions, on_conflict: OnConflict::Queue, priority: 0, run_at: None };
    let write = database.begin().await.expect("a transaction");
    let begun = request::scan(&write, &Scope::All, Requester::system(), Trigger::Api, wanted).await;
    let (Enqueued::New(job) | Enqueued::Open(job)) = begun.expect("the scan begins");
    write.commit().await.expect("the scan is durable");
    job.id
}

/// The job as it is now.
pub async fn job(database: &Database, id: Uuid) -> job::Model {
    job::by_id(database.reader(), id).await.expect("the job is read").expect("the job exists")
}

/// The names of what is there of a subscription, in order.
pub async fn asset_names(database: &Database, subscription: Uuid) -> Vec<String> {
    let rows = asset::Entity::find()
        .filter(asset::Column::SubscriptionId.eq(subscription))
        .filter(asset::Column::RemovedAt.is_null())
        .all(database.reader())
        .await
        .expect("the assets are read");
    let mut names: Vec<String> = rows.into_iter().map(|row| row.name).collect();
    names.sort();
    names
}

/// Looks until `condition` holds: for what no wake-up tells of.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience(), looking).await.unwrap_or_else(|_| panic!("never came true: {what}"))
}
