//! The clock of domain decisions (thresholds, windows, token lifetimes). Leases and due times go by the database's clock instead.

use super::database::Database;
use chrono::{DateTime, TimeDelta, Utc};
use keywright_entities::clock;
use sea_orm::DbErr;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often the machine's clock is compared with the database's.
const COMPARE: Duration = Duration::from_secs(60);

/// Tells the time; tests hold it still.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn system() -> Self {
        Self(Arc::new(Utc::now))
    }

    /// The machine's clock, corrected by how far it was off the database's when they were last compared: for what every
    /// process must judge alike without asking the database each time. Compares until `stop`.
    ///
    /// # Errors
    /// When the database does not tell its time now. Later on the last comparison holds.
    pub async fn of_database(database: &Database, stop: CancellationToken) -> Result<Self, DbErr> {
        let machine = Self::system();
        let behind = Arc::new(AtomicI64::new(machine.behind(database).await?));
        let (comparing, compared, database) = (machine.clone(), Arc::clone(&behind), database.clone());
        tokio::spawn(async move {
            while tokio::time::timeout(COMPARE, stop.cancelled()).await.is_err() {
                if let Ok(behind) = comparing.behind(&database).await {
                    compared.store(behind, Ordering::Relaxed);
                }
            }
        });
        Ok(Self::from_fn(move || machine.now() + TimeDelta::microseconds(behind.load(Ordering::Relaxed))))
    }

    /// How many microseconds the database's clock is ahead.
    async fn behind(&self, database: &Database) -> Result<i64, DbErr> {
        let there = clock::now(database.reader()).await?;
        Ok((there - self.now()).num_microseconds().unwrap_or(0))
    }

    /// A clock that shows what `read` returns.
    pub fn from_fn(read: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}
