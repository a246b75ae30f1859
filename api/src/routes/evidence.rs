//! Evidence packages: asked for, polled, listed and downloaded.

mod download;
mod input;
mod older;
mod view;

use super::Tag;
use crate::{
    answer::Accepted,
    auth::{Caller, perm},
    error::{ApiError, Code, FieldError},
    idempotency::{Begun, Made, Once},
    licence::{Licensed, tier},
    page::{ListParams, Page, SortKey, Sorting},
    routes::jobs::{JobView, Waiting, control::requester},
};
use download::{Asked, Download, File};
use input::{Flags, PackageInput};
use keywright_entities::{evidence_package, job, scope::Scope};
use keywright_jobs::{
    evidence::{Store, objects::StoreError},
    kinds::evidence::request::{self, EvidenceRefused, Surroundings},
    queue::wait::{Until, Waiters},
    setup::{config::Config, database::Database},
};
use older::{Answer, Report};
use poem::Request;
use poem_openapi::{
    Enum, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;
use view::PackageView;

/// What the operator says about evidence.
#[derive(Clone)]
pub struct Setup {
    pub store: Store,
    /// As packages name it.
    pub organisation: String,
    /// For how long an address is good to which downloads are sent; `None` = the API sends the file itself.
    pub signed_urls: Option<Duration>,
}

impl Setup {
    pub fn of(config: &Config) -> Self {
        Self {
            store: config.evidence_store(),
            organisation: config.organisation.clone(),
            signed_urls: config.evidence_signed_urls,
        }
    }
}

/// Evidence packages.
pub struct EvidenceApi {
    pub database: Database,
    pub waiters: Waiters,
    pub setup: Setup,
}

static PACKAGES: Sorting<evidence_package::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || evidence_package::Column::CreatedAt.into_expr(),
        nullable: false,
        read: |row| row.created_at.into(),
    }],
    default: "-createdAt",
    unique: SortKey {
        name: "id",
        column: || evidence_package::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

/// A form in which evidence can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum Format {
    /// The report alone, with the CSV files attached.
    Pdf,
}

#[OpenApi(tag = "Tag::Evidence")]
impl EvidenceApi {
    /// Have an evidence package built
    ///
    /// The job's id is the package's. The same request of the same caller joins the package that is being built.
    #[oai(path = "/api/evidence", method = "post", operation_id = "buildEvidence")]
    async fn build(
        &self,
        caller: Caller<perm::EvidenceBuild>,
        _licensed: Licensed<tier::Pro>,
        once: Once,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        body: Json<PackageInput>,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        let (wanted, on_conflict) = body.0.request()?;
        let surroundings = self.surroundings().await?;
        let waiting = Waiting {
            waiters: &self.waiters,
            database: &self.database,
            visible: caller.visible(),
            prefer: prefer.0.as_deref(),
        };
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(waiting.replayed(replay).await),
        };
        match request::package(&write, &caller.visible(), requester(&caller), &surroundings, wanted, on_conflict).await
        {
            Ok(begun) => waiting.accepted(write, begun).await,
            Err(refusal) => write.refused(refused(refusal)).await,
        }
    }

    /// List evidence packages, newest first
    #[oai(path = "/api/evidence", method = "get", operation_id = "listEvidence")]
    async fn list(
        &self,
        caller: Caller<perm::EvidenceRead>,
        list: ListParams,
        /// `createdAt` (default `-createdAt`).
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<PackageView>>, ApiError> {
        let _ = sort;
        let select = evidence_package::visible(self.database.backend(), &caller.visible());
        let slice = list.fetch(select, &PACKAGES, self.database.reader()).await?;
        let jobs = self.jobs(&slice.rows).await?;
        Ok(Json(slice.into_page(|row| PackageView::new(jobs.get(&row.id), row))))
    }

    /// Get an evidence package, or wait for it
    #[oai(path = "/api/evidence/:id", method = "get", operation_id = "getEvidence")]
    async fn get(
        &self,
        caller: Caller<perm::EvidenceRead>,
        id: Path<Uuid>,
        /// Seconds to wait at most until it is built.
        #[oai(validator(minimum(value = "0"), maximum(value = "60")))]
        wait: Query<Option<u64>>,
    ) -> Result<Json<PackageView>, ApiError> {
        let mut row = self.find(&caller.visible(), id.0).await?;
        if let (None, Some(seconds)) = (row.built_at, wait.0) {
            self.waiters.wait(row.id, Until::Done, Duration::from_secs(seconds)).await;
            row = self.find(&caller.visible(), id.0).await?;
        }
        let job = job::by_id(self.database.reader(), row.id).await?;
        Ok(Json(PackageView::new(job.as_ref(), row)))
    }

    /// Download an evidence package
    ///
    /// A ZIP; its README.txt tells how to check it. Ranges are honoured, one at a time.
    #[oai(path = "/api/evidence/:id/download", method = "get", operation_id = "downloadEvidence")]
    async fn download(
        &self,
        caller: Caller<perm::EvidenceRead>,
        id: Path<Uuid>,
        request: &Request,
    ) -> Result<Download, ApiError> {
        let row = self.find(&caller.visible(), id.0).await?;
        let file = File::package(&row).ok_or_else(|| not_ready(&row))?;
        Asked { api: self, caller: &caller, request }.file(&row, file).await
    }

    /// Get the report of an evidence package (older spelling: use /api/evidence)
    ///
    /// Joins the caller's package of the same parameters of the last 15 minutes, or begins one.
    #[oai(path = "/api/compliance/evidence-package", method = "get", operation_id = "getEvidenceReport")]
    #[allow(clippy::too_many_arguments, reason = "one argument per documented parameter")]
    async fn report(
        &self,
        caller: Caller<perm::EvidenceBuild>,
        _licensed: Licensed<tier::Pro>,
        request: &Request,
        /// `wait=N`: answer with the report when it is ready within N seconds (0-60, default 20), else with the job.
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        /// Default `pdf`.
        format: Query<Option<Format>>,
        /// Default true.
        #[oai(name = "includeCis")]
        cis: Query<Option<bool>>,
        /// Default true.
        #[oai(name = "includeRotation")]
        rotation: Query<Option<bool>>,
        /// Default true.
        #[oai(name = "includeSync")]
        sync: Query<Option<bool>>,
        /// Default true.
        #[oai(name = "includeInventory")]
        inventory: Query<Option<bool>>,
        /// Default true.
        #[oai(name = "includeAudit")]
        audit: Query<Option<bool>>,
        /// Default true.
        #[oai(name = "includeExceptions")]
        exceptions: Query<Option<bool>>,
        /// Default true.
        #[oai(name = "includeCoverage")]
        coverage: Query<Option<bool>>,
    ) -> Result<Report, ApiError> {
        let Format::Pdf = format.0.unwrap_or(Format::Pdf);
        let flags = Flags {
            cis: cis.0,
            rotation: rotation.0,
            sync: sync.0,
            inventory: inventory.0,
            audit: audit.0,
            exceptions: exceptions.0,
            coverage: coverage.0,
        };
        Answer { api: self, caller: &caller, request, prefer: prefer.0.as_deref() }.report(flags.request()).await
    }
}

