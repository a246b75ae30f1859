//! One run: a database, the double, processes, a seed; and how it is judged.

use super::{
    checker::{Allow, Breach, Evidence},
    clients::{Answers, Facade},
    cloud,
    dice::Dice,
    double::{Double, Plan},
    history::History,
};
use crate::{
    app::{patience, scan, subscribe},
    instance::MASTER_KEY,
    process::{Process, Signal},
};
use keywright_entities::{job, types::ProviderKind};
use keywright_jobs::setup::database::Database;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// An ordinary build with the double for a cloud.
const WORKER: &str = "keywright-test-worker";
/// What an operator's supervisor gives a worker to end in.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// A run under faults. Begins with no job.
pub struct Trial {
    pub name: &'static str,
    pub dice: Dice,
    pub db: Database,
    pub double: Double,
    pub answers: Answers,
    history: History,
    worker: &'static str,
    environment: Vec<(&'static str, String)>,
}

impl Trial {
    pub async fn on(name: &'static str, db: &Database) -> Self {
        Self {
            name,
            dice: Dice::of(name),
            db: db.clone(),
            double: Double::start().await,
            answers: Answers::default(),
            history: History::begin(db.clone()),
            worker: WORKER,
            environment: Vec::new(),
        }
    }

    /// Its workers are those of another build.
    pub fn with_workers(mut self, binary: &'static str, environment: &[(&'static str, &str)]) -> Self {
        self.worker = binary;
        self.environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self
    }

    /// An account that is like this, with a subscription to it.
    pub async fn account(&self, name: &str, plan: Plan) -> Uuid {
        self.double.plan(name, plan);
        subscribe(&self.db, ProviderKind::Aws, name, json!([]), json!({})).await
    }

    /// Asks for a scan without the API.
    pub async fn scan(&self, subscription: Uuid) -> Uuid {
        let job = scan(&self.db, Some(vec![subscription])).await;
        self.answers.made(job);
        job
    }

    /// An API on the database.
    pub async fn facade(&self) -> Facade {
        self.facade_with(&[]).await
    }

    pub async fn facade_with(&self, extra: &[(&str, &str)]) -> Facade {
        Facade::start(self.db.url(), extra, self.answers.clone()).await
    }

    /// Starts a worker of this name with leases of a second and four slots, unless `extra` says otherwise.
    pub fn start_worker(&self, name: &str, extra: &[(&str, &str)]) -> Process {
        let own = self.environment.iter().map(|(name, value)| (*name, value.as_str()));
        let mut environment = vec![
            ("DATABASE_URL", self.db.url()),
            ("KEYWRIGHT_MASTER_KEY", MASTER_KEY),
            ("KEYWRIGHT_LEASE_SECONDS", "1"),
            ("KEYWRIGHT_WORKER_CONCURRENCY", "4"),
            ("KEYWRIGHT_WORKER_LABELS", name),
            ("KEYWRIGHT_SHUTDOWN_GRACE_SECONDS", "0"),
            (cloud::DOUBLE, self.double.url()),
            (cloud::WORKER, name),
        ];
        environment.extend(own);
        environment.extend(extra);
        Process::start(self.worker, &environment)
    }

    pub async fn worker(&self, name: &str) -> Process {
        self.worker_with(name, &[]).await
    }

    pub async fn worker_with(&self, name: &str, extra: &[(&str, &str)]) -> Process {
        let mut worker = self.start_worker(name, extra);
        worker.logged("worker ready").await;
        worker
    }

    pub async fn jobs(&self) -> Vec<job::Model> {
        job::Entity::find().all(self.db.reader()).await.expect("the jobs are read")
    }

    /// How many jobs have not ended; `None` while the database is away.
    pub async fn open(&self) -> Option<usize> {
        let open = job::Entity::find().filter(job::Column::CompletedAt.is_null());
        open.all(self.db.reader()).await.ok().map(|jobs| jobs.len())
    }

    /// The faults are over: a worker that nothing happens to runs, and every job ends in bounded time.
    pub async fn heal(&self) {
        self.double.release();
        let mut healer = self.worker("healer").await;
        let until = Instant::now() + patience();
        while self.open().await != Some(0) {
            let open = || async {
                let open = job::Entity::find().filter(job::Column::CompletedAt.is_null());
                open.all(self.db.reader()).await
            };
            if Instant::now() >= until {
                panic!("{}: KWTEST_SEED={}: never ended: {:?}", self.name, self.dice.seed, open().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        healer.signal(Signal::Term);
        let status = healer.ended(STOPS_WITHIN).await;
        assert_eq!(status.code(), Some(0), "{}", healer.log());
    }

    /// Every promise that was not kept.
    pub async fn breaches(&self, allow: &Allow) -> Vec<Breach> {
        let evidence =
            Evidence::gather(&self.db, self.answers.all(), &self.double).await.expect("the database answers");
        [self.history.breaches(), evidence.judge(&self.double, allow)].concat()
    }

    /// Heals, and fails with what was not kept.
    pub async fn judge(self, allow: &Allow) {
        self.heal().await;
        let breaches: Vec<String> = self.breaches(allow).await.iter().map(ToString::to_string).collect();
        assert!(breaches.is_empty(), "{}: KWTEST_SEED={}\n{}", self.name, self.dice.seed, breaches.join("\n"));
    }
}
