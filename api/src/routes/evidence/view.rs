//! A package as clients see it.

use crate::{routes::approvals::PersonView, timestamp::Timestamp, wire::JobState};
use keywright_entities::{evidence_package, job, types};
use poem_openapi::{Object, types::Any};
use serde_json::Value;
use uuid::Uuid;

/// An evidence package. Its id is that of its job.
#[derive(Debug, Object)]
#[oai(rename = "EvidencePackage", rename_all = "camelCase")]
pub struct PackageView {
    pub id: Uuid,
    /// `succeeded` exactly when it can be downloaded.
    pub state: JobState,
    /// When it was asked for: the `exportedAt` that the package bears.
    pub exported_at: Timestamp,
    pub period: PackagePeriod,
    pub requested_by: PersonView,
    /// What was asked for, with all defaults.
    pub request: Any<Value>,
    /// Made for somebody who may see only some subscriptions: it holds nothing about people and nothing else.
    pub restricted: bool,
    pub subscriptions: Vec<Uuid>,
    pub built_at: Option<Timestamp>,
    /// Where it can be downloaded.
    pub href: Option<String>,
    /// In bytes.
    pub size: Option<u64>,
    /// Lower-case hex.
    pub sha256: Option<String>,
    /// The report alone, which is in the package too; null where the worker that built it lays out none.
    pub report: Option<PackageReport>,
    /// The key that signed it, as `/api/evidence/keys` names it.
    pub signed_by: Option<String>,
    /// Rows by population, gaps by kind, and what became of each section.
    pub contents: Option<Any<Value>>,
}

#[derive(Debug, Object)]
#[oai(rename = "EvidencePackagePeriod", rename_all = "camelCase")]
pub struct PackagePeriod {
    pub from: Timestamp,
    /// What the package tells is what held immediately before.
    pub to: Timestamp,
}

#[derive(Debug, Object)]
#[oai(rename = "EvidenceReport", rename_all = "camelCase")]
pub struct PackageReport {
    /// In bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

impl PackageView {
    /// `job` may have been forgotten.
    pub fn new(job: Option<&job::Model>, row: evidence_package::Model) -> Self {
        let state = match (row.built_at, job) {
            (Some(_), _) => types::JobState::Succeeded,
            (None, Some(job)) => job.state,
            (None, None) => types::JobState::Failed,
        };
        let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok());
        let report = size(row.report_size).zip(row.report_sha256.clone());
        let subscriptions = row.subscription_ids();
        Self {
            id: row.id,
            state: state.into(),
            exported_at: row.created_at.into(),
            period: PackagePeriod { from: row.period_from.into(), to: row.as_of.into() },
            requested_by: PersonView {
                actor_type: row.requested_by_type.into(),
                id: row.requested_by_id,
                name: row.requested_by_name,
            },
            request: Any(row.request),
            restricted: row.restricted,
            subscriptions,
            built_at: row.built_at.map(Into::into),
            href: row.built_at.map(|_| format!("/api/evidence/{}/download", row.id)),
            size: size(row.size),
            sha256: row.sha256,
            report: report.map(|(size, sha256)| PackageReport { size, sha256 }),
            signed_by: row.signing_key,
            contents: row.contents.map(Any),
        }
    }
}
