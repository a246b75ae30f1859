//! Scans: asked for, under way, and what each of them found.

mod input;
mod queries;

pub use input::{Conflict, problems};

use super::assets::{AssetView, view_of_version};
use crate::{
    answer::{Accepted, Current},
    auth::{Caller, perm},
    error::{ApiError, Code},
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    routes::{
        Tag,
        jobs::{
            JobView, Waiting,
            control::requester,
            view::{self, Counts, Scopes},
        },
    },
    timestamp::Timestamp,
    wire::{Change, JobState, ScanMode},
};
use chrono::Duration;
use input::{StartScan, unknown};
use keywright_entities::{asset, asset_version, job, scan, scan_warning, scope::Scope, types::Trigger};
use keywright_jobs::{
    domain::floor,
    kinds::discovery::request::{self, ScanRefused},
    queue::wait::Waiters,
    settings::Live,
    setup::{clock::Clock, database::Database},
};
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use queries::{found_by, visible};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use std::collections::HashMap;
use uuid::Uuid;

/// Warnings shown with a scan; `counts.warnings` tells how many there are.
const SHOWN_WARNINGS: u64 = 1000;

const LATEST_START: Duration = Duration::days(366);

/// Scans.
pub struct ScansApi {
    pub database: Database,
    pub waiters: Waiters,
    pub clock: Clock,
    pub settings: Live,
}

/// One look at the subscriptions. Its id is that of its job.
#[derive(Debug, Object)]
#[oai(rename = "Scan", rename_all = "camelCase")]
pub struct ScanView {
    pub id: Uuid,
    pub mode: ScanMode,
    pub subscriptions: Vec<Uuid>,
    pub state: JobState,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub counts: Counts,
    pub scopes: Option<Scopes>,
    /// The least time that the providers' published rates allow for what the scan asked for; null until it has ended, and where no
    /// rate is known.
    pub provider_floor_seconds: Option<f64>,
    /// The floor divided by the time taken, from 0 to 1; null where there is no floor.
    pub efficiency: Option<f64>,
    /// What could not be read: the first 1,000.
    pub warnings: Vec<ScanWarning>,
}

#[derive(Clone, Debug, Object)]
pub struct ScanWarning {
    /// The scope's id, as under `/api/jobs/{id}/scopes`.
    pub scope: Uuid,
    /// A file, an endpoint, an ARN.
    pub path: String,
    /// Stable.
    pub code: String,
    pub detail: String,
}

/// What became of one asset.
#[derive(Debug, Object)]
pub struct ScanResult {
    pub change: Change,
    /// As the scan saw it.
    pub asset: AssetView,
}

static SCANS: Sorting<scan::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || scan::Column::CreatedAt.into_expr(),
        nullable: false,
        read: |row| row.created_at.into(),
    }],
    default: "-createdAt",
    unique: SortKey { name: "id", column: || scan::Column::Id.into_expr(), nullable: false, read: |row| row.id.into() },
};

