//! What clients see of the results that jobs keep themselves.

use super::{JobView, view::JobFailure};
use crate::error::ApiError;
use keywright_entities::{job_report, scope::Scope};
use keywright_jobs::{
    domain::inventory,
    job::Job,
    kinds::subscription::{accounts, test},
};
use poem_openapi::{Enum, Object};
use sea_orm::ConnectionTrait;
use uuid::Uuid;

/// Whether a subscription works.
#[derive(Debug, Object)]
#[oai(rename = "SubscriptionTest", rename_all = "camelCase")]
pub struct TestView {
    /// Every kind of asset can be listed.
    pub ok: bool,
    /// As whom it is logged in; null where nobody logs in.
    pub identity: Option<IdentityView>,
    /// Whether that identity belongs to the account that the subscription names; null where it cannot be told.
    pub account_matches: Option<bool>,
    pub kinds: Vec<KindView>,
}

#[derive(Debug, Object)]
#[oai(rename = "ProviderIdentity")]
pub struct IdentityView {
    /// The account that it belongs to, where the provider tells.
    pub account: Option<String>,
    /// The provider's own name of it: an ARN, the e-mail address of a service account.
    pub principal: Option<String>,
}

/// Whether a kind of asset can be listed.
#[derive(Debug, Object)]
#[oai(rename = "TestedKind")]
pub struct KindView {
    pub kind: String,
    /// Where it was tried.
    pub region: String,
    /// How many scopes of this kind a scan would list.
    pub scopes: u64,
    pub status: KindStatus,
    /// Why it is not `ok`, with the permission that is missing.
    pub reason: Option<JobFailure>,
    /// What the first page could not read: the first 20.
    pub warnings: Vec<UnreadView>,
}

/// Something that could not be read.
#[derive(Debug, Object)]
#[oai(rename = "Unread")]
pub struct UnreadView {
    /// A file, an endpoint, an ARN.
    pub path: String,
    /// Stable.
    pub code: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum KindStatus {
    Ok,
    Denied,
    Failed,
}

/// An account, project or subscription of the provider's organisation.
#[derive(Debug, Object)]
#[oai(rename = "Account", rename_all = "camelCase")]
pub struct AccountView {
    /// What a subscription has as its `externalId`.
    pub external_id: String,
    pub name: String,
    /// The provider's own word, e.g. `ACTIVE`, `SUSPENDED`.
    pub status: String,
    /// The subscription that there was for it, if the caller may see it.
    pub subscription: Option<Uuid>,
}

impl JobView {
    /// With what the job found out, where it keeps that itself.
    pub async fn with_report(mut self, db: &impl ConnectionTrait, visible: &Scope) -> Result<Self, ApiError> {
        let kept = [test::Test::KIND, accounts::AccountsListing::KIND].contains(&self.kind.as_str());
        if let Some(result) = self.result.as_mut().filter(|_| kept && self.done)
            && let Some(content) = job_report::of(db, self.id).await?
        {
            if self.kind == test::Test::KIND {
                let report: test::Report = serde_json::from_value(content).map_err(ApiError::internal)?;
                result.test = Some(report.into());
            } else {
                let found: Vec<accounts::FoundAccount> = serde_json::from_value(content).map_err(ApiError::internal)?;
                result.accounts = Some(found.into_iter().map(|account| AccountView::of(account, visible)).collect());
            }
        }
        Ok(self)
    }
}

impl From<test::Report> for TestView {
    fn from(report: test::Report) -> Self {
        Self {
            ok: report.ok,
            identity: report
                .identity
                .map(|inventory::Identity { account, principal }| IdentityView { account, principal }),
            account_matches: report.account_matches,
            kinds: report.kinds.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<test::KindReport> for KindView {
    fn from(report: test::KindReport) -> Self {
        Self {
            kind: report.kind,
            region: report.region,
            scopes: report.scopes as u64,
            status: match report.status {
                test::KindStatus::Ok => KindStatus::Ok,
                test::KindStatus::Denied => KindStatus::Denied,
                test::KindStatus::Failed => KindStatus::Failed,
            },
            reason: report.reason.map(|reason| JobFailure {
                code: reason.code,
                detail: reason.detail,
                required_permission: reason.required_permission,
            }),
            warnings: report.warnings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<inventory::Warning> for UnreadView {
    fn from(inventory::Warning { path, code, detail }: inventory::Warning) -> Self {
        Self { path, code, detail }
    }
}

impl AccountView {
    fn of(found: accounts::FoundAccount, visible: &Scope) -> Self {
        Self {
            external_id: found.external_id,
            name: found.name,
            status: found.status,
            subscription: found.subscription.filter(|id| visible.allows(*id)),
        }
    }
}
