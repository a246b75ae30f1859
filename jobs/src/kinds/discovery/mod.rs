//! Discovery: a scan finds out which scopes there are and fans out one listing per scope.

pub mod coverage;
mod details;
pub mod publish;
pub mod request;
pub mod retry;
pub mod scan;
pub mod scope;

use crate::{
    audit::{Actor, Event, EventType},
    context::Context,
    domain::pacing::LONGEST_TOLD,
    egress,
    job::JobError,
    provider::{Connection, ProviderError, StoredCredential, Target},
    queue::outcome::DENIED,
    setup::ids,
};
use keywright_entities::{
    subscription, subscription_credential,
    types::{Outcome, WaitingFor},
};
use std::time::Duration;
use uuid::Uuid;

/// How long a job leaves a provider alone that throttles it and does not say for how long.
const THROTTLED: Duration = Duration::from_secs(5);
const LEAST_THROTTLED: Duration = Duration::from_millis(500);

/// What a subscription tells a provider.
pub fn target(subscription: &subscription::Model) -> Target {
    Target {
        provider: subscription.provider,
        external_id: subscription.external_id.clone(),
        regions: subscription.region_list(),
        settings: subscription.provider_settings(),
        auth_mode: subscription.auth_mode.clone(),
    }
}

pub(crate) async fn connect(
    context: &Context,
    subscription: &subscription::Model,
) -> Result<Connection, ProviderError> {
    let credential = credential(context, subscription).await?;
    let target = target(subscription);
    let gate = context.gate(&target);
    context.providers.connect(&target, credential, gate).await
}

async fn credential(
    context: &Context,
    subscription: &subscription::Model,
) -> Result<Option<StoredCredential>, ProviderError> {
    if subscription.auth_mode != StoredCredential::MODE {
        return Ok(None);
    }
    let away = |detail: String| ProviderError::Unavailable { detail };
    let stored = subscription_credential::of(context.database.reader(), subscription.id).await;
    let stored = stored.map_err(|error| away(format!("the stored credential cannot be read: {error}")))?;
    // between the two reads the mode may have been changed, which the next attempt sees
    let stored = stored.ok_or_else(|| away("the subscription has no stored credential".to_owned()))?;
    Ok(Some(StoredCredential::sealed(context.sealing.clone(), stored)))
}

/// Passes on what a provider said, and writes to the audit log when it is that an address which a user entered was refused.
pub(crate) async fn noted<T>(
    context: &Context,
    subscription: Uuid,
    said: Result<T, ProviderError>,
) -> Result<Result<T, ProviderError>, JobError> {
    if let Err(ProviderError::Rejected { code, detail }) = &said
        && code == egress::REFUSED
    {
        let event =
            refusal(subscription, context.job.id, detail).request(context.job.request_id.clone().unwrap_or_default());
        context
            .persist(|db, _| {
                let event = event.clone();
                Box::pin(async move { event.write(db).await })
            })
            .await?;
    }
    Ok(said)
}

/// The audit event of an address that the egress guard refused.
fn refusal(subscription: Uuid, job: Uuid, detail: &str) -> Event {
    Event::new(EventType::EgressRefused, Actor::SYSTEM, "subscription")
        .subject(subscription)
        .job(job)
        .outcome(Outcome::Denied)
        .detail("reason", detail)
}

impl From<ProviderError> for JobError {
    fn from(error: ProviderError) -> Self {
        let detail = error.to_string();
        match error {
            ProviderError::Denied { permission, .. } => Self::Fail { code: DENIED.to_owned(), detail, permission },
            ProviderError::Unauthenticated { .. } => Self::fail("not_authenticated", detail),
            ProviderError::Throttled { retry_after, .. } => {
                let after = retry_after.unwrap_or(THROTTLED).clamp(LEAST_THROTTLED, LONGEST_TOLD);
                // those who were sent away together do not come back together
                let after = after.mul_f64(1.0 + ids::jitter() / 10.0);
                Self::Snooze { waiting_for: WaitingFor::Quota, after }
            }
            ProviderError::Unavailable { .. } => Self::retry("provider_unavailable", detail),
            ProviderError::PageExpired => Self::retry("page_expired", detail),
            ProviderError::Rejected { code, detail } => Self::Fail { code, detail, permission: None },
            ProviderError::Stopped(stopped) => Self::Stopped(stopped),
        }
    }
}