impl EvidenceApi {
    async fn find(&self, visible: &Scope, id: Uuid) -> Result<evidence_package::Model, ApiError> {
        let found = evidence_package::visible(self.database.backend(), visible)
            .filter(evidence_package::Column::Id.eq(id))
            .one(self.database.reader())
            .await?;
        found.ok_or_else(|| ApiError::not_found("evidence package"))
    }

    async fn surroundings(&self) -> Result<Surroundings, ApiError> {
        let store = self.setup.store.objects().await?.identity().to_owned();
        Ok(Surroundings { organisation: self.setup.organisation.clone(), store })
    }

    async fn jobs(&self, rows: &[evidence_package::Model]) -> Result<HashMap<Uuid, job::Model>, ApiError> {
        let open = rows.iter().filter(|row| row.built_at.is_none()).map(|row| row.id);
        let jobs = job::Entity::find().filter(job::Column::Id.is_in(open)).all(self.database.reader()).await?;
        Ok(jobs.into_iter().map(|job| (job.id, job)).collect())
    }
}

fn not_ready(row: &evidence_package::Model) -> ApiError {
    let detail = "The package is not built yet, or its job failed: GET /api/jobs/{id} tells. Ask again with GET /api/evidence/{id}?wait=60.";
    ApiError::new(Code::EvidenceNotReady, detail).with_job_id(row.id)
}

fn refused(refused: EvidenceRefused) -> ApiError {
    match refused {
        EvidenceRefused::UnknownSubscriptions(positions) => {
            let unknown = |position| {
                FieldError::new(format!("/subscriptions/{position}"), "unknown", "There is no such subscription.")
            };
            ApiError::validation(positions.into_iter().map(unknown).collect())
        }
        EvidenceRefused::Period { pointer, detail } => ApiError::invalid(pointer, "range", detail),
        EvidenceRefused::UnderWay(job) => {
            ApiError::conflict("The same package is being built; join it, or ask for another with onConflict=queue.")
                .with_job_id(job.id)
        }
        EvidenceRefused::Database(error) => error.into(),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing { .. } => {
                Self::new(Code::NotFound, "The file is no longer in the evidence store: somebody removed it there.")
            }
            error => {
                // an operator's matter; what is said of it names no secret
                tracing::warn!(%error, "the evidence store cannot be used");
                let detail = "The evidence store cannot be used now. An operator finds the reason in the log.";
                Self::new(Code::EvidenceStoreUnavailable, detail).with_retry_after(10)
            }
        }
    }
}
