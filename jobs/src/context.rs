//! What an attempt works with.

use crate::{
    domain::floor::Calls,
    evidence::Workshop,
    job::JobError,
    pacing::{Account, Budgets, Pacer, Tally},
    provider::{Gate, Pass, Providers, Stopped, Target},
    queue::{HELD, Lease, chaos, row},
    setup::{
        clock::Clock,
        database::{Database, is_transient},
        sealing::Sealing,
    },
};
use futures::future::BoxFuture;
use keywright_entities::{clock, job};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr};
use serde_json::Value as Json;
use std::{sync::Arc, time::Duration};

/// The longest pause between two tries to reach a database that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The world as one attempt sees it.
pub struct Context {
    pub database: Database,
    pub providers: Arc<dyn Providers>,
    pub sealing: Sealing,
    /// What evidence packages are built with.
    pub evidence: Workshop,
    /// For domain decisions; leases and due times go by the database's clock.
    pub clock: Clock,
    /// The job as it was claimed.
    pub job: job::Model,
    pub lease: Arc<Lease>,
    /// How fast clouds may be called.
    pub budgets: Arc<Budgets>,
    /// Which calls this attempt has made.
    pub calls: Tally,
}

impl Context {
    /// What every request to a provider must pass.
    pub fn gate(&self, target: &Target) -> Gate {
        let pacer = Pacer::new(Arc::clone(&self.budgets), Account::of(target), self.calls.clone());
        Gate::new(Arc::clone(&self.lease) as Arc<dyn Pass>).paced(pacer)
    }

    /// Replaces the progress that clients see.
    pub fn report(&self, phase: &str, completed: u64, total: Option<u64>) {
        self.lease.report(serde_json::json!({"phase": phase, "completed": completed, "total": total}));
    }

    /// Runs `work` in a transaction that commits only while the job is ours.
    ///
    /// `work` gets the job's row as it is now, locked. It is run again while the database is away or busy: a commit whose
    /// answer was lost is told apart by what `work` itself wrote to the row (its checkpoint).
    ///
    /// # Errors
    /// [`JobError::Stopped`] when the attempt must end; [`JobError::Retry`] for an error that a repetition does not mend.
    pub async fn persist<T>(
        &self,
        work: impl for<'t> Fn(&'t DatabaseTransaction, job::Model) -> BoxFuture<'t, Result<T, DbErr>> + Send + Sync,
    ) -> Result<T, JobError> {
        let mut pause = Duration::from_millis(50);
        loop {
            // not the gate: what was read before a cancel or a shutdown is still published
            self.lease.certain().await?;
            match self.try_persist(&work).await {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => return Err(Stopped::LeaseLost.into()),
                Err(error) if is_transient(&error) => {
                    tracing::warn!(job = %self.job.id, %error, "the database is away or busy; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn try_persist<T>(
        &self,
        work: &(impl for<'t> Fn(&'t DatabaseTransaction, job::Model) -> BoxFuture<'t, Result<T, DbErr>> + Send + Sync),
    ) -> Result<Option<T>, DbErr> {
        let write = self.database.begin().await?;
        let lock = if self.database.backend() == DbBackend::Postgres { "FOR UPDATE" } else { "" };
        let text = format!("SELECT * FROM job WHERE id = $1 AND epoch = $2 AND {HELD} {lock}");
        let fence = chaos::fence(&*write, self.lease.held).await?.fence();
        let Some(job) = row(&*write, clock::statement(self.database.backend(), &text, fence)).await? else {
            write.rollback().await?;
            return Ok(None);
        };
        let calls = job.calls.clone();
        let done = work(&write, job).await?;
        self.save_calls(&write, calls).await?;
        write.commit().await?;
        Ok(Some(done))
    }

    /// Tells the job's row which calls this attempt has made, so that they count exactly when their pages do.
    async fn save_calls(&self, db: &DatabaseTransaction, before: Option<Json>) -> Result<(), DbErr> {
        const SAVE: &str = "UPDATE job SET calls = $2 WHERE id = $1";
        let so_far = self.calls.so_far();
        if so_far.is_empty() {
            return Ok(());
        }
        let before: Calls = before.and_then(|json| serde_json::from_value(json).ok()).unwrap_or_default();
        let calls = serde_json::json!(before.told(self.lease.held.epoch, &so_far));
        let values = [self.job.id.into(), calls.into()];
        db.execute_raw(clock::statement(db.get_database_backend(), SAVE, values)).await.map(|_| ())
    }

    /// Writes the job's checkpoint and counts, in a transaction of [`Context::persist`].
    pub async fn save(db: &DatabaseTransaction, job: &job::Model, checkpoint: Json, counts: Json) -> Result<(), DbErr> {
        const SAVE: &str = "UPDATE job SET checkpoint = $2, counts = $3, version = version + 1 WHERE id = $1";
        let values = [job.id.into(), checkpoint.into(), counts.into()];
        db.execute_raw(clock::statement(db.get_database_backend(), SAVE, values)).await.map(|_| ())
    }
}
