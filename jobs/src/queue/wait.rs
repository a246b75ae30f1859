//! Waiting for a job to change or to end: any number of waiters, one query per piece of news.

use super::wake::Wake;
use crate::setup::database::Database;
use keywright_entities::job;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// News that come faster are answered together.
const GATHER: Duration = Duration::from_millis(15);
/// Waiters look by themselves this often, should news get lost.
const NET: Duration = Duration::from_secs(1);

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The job's version differs from this one.
    VersionMoves(i64),
    Done,
}

impl Until {
    fn is_met(self, version: i64, done: bool) -> bool {
        match self {
            Self::VersionMoves(known) => version != known || done,
            Self::Done => done,
        }
    }
}

/// Takes the waiters of a job away that nobody listens to any more.
struct Forget<'a> {
    waiters: &'a Waiters,
    job: Uuid,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiters.forget(self.job);
    }
}

struct Waiter {
    until: Until,
    tell: oneshot::Sender<()>,
}

/// The waiters of one process.
#[derive(Clone)]
pub struct Waiters {
    waiting: Arc<Mutex<HashMap<Uuid, Vec<Waiter>>>>,
    /// A waiter came: what it waits for may have happened just before.
    came: Arc<Notify>,
    stop: CancellationToken,
}

impl Waiters {
    /// Serves waiters until `stop`, which answers all of them at once.
    pub fn start(database: Database, wake: &Wake, stop: CancellationToken) -> Self {
        let waiters = Self { waiting: Arc::default(), came: Arc::default(), stop: stop.clone() };
        let (serving, mut news) = (waiters.clone(), wake.subscribe());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = tokio::time::timeout(NET, news.changed()) => {}
                    () = serving.came.notified() => {}
                    () = stop.cancelled() => return,
                }
                if let Err(error) = serving.look(&database).await {
                    tracing::debug!(%error, "waiters could not be served; they are tried again");
                }
                tokio::time::sleep(GATHER).await;
            }
        });
        waiters
    }

    /// Returns when the job meets `until`, when `limit` has passed, or when the process stops; the caller reads the job then.
    pub async fn wait(&self, job: Uuid, until: Until, limit: Duration) {
        let (tell, told) = oneshot::channel();
        self.lock().entry(job).or_default().push(Waiter { until, tell });
        self.came.notify_one();
        // dropped after `told`, also when the client went away and this future with it
        let _forget = Forget { waiters: self, job };
        let told = std::pin::pin!(told);
        tokio::select! {
            _ = told => {}
            () = tokio::time::sleep(limit) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Vec<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, job: Uuid) {
        let mut waiting = self.lock();
        if let Some(waiters) = waiting.get_mut(&job) {
            waiters.retain(|waiter| !waiter.tell.is_closed());
            if waiters.is_empty() {
                waiting.remove(&job);
            }
        }
    }

    async fn look(&self, database: &Database) -> Result<(), DbErr> {
        let ids: Vec<Uuid> = self.lock().keys().copied().collect();
        for chunk in ids.chunks(1000) {
            let rows: Vec<(Uuid, i64, Option<sea_orm::prelude::DateTimeUtc>)> = job::Entity::find()
                .select_only()
                .columns([job::Column::Id, job::Column::Version, job::Column::CompletedAt])
                .filter(job::Column::Id.is_in(chunk.iter().copied()))
                .into_tuple()
                .all(database.reader())
                .await?;
            let mut waiting = self.lock();
            for (id, version, completed) in rows {
                let Some(waiters) = waiting.get_mut(&id) else { continue };
                for waiter in waiters.extract_if(.., |waiter| waiter.until.is_met(version, completed.is_some())) {
                    // a waiter that gave up in the meantime is no loss
                    let _ = waiter.tell.send(());
                }
                if waiters.is_empty() {
                    waiting.remove(&id);
                }
            }
        }
        Ok(())
    }
}