static RESULTS: Sorting<asset_version::Model> = Sorting {
    keys: &[SortKey {
        name: "validFrom",
        column: || asset_version::Column::ValidFrom.into_expr(),
        nullable: false,
        read: |row| row.valid_from.into(),
    }],
    default: "validFrom",
    unique: SortKey {
        name: "id",
        column: || asset_version::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Discovery")]
impl ScansApi {
    /// Start a scan
    #[oai(path = "/api/assets/discovery/scan", method = "post", operation_id = "startScan")]
    async fn start(
        &self,
        caller: Caller<perm::JobsStart>,
        once: Once,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        body: Json<StartScan>,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        if body.0.run_at.is_some_and(|at| at.0 > self.clock.now() + LATEST_START) {
            return Err(ApiError::invalid("/runAt", "range", "A scan begins at most a year from now."));
        }
        let request = body.0.request();
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
        match request::scan(&write, &caller.visible(), requester(&caller), Trigger::Api, request).await {
            Ok(begun) => waiting.accepted(write, begun).await,
            Err(refusal) => write.refused(refused(refusal)).await,
        }
    }

    /// List scans, newest first
    #[oai(path = "/api/assets/discovery/scans", method = "get", operation_id = "listScans")]
    async fn list(
        &self,
        caller: Caller<perm::InventoryRead>,
        list: ListParams,
        /// `createdAt` (default `-createdAt`).
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<ScanView>>, ApiError> {
        let _ = sort;
        let slice =
            list.fetch(visible(self.database.backend(), &caller.visible()), &SCANS, self.database.reader()).await?;
        let mut views = self.views(&slice.rows).await?;
        Ok(Json(slice.into_page(|row| views.remove(&row.id).unwrap_or_else(|| ScanView::without_job(&row)))))
    }

    /// Get a scan
    #[oai(path = "/api/assets/discovery/scans/:id", method = "get", operation_id = "getScan")]
    async fn get(&self, caller: Caller<perm::InventoryRead>, id: Path<Uuid>) -> Result<Json<ScanView>, ApiError> {
        let row = self.find(&caller.visible(), id.0).await?;
        let mut views = self.views(std::slice::from_ref(&row)).await?;
        Ok(Json(views.remove(&row.id).unwrap_or_else(|| ScanView::without_job(&row))))
    }

    /// List what a scan found
    ///
    /// Without `change`: everything but `unchanged`.
    #[oai(path = "/api/assets/discovery/scans/:id/results", method = "get", operation_id = "listScanResults")]
    async fn results(
        &self,
        caller: Caller<perm::InventoryRead>,
        id: Path<Uuid>,
        list: ListParams,
        /// Only these changes.
        change: Query<Option<Vec<Change>>>,
    ) -> Result<Json<Page<ScanResult>>, ApiError> {
        self.page_of_results(&caller.visible(), id.0, list, change.0).await
    }

    /// Get the state of a scan (older spelling: use /api/jobs/{id})
    #[oai(path = "/api/assets/discovery/scan/:id/status", method = "get", operation_id = "getScanStatus")]
    async fn status(&self, caller: Caller<perm::InventoryRead>, id: Path<Uuid>) -> Result<Current<JobView>, ApiError> {
        let row = self.find(&caller.visible(), id.0).await?;
        let job = job::by_id(self.database.reader(), row.id).await?.ok_or_else(|| ApiError::not_found("scan"))?;
        let version = job.version;
        Ok(Current::at_version(version, JobView::read(self.database.reader(), job).await?))
    }

    /// List what a scan found (older spelling: use /api/assets/discovery/scans/{id}/results)
    #[oai(path = "/api/assets/discovery/scan/:id/results", method = "get", operation_id = "listScanResultsOld")]
    async fn results_old(
        &self,
        caller: Caller<perm::InventoryRead>,
        id: Path<Uuid>,
        list: ListParams,
        /// Only these changes.
        change: Query<Option<Vec<Change>>>,
    ) -> Result<Json<Page<ScanResult>>, ApiError> {
        self.page_of_results(&caller.visible(), id.0, list, change.0).await
    }
}

impl ScansApi {
    async fn find(&self, visible_to: &Scope, id: Uuid) -> Result<scan::Model, ApiError> {
        let found = visible(self.database.backend(), visible_to)
            .filter(scan::Column::Id.eq(id))
            .one(self.database.reader())
            .await?;
        found.ok_or_else(|| ApiError::not_found("scan"))
    }

    /// The views of these scans by id.
    async fn views(&self, scans: &[scan::Model]) -> Result<HashMap<Uuid, ScanView>, ApiError> {
        let ids: Vec<Uuid> = scans.iter().map(|scan| scan.id).collect();
        let db = self.database.reader();
        let jobs = job::Entity::find().filter(job::Column::Id.is_in(ids.iter().copied())).all(db).await?;
        let open = view::open_counts(db, &jobs).await?;
        let mut warnings = self.warnings(&jobs, &open).await?;
        let mut by_id: HashMap<Uuid, &scan::Model> = scans.iter().map(|scan| (scan.id, scan)).collect();
        Ok(jobs
            .into_iter()
            .filter_map(|job| {
                let scan = by_id.remove(&job.id)?;
                let taken = job.completed_at.zip(job.started_at).and_then(|(end, start)| (end - start).to_std().ok());
                let floor = scan.floor_seconds.filter(|_| taken.is_some());
                let job = JobView::new(job, &open);
                let view = ScanView {
                    state: job.state,
                    started_at: job.started_at,
                    completed_at: job.completed_at,
                    counts: job.counts,
                    scopes: job.scopes,
                    provider_floor_seconds: floor,
                    efficiency: floor::efficiency(floor, taken),
                    warnings: warnings.remove(&scan.id).unwrap_or_default(),
                    ..ScanView::without_job(scan)
                };
                Some((scan.id, view))
            })
            .collect())
    }

    /// The first warnings of each of these scans that has any.
    async fn warnings(
        &self,
        jobs: &[job::Model],
        open: &view::OpenCounts,
    ) -> Result<HashMap<Uuid, Vec<ScanWarning>>, ApiError> {
        let mut warnings = HashMap::new();
        for job in jobs.iter().filter(|job| view::counts(job, open).warnings > 0) {
            let rows = scan_warning::Entity::find()
                .filter(scan_warning::Column::ScanId.eq(job.id))
                .order_by_asc(scan_warning::Column::Id)
                .limit(SHOWN_WARNINGS)
                .all(self.database.reader())
                .await?;
            let shown = rows.into_iter().map(|row| ScanWarning {
                scope: row.job_id,
                path: row.path,
                code: row.code,
                detail: row.detail,
            });
            warnings.insert(job.id, shown.collect());
        }
        Ok(warnings)
    }

    async fn page_of_results(
        &self,
        visible_to: &Scope,
        id: Uuid,
        list: ListParams,
        changes: Option<Vec<Change>>,
    ) -> Result<Json<Page<ScanResult>>, ApiError> {
        let scan = self.find(visible_to, id).await?;
        let changes = changes.unwrap_or_else(|| vec![Change::Created, Change::Changed, Change::Removed]);
        let select = asset_version::Entity::find()
            .filter(visible_to.on(asset_version::Column::SubscriptionId))
            .filter(found_by(scan.id, &changes));
        let mut slice = list.fetch(select, &RESULTS, self.database.reader()).await?;
        let ids: Vec<Uuid> = slice.rows.iter().map(|version| version.asset_id).collect();
        let rows = asset::Entity::find().filter(asset::Column::Id.is_in(ids)).all(self.database.reader()).await?;
        let assets: HashMap<Uuid, asset::Model> = rows.into_iter().map(|asset| (asset.id, asset)).collect();
        let (now, settings) = (self.clock.now(), self.settings.current().await?);
        let pairs = std::mem::take(&mut slice.rows).into_iter();
        let pairs = pairs.filter_map(|version| Some((assets.get(&version.asset_id)?, version))).collect();
        let slice = slice.holding(pairs);
        Ok(Json(slice.into_page(|(asset, version)| {
            let made_here = version.scan_id == Some(scan.id);
            let change = if made_here { version.change.into() } else { Change::Unchanged };
            ScanResult { change, asset: view_of_version(asset, &version, &settings, now) }
        })))
    }
}

impl ScanView {
    fn without_job(scan: &scan::Model) -> Self {
        Self {
            id: scan.id,
            mode: scan.mode.into(),
            subscriptions: serde_json::from_value(scan.subscriptions.clone()).unwrap_or_default(),
            state: JobState::Queued,
            started_at: None,
            completed_at: None,
            counts: Counts::default(),
            scopes: None,
            provider_floor_seconds: None,
            efficiency: None,
            warnings: Vec::new(),
        }
    }
}

fn refused(refused: ScanRefused) -> ApiError {
    match refused {
        ScanRefused::UnknownSubscriptions(positions) => ApiError::validation(unknown("", positions)),
        ScanRefused::NothingToScan => {
            ApiError::new(Code::NoSubscription, "There is nothing to scan: add a subscription or enable one.")
        }
        ScanRefused::UnderWay(job) => {
            ApiError::conflict("The same scan is under way; join it, or ask for another with onConflict=queue.")
                .with_job_id(job.id)
        }
        ScanRefused::Database(error) => error.into(),
    }
}
