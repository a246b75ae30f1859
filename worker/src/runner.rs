//! Runs one worker process: apalis drives the attempts, our own backend, leases and outcomes surround them.

use crate::attempt::{Attempts, RECORD_AFTER_CUT};
use apalis::prelude::{Data, WorkerBuilder};
use keywright_entities::{clock, worker};
use keywright_jobs::{
    approvals,
    audit::sequencer::Sequencer,
    evidence::Workshop,
    kinds,
    pacing::Budgets,
    provider::Providers,
    queue::{
        Heartbeat, Recorder, Renewer,
        backend::{self, Claimed, Claimer, Polls},
        claim::Capability,
        limits::Limits,
        wake::Wake,
    },
    retention::{self, Retention},
    schedules,
    setup::{clock::Clock, config::LONGEST_GRACE, database::Database, ids, sealing::Sealing},
};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter, sea_query::OnConflict};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// After the grace time, running jobs have this long to come to a place where they can stop.
const UNTIL_CUT: Duration = Duration::from_secs(8);
/// For the worker's own end, once its attempts are over.
const UNTIL_CLOSED: Duration = Duration::from_secs(3);
const _: () = assert!(
    LONGEST_GRACE.as_secs() + UNTIL_CUT.as_secs() + RECORD_AFTER_CUT.as_secs() + UNTIL_CLOSED.as_secs() <= 30,
    "whoever runs workers counts on 30 s"
);
/// Workers that were not seen for this long are forgotten.
const FORGET_AFTER_SECONDS: i64 = 600;

/// What a worker process is made of.
pub struct Runner {
    pub database: Database,
    pub providers: Arc<dyn Providers>,
    /// Opens the credentials that subscriptions store.
    pub sealing: Sealing,
    pub evidence: Workshop,
    pub clock: Clock,
    pub name: String,
    pub labels: Vec<String>,
    pub concurrency: usize,
    pub lease: Duration,
    /// How long running jobs may go on after the stop was asked for.
    pub grace: Duration,
    pub polls: Arc<Polls>,
    pub retention: Retention,
    /// How many jobs of a kind and of a subscription all workers together may hold.
    pub limits: Limits,
    /// The part of every cloud's rate that all workers together may use, in percent.
    pub quota_percent: u32,
}

/// How a worker process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every job that was running has ended or was given back.
    Clean,
    /// The outcome of this many could not be written; their leases will lapse.
    Dropped(usize),
}

