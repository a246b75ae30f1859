//! `subscription.test`: as whom is it logged in, and which kinds of asset may it list? The smallest calls that show that, none of
//! which reads a value; nothing of what they list is kept.

use super::{found, report};
use crate::{
    context::Context,
    domain::inventory::{Identity, Page, ScopeId, Warning},
    job::{Done, Job, JobError},
    kinds::discovery::{connect, noted},
    provider::ProviderError,
    queue::outcome::DENIED,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// Warnings of a kind that are told.
const TOLD_WARNINGS: usize = 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Test {
    pub subscription: Uuid,
}

/// What a test found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Every kind can be listed.
    pub ok: bool,
    /// `None` where nobody logs in.
    pub identity: Option<Identity>,
    /// The identity belongs to the account that the subscription names; `None` where that cannot be told.
    pub account_matches: Option<bool>,
    pub kinds: Vec<KindReport>,
}

/// Whether a kind of asset can be listed, tried in one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindReport {
    pub kind: String,
    /// Where it was tried.
    pub region: String,
    /// How many scopes of this kind a scan would list.
    pub scopes: usize,
    pub status: KindStatus,
    /// Why it is not `ok`.
    pub reason: Option<Problem>,
    /// What the first page could not read: the first 20.
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KindStatus {
    Ok,
    Denied,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub code: String,
    pub detail: String,
    pub required_permission: Option<String>,
}

impl Job for Test {
    const KIND: &'static str = "subscription.test";
    /// Somebody waits for the answer.
    const MAX_ATTEMPTS: i32 = 2;
    const TIMEOUT: Duration = Duration::from_secs(600);

    async fn run(self, context: &Context) -> Result<Done, JobError> {
        context.report("connect", 0, None);
        let subscription = found(context, self.subscription).await?;
        let connection = noted(context, subscription.id, connect(context, &subscription).await).await??;
        let identity = match &connection.login {
            Some(login) => Some(noted(context, subscription.id, login.identity().await).await??),
            None => None,
        };
        let scopes = noted(context, subscription.id, connection.inventory.scopes().await).await??;
        let tried = one_of_each(scopes);
        let mut kinds = Vec::with_capacity(tried.len());
        for (number, (scope, scopes)) in tried.iter().enumerate() {
            context.report("list", number as u64, Some(tried.len() as u64));
            let listed = noted(context, subscription.id, connection.inventory.list(scope, None).await).await?;
            let last_attempt = context.job.attempt >= context.job.max_attempts;
            kinds.push(judged(scope.clone(), *scopes, listed, last_attempt)?);
        }
        let account = identity.as_ref().and_then(|identity| identity.account.as_deref());
        let account_matches = account.map(|account| account == subscription.external_id);
        let ok = kinds.iter().all(|kind| kind.status == KindStatus::Ok);
        report(context, json!(Report { ok, identity, account_matches, kinds })).await?;
        Ok(Done::Succeeded)
    }
}

/// The first scope of each kind, with how many there are of it.
fn one_of_each(scopes: Vec<ScopeId>) -> Vec<(ScopeId, usize)> {
    let mut first: BTreeMap<String, (ScopeId, usize)> = BTreeMap::new();
    for scope in scopes {
        first.entry(scope.kind.clone()).or_insert((scope, 0)).1 += 1;
    }
    first.into_values().collect()
}

/// What the list of a scope says of its kind.
///
/// # Errors
/// When it says nothing yet: the provider throttles or is away, or the attempt must end.
fn judged(
    scope: ScopeId,
    scopes: usize,
    listed: Result<Page, ProviderError>,
    last_attempt: bool,
) -> Result<KindReport, JobError> {
    let ScopeId { kind, region } = scope;
    let report = |status, reason, warnings| KindReport { kind, region, scopes, status, reason, warnings };
    let error = match listed {
        Ok(page) => {
            let told = page.warnings.into_iter().take(TOLD_WARNINGS).collect();
            return Ok(report(KindStatus::Ok, None, told));
        }
        Err(error) => error,
    };
    let (code, detail, required_permission) = match JobError::from(error) {
        JobError::Fail { code, detail, permission } => (code, detail, permission),
        JobError::Retry { code, detail, .. } if last_attempt => (code, detail, None),
        other => return Err(other),
    };
    let status = if code == DENIED { KindStatus::Denied } else { KindStatus::Failed };
    Ok(report(status, Some(Problem { code, detail, required_permission }), Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(region: &str, kind: &str) -> ScopeId {
        ScopeId { region: region.to_owned(), kind: kind.to_owned() }
    }

    #[test]
    fn each_kind_is_tried_once() {
        let scopes = [("a", "two"), ("b", "two"), ("a", "one"), ("c", "two")].map(|(region, kind)| scope(region, kind));
        assert_eq!(one_of_each(scopes.to_vec()), [(scope("a", "one"), 1), (scope("a", "two"), 3)]);
        assert_eq!(one_of_each(Vec::new()), []);
    }

    #[test]
    fn what_passes_is_no_verdict_until_the_last_attempt() {
        let judge = |error, last| judged(scope("a", "one"), 1, Err(error), last);
        let denied = ProviderError::Denied { detail: "no".to_owned(), permission: Some("x:List".to_owned()) };
        let told = judge(denied, false).unwrap();
        assert_eq!(
            (told.status, told.reason.unwrap().required_permission.as_deref()),
            (KindStatus::Denied, Some("x:List"))
        );
        let away = || ProviderError::Unavailable { detail: "503".to_owned() };
        assert!(matches!(judge(away(), false), Err(JobError::Retry { .. })));
        assert_eq!(judge(away(), true).unwrap().status, KindStatus::Failed);
        let throttled = ProviderError::Throttled { detail: "slow".to_owned(), retry_after: None };
        assert!(matches!(judge(throttled, true), Err(JobError::Snooze { .. })));
    }
}
