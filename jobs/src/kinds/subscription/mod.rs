//! What is asked of a subscription beside scans: whether it works, and which further accounts its credential reaches.

pub mod accounts;
pub mod request;
pub mod test;

use crate::{context::Context, job::JobError};
use keywright_entities::{job_report, subscription};
use serde_json::Value as Json;
use uuid::Uuid;

async fn found(context: &Context, id: Uuid) -> Result<subscription::Model, JobError> {
    let found = subscription::by_id(context.database.reader(), id).await?;
    found.ok_or_else(|| JobError::fail("subscription_deleted", "the subscription was deleted meanwhile"))
}

/// Keeps what the job found out, while it is ours.
async fn report(context: &Context, content: Json) -> Result<(), JobError> {
    context
        .persist(|db, job| {
            let content = content.clone();
            Box::pin(async move { job_report::save(db, job.id, content).await })
        })
        .await
}
