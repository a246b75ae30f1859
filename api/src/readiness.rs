//! Whether requests can be served: the database answers and has the schema; a missing worker only degrades.

use crate::routes::system::{Readiness, Ready};
use async_trait::async_trait;
use keywright_jobs::{queue::overview, setup::database::Database};
use sea_orm::DbErr;
use std::time::Duration;

pub struct DatabaseReadiness {
    pub database: Database,
    /// A worker that was not seen for this long does not count as live.
    pub worker_silence: Duration,
}

#[async_trait]
impl Readiness for DatabaseReadiness {
    async fn check(&self) -> Ready {
        let not = |reason: &str| Ready { ready: false, degraded: false, reasons: vec![reason.to_owned()] };
        match self.database.schema_is_current().await {
            Ok(true) => {}
            Ok(false) => {
                return not("the database's schema is not the one of this version; run keywright-api --migrate");
            }
            Err(error) => {
                tracing::warn!(%error, "the database does not answer");
                return not("the database does not answer");
            }
        }
        match self.live_workers().await {
            Ok(0) => Ready { ready: true, degraded: true, reasons: vec!["no live worker".to_owned()] },
            Ok(_) => Ready { ready: true, degraded: false, reasons: Vec::new() },
            Err(_) => not("the database does not answer"),
        }
    }
}

impl DatabaseReadiness {
    async fn live_workers(&self) -> Result<usize, DbErr> {
        Ok(overview::live_workers(&self.database, self.worker_silence).await?.len())
    }
}