impl Runner {
    /// Runs until `stop`, then gives back what does not end within the grace time.
    ///
    /// # Errors
    /// When the thread that renews leases cannot be started, or its connection not opened.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<Ended> {
        let worker = ids::new();
        let (interrupt, cut, off) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let renewer = Renewer::new(self.lease, self.database.committed());
        let _off = off.clone().drop_guard();
        let renewing = self.database.another(1).await?;
        let thread = renewer.spawn(renewing, self.heartbeat(worker), off.clone())?;
        let wake = Wake::start(&self.database, off.clone());
        let sequencer = Sequencer::new(self.database.clone(), self.sealing.clone(), self.lease);
        let sequencing = tokio::spawn(sequencer.run(wake.clone(), stop.clone()));
        let capability = Capability {
            worker,
            kinds: kinds::KINDS.to_vec(),
            payload_version: kinds::PAYLOAD_VERSION,
            labels: self.labels.clone(),
            lease: self.lease,
            limits: self.limits.clone(),
            progress: Arc::default(),
        };
        let claimer = Claimer {
            database: self.database.along_indices().await?,
            capability,
            renewer: Arc::clone(&renewer),
            wake,
            stop: stop.clone(),
            interrupt: interrupt.clone(),
            polls: Arc::clone(&self.polls),
            poll: backend::POLL,
        };
        let attempts = Arc::new(Attempts {
            database: self.database.clone(),
            providers: Arc::clone(&self.providers),
            sealing: self.sealing.clone(),
            evidence: self.evidence.clone(),
            clock: self.clock.clone(),
            renewer,
            recorder: Recorder::start(self.database.clone()),
            budgets: Budgets::new(self.database.clone(), self.quota_percent),
            cut: cut.clone(),
        });
        let running = Running { attempts, dropped: Arc::default() };
        let backend = claimer.start(self.concurrency);
        tokio::spawn(schedules::run(self.database.clone(), stop.clone()));
        tokio::spawn(approvals::run(self.database.clone(), stop.clone()));
        tokio::spawn(retention::run(self.database.clone(), self.retention.clone(), stop.clone()));
        let apalis_worker =
            WorkerBuilder::new(format!("{}-{worker}", self.name)).backend(backend).data(running.clone()).build(attempt);
        tracing::info!(%worker, name = self.name, concurrency = self.concurrency, lease = ?self.lease, "worker ready");
        let timetable = async {
            stop.cancelled().await;
            tokio::time::sleep(self.grace).await;
            interrupt.cancel();
            tokio::time::sleep(UNTIL_CUT).await;
            cut.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = apalis_worker.run() => ended?,
            () = timetable => {}
        }
        self.forget(worker).await;
        if tokio::time::timeout(UNTIL_CLOSED / 2, sequencing).await.is_err() {
            tracing::warn!("the audit log could not be let go of in time; another worker goes on when the lease ends");
        }
        off.cancel();
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the renewer panicked"))?;
        Ok(match running.dropped.load(Ordering::SeqCst) {
            0 => Ended::Clean,
            count => Ended::Dropped(count),
        })
    }

    /// The worker's own row, for people and `/ready`.
    fn heartbeat(&self, id: Uuid) -> Heartbeat {
        let (name, labels, concurrency) = (self.name.clone(), self.labels.clone(), self.concurrency);
        let polls = Arc::clone(&self.polls);
        Heartbeat::new(move |database| {
            let (name, labels, polls) = (name.clone(), labels.clone(), Arc::clone(&polls));
            async move {
                let now = clock::now(database.reader()).await?;
                let claimed = polls.age().and_then(|age| chrono::Duration::from_std(age).ok()).map(|age| now - age);
                let row = worker::ActiveModel {
                    id: Set(id),
                    name: Set(name),
                    version: Set(env!("CARGO_PKG_VERSION").to_owned()),
                    labels: Set(serde_json::json!(labels)),
                    identity: Set(serde_json::json!({})),
                    concurrency: Set(i32::try_from(concurrency).unwrap_or(i32::MAX)),
                    started_at: Set(now),
                    last_seen_at: Set(now),
                    last_claim_at: Set(claimed),
                };
                let seen = [worker::Column::LastSeenAt, worker::Column::LastClaimAt];
                let _turn = database.turn().await;
                worker::Entity::insert(row)
                    .on_conflict(OnConflict::column(worker::Column::Id).update_columns(seen).to_owned())
                    .exec_without_returning(database.reader())
                    .await?;
                worker::Entity::delete_many()
                    .filter(worker::Column::LastSeenAt.lt(now - chrono::Duration::seconds(FORGET_AFTER_SECONDS)))
                    .exec(database.reader())
                    .await
                    .map(|_| ())
            }
        })
    }

    async fn forget(&self, id: Uuid) {
        let _turn = self.database.turn().await;
        let gone: Result<_, DbErr> = worker::Entity::delete_by_id(id).exec(self.database.reader()).await;
        if let Err(error) = gone {
            tracing::debug!(%error, "the worker's row stays until it is forgotten");
        }
    }
}

#[derive(Clone)]
struct Running {
    attempts: Arc<Attempts>,
    dropped: Arc<AtomicUsize>,
}

/// What apalis calls for each job. The attempt is a task of its own: apalis may drop this future without harm.
async fn attempt(claimed: Claimed, running: Data<Running>) -> Result<(), Infallible> {
    let attempts = Arc::clone(&running.attempts);
    let recorded = tokio::spawn(attempts.run(claimed)).await;
    if !matches!(recorded, Ok(true)) {
        running.dropped.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}
