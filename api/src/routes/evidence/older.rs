//! The older spelling: one GET that begins a package, waits for it and answers with its report.

use super::{
    EvidenceApi,
    download::{Asked, Download, File},
    not_ready, refused,
};
use crate::{
    auth::{Caller, caller, perm},
    error::{ApiError, Code},
    routes::jobs::{JobView, control::requester, location, preferred_wait},
};
use keywright_entities::{evidence_package, job};
use keywright_jobs::{
    domain::evidence::Request as Wanted,
    kinds::{discovery::request::OnConflict, evidence::request},
    queue::{Enqueued, wait::Until},
};
use poem::{Body, Request, http::header};
use poem_openapi::{
    ApiResponse,
    payload::{Binary, Json},
};
use std::time::Duration;
use uuid::Uuid;

/// How long whoever says nothing waits, in seconds.
const WAIT: u32 = 20;

/// The report, or the job that builds it.
#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "there is one for the time of an answer")]
pub enum Report {
    /// The report, with the CSV files attached.
    #[oai(status = 200, content_type = "application/pdf")]
    Ready(
        Binary<Body>,
        /// Names its bytes.
        #[oai(header = "ETag")]
        String,
        /// In bytes.
        #[oai(header = "Content-Length")]
        u64,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
    ),
    /// Under way: poll `Location`, then ask here again.
    #[oai(status = 202)]
    UnderWay(
        Json<JobView>,
        /// The path of the job.
        #[oai(header = "Location")]
        String,
        /// Seconds after which a first poll makes sense.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// Where the report can be had without further credentials, for a few minutes.
    #[oai(status = 302)]
    Elsewhere(
        /// The address. Whoever has it can read the report.
        #[oai(header = "Location")]
        String,
        /// `no-store`.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// The client has this report already.
    #[oai(status = 304)]
    NotModified(
        /// Names its bytes.
        #[oai(header = "ETag")]
        String,
    ),
}

/// A request in the older spelling.
pub struct Answer<'a> {
    pub api: &'a EvidenceApi,
    pub caller: &'a Caller<perm::EvidenceBuild>,
    pub request: &'a Request,
    /// The request's `Prefer`.
    pub prefer: Option<&'a str>,
}

impl Answer<'_> {
    /// # Errors
    /// As those of asking for a package and downloading it; 403 `csrf_failed` for a browser that another site sent.
    pub async fn report(&self, wanted: Wanted) -> Result<Report, ApiError> {
        // a GET that begins something: no other site's page may make a browser send it
        let by_cookie = !self.request.headers().contains_key(header::AUTHORIZATION);
        if by_cookie {
            caller::require_same_origin(self.request)?;
        }
        let id = self.begun(wanted).await?;
        let seconds = self.prefer.and_then(preferred_wait).unwrap_or(WAIT);
        let mut row = self.row(id).await?;
        if row.built_at.is_none() && seconds > 0 {
            self.api.waiters.wait(id, Until::Done, Duration::from_secs(u64::from(seconds))).await;
            row = self.row(id).await?;
        }
        if row.built_at.is_some() {
            return self.ready(&row).await;
        }
        let job = job::by_id(self.api.database.reader(), id).await?.ok_or_else(|| not_ready(&row))?;
        if job.state.is_done() {
            return Err(failed(&job));
        }
        let view = JobView::read(self.api.database.reader(), job).await?;
        Ok(Report::UnderWay(Json(view), location(id), 2))
    }

    /// The package of the same parameters that was asked for a short while ago, or a new one.
    async fn begun(&self, wanted: Wanted) -> Result<Uuid, ApiError> {
        let (visible, requester) = (self.caller.visible(), requester(self.caller));
        let recent = request::recent(self.api.database.reader(), &visible, &requester, &wanted).await?;
        if let Some(recent) = recent {
            return Ok(recent.id);
        }
        let surroundings = self.api.surroundings().await?;
        let write = self.api.database.begin().await?;
        match request::package(&write, &visible, requester, &surroundings, wanted, OnConflict::Join).await {
            Ok(Enqueued::New(job) | Enqueued::Open(job)) => {
                write.commit().await?;
                Ok(job.id)
            }
            Err(refusal) => {
                write.rollback().await?;
                Err(refused(refusal))
            }
        }
    }

    async fn row(&self, id: Uuid) -> Result<evidence_package::Model, ApiError> {
        let row = evidence_package::by_id(self.api.database.reader(), id).await?;
        row.ok_or_else(|| ApiError::not_found("evidence package"))
    }

    async fn ready(&self, row: &evidence_package::Model) -> Result<Report, ApiError> {
        let none = "The worker that built the package lays out no report (it was built without the feature `pdf`). The package \
                    itself is at /api/evidence/{id}/download.";
        let file = File::report(row).ok_or_else(|| ApiError::new(Code::EvidenceNotReady, none).with_job_id(row.id))?;
        let asked = Asked { api: self.api, caller: self.caller, request: self.request };
        Ok(match asked.whole(row, file).await? {
            Download::Whole(body, etag, length, name, _) | Download::Part(body, etag, length, _, name) => {
                Report::Ready(body, etag, length, name)
            }
            Download::Elsewhere(address, caching) => Report::Elsewhere(address, caching),
            Download::NotModified(etag) => Report::NotModified(etag),
        })
    }
}

fn failed(job: &job::Model) -> ApiError {
    if job.error_code.as_deref() == Some("evidence_store_not_shared") {
        let detail = job.error_detail.clone().unwrap_or_default();
        return ApiError::new(Code::EvidenceStoreNotShared, detail).with_job_id(job.id);
    }
    let detail = format!("The package could not be built: its job is {}. GET /api/jobs/{{id}} tells why.", job.state);
    ApiError::new(Code::EvidenceNotReady, detail).with_job_id(job.id)
}
