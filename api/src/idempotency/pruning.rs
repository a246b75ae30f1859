//! Expired records go in small batches, so that no writer waits for long.

use keywright_entities::idempotency;
use keywright_jobs::setup::database::Database;
use sea_orm::DbErr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Records removed in one transaction.
const BATCH: u32 = 500;
const EVERY: Duration = Duration::from_secs(60);

/// Removes expired records from time to time until `stop`. Every API process does; they do not disturb each other.
pub async fn prune(database: Database, stop: CancellationToken) {
    let pruning = async {
        loop {
            tokio::time::sleep(EVERY).await;
            match prune_all(&database).await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "expired idempotency records removed"),
                Err(error) => {
                    tracing::debug!(%error, "expired idempotency records could not be removed; tried again later")
                }
            }
        }
    };
    tokio::select! {
        () = pruning => {}
        () = stop.cancelled() => {}
    }
}

async fn prune_all(database: &Database) -> Result<u64, DbErr> {
    let mut count = 0;
    loop {
        let write = database.begin().await?;
        let removed = idempotency::prune(&*write, BATCH).await?;
        write.commit().await?;
        count += removed;
        if removed < u64::from(BATCH) {
            return Ok(count);
        }
    }
}
