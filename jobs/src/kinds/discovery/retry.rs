//! Scanning again what a scan did not get, or all of it.

use super::{
    request::{ScanRefused, begin, chosen},
    scan::{Only, Scan},
    scope::ScopeListing,
};
use crate::{
    job::Job,
    kinds::{Again, RetryRefused},
    queue::{Enqueued, NewJob, Requester},
    setup::database::Write,
};
use keywright_entities::{
    job,
    scope::Scope,
    types::{JobState, Trigger},
};
use sea_orm::DbErr;
use serde_json::json;
use std::collections::BTreeSet;

/// Begins, in the caller's transaction, a scan of what the ended job looked at; `of` is a scan or one of its parts.
pub async fn retry(
    write: &Write,
    visible: &Scope,
    requester: Requester,
    of: &job::Model,
    again: Again,
) -> Result<Enqueued, RetryRefused> {
    let (scan, only) = what(&**write, of, again).await?;
    let wanted: BTreeSet<_> = match &only {
        Some(only) => only.iter().map(|scope| scope.subscription).collect(),
        None => scan.subscriptions.iter().copied().collect(),
    };
    // those that were deleted or switched off since are left out
    let enabled = match chosen(&**write, visible, None).await {
        Ok(enabled) => enabled,
        Err(ScanRefused::Database(error)) => return Err(error.into()),
        Err(_) => Vec::new(),
    };
    let subscriptions: Vec<_> = enabled.into_iter().filter(|id| wanted.contains(id)).collect();
    if subscriptions.is_empty() {
        return Err(RetryRefused::Gone);
    }
    let payload = Scan { mode: scan.mode, subscriptions, only };
    let new = NewJob::new(&payload, requester.clone(), Trigger::Retry)
        .map_err(|error| DbErr::Json(error.to_string()))?
        .retrying(of.id)
        .unique(format!("retry:{}:{}", of.id, again.as_str()))
        .request(json!({"retryOf": of.id, "scope": again.as_str()}));
    Ok(begin(&**write, &new, &payload, requester).await?)
}

/// The scan to repeat, and which of its scopes; `None`: all that there are now.
async fn what(
    db: &impl sea_orm::ConnectionTrait,
    of: &job::Model,
    again: Again,
) -> Result<(Scan, Option<Vec<Only>>), RetryRefused> {
    if of.kind == ScopeListing::KIND {
        let scan = match of.parent_id {
            Some(parent) => job::by_id(db, parent).await?.ok_or(RetryRefused::Gone)?,
            None => return Err(RetryRefused::Gone),
        };
        if again == Again::Failed && of.state == JobState::Succeeded {
            return Err(RetryRefused::NothingFailed);
        }
        return Ok((decoded(&scan)?, Some(vec![scope_of(of)?])));
    }
    let scan = decoded(of)?;
    // a scan that never came to its scopes failed as a whole
    if again == Again::All || of.children_total == 0 && of.state != JobState::Succeeded {
        return Ok((scan.clone(), scan.only));
    }
    let unread: Vec<_> = job::children(db, of.id)
        .await?
        .iter()
        .filter(|child| child.state != JobState::Succeeded)
        .map(scope_of)
        .collect::<Result<_, _>>()?;
    if unread.is_empty() { Err(RetryRefused::NothingFailed) } else { Ok((scan, Some(unread))) }
}

fn decoded(job: &job::Model) -> Result<Scan, RetryRefused> {
    serde_json::from_value(job.payload.clone()).map_err(|_| RetryRefused::Gone)
}

fn scope_of(child: &job::Model) -> Result<Only, RetryRefused> {
    let listing: ScopeListing = serde_json::from_value(child.payload.clone()).map_err(|_| RetryRefused::Gone)?;
    Ok(Only { subscription: listing.subscription, scope: listing.scope })
}
