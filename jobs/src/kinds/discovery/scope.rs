//! `discovery.scope`: lists one scope to its last page and publishes each page as it comes.

use super::{connect, details::Pages, noted, publish, scan};
use crate::{
    context::Context,
    domain::inventory::{Page, ScopeId},
    job::{Done, Job, JobError},
    provider::{Connection, Inventory, ProviderError},
    settings,
};
use chrono::{DateTime, Utc};
use keywright_entities::{job, subscription, types::ScanMode};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use uuid::Uuid;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScopeListing {
    pub scan: Uuid,
    pub subscription: Uuid,
    pub scope: ScopeId,
    #[serde(default = "full")]
    pub mode: ScanMode,
}

/// A payload of before there were modes.
fn full() -> ScanMode {
    ScanMode::Full
}

/// Where a listing stands: a later attempt goes on from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Pages, and parts of pages, published so far.
    pub pages: u64,
    /// Where the next page begins; `None` before the first and after the last.
    pub next: Option<String>,
    /// The last page was published.
    pub listed: bool,
    /// When the first page was published, by the database's clock: what was last seen before that is gone when the listing ends.
    pub since: Option<DateTime<Utc>>,
    /// The code and path of each warning that is told once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<String>,
}

impl Checkpoint {
    pub fn of(job: &job::Model) -> Self {
        job.checkpoint.clone().and_then(|json| serde_json::from_value(json).ok()).unwrap_or_default()
    }
}

impl Job for ScopeListing {
    const KIND: &'static str = "discovery.scope";
    const TIMEOUT: Duration = Duration::from_secs(12 * 3600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        if self.scope == scan::every() {
            return scan::late(context, &self).await;
        }
        let Some(subscription) = subscription::by_id(context.database.reader(), self.subscription).await? else {
            return Err(JobError::fail("subscription_deleted", "the subscription was deleted while it was scanned"));
        };
        let connection = noted(context, subscription.id, connect(context, &subscription).await).await??;
        let place = Arc::new(publish::Place {
            scan: self.scan,
            job: context.job.id,
            subscription: subscription.id,
            provider: subscription.provider,
            scope: self.scope.clone(),
            tags: settings::read(context.database.reader()).await?.tags,
        });
        let checkpoint = Checkpoint::of(&context.job);
        if !checkpoint.listed {
            self.list(context, &connection, &place, checkpoint).await?;
        }
        publish::remove_unseen(context, &place).await?;
        Ok(Done::Succeeded)
    }
}

impl ScopeListing {
    /// The next page is on its way while the one before is written.
    async fn list(
        &self,
        context: &Context,
        connection: &Connection,
        place: &Arc<publish::Place>,
        checkpoint: Checkpoint,
    ) -> Result<(), JobError> {
        let inventory = connection.inventory.as_ref();
        let mut pages = Pages::new(context, place, connection.details.as_deref(), self.mode, checkpoint.pages);
        let first = self.first_page(inventory, checkpoint.next.as_deref()).await;
        let mut page = noted(context, self.subscription, first).await??;
        loop {
            let next = page.next.clone();
            let (published, following) = tokio::join!(pages.publish(page), async {
                match &next {
                    Some(token) => inventory.list(&self.scope, Some(token)).await.map(Some),
                    None => Ok(None),
                }
            });
            noted(context, self.subscription, published?).await??;
            match noted(context, self.subscription, following).await?? {
                Some(following) => page = following,
                None => return Ok(()),
            }
        }
    }

    /// A token from an earlier attempt may have expired: then the scope is listed from its start, which publishes nothing twice.
    async fn first_page(&self, inventory: &dyn Inventory, token: Option<&str>) -> Result<Page, ProviderError> {
        match inventory.list(&self.scope, token).await {
            Err(ProviderError::PageExpired) if token.is_some() => inventory.list(&self.scope, None).await,
            listed => listed,
        }
    }
}
