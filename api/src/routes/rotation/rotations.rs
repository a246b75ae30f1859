//! Plans and rotations: asked for, under way, rolled back, decided.

use super::view::{DetailedView, PlanView, RotationState, RotationView};
use crate::{
    answer::{Accepted, Current},
    auth::{Caller, perm},
    error::{ApiError, Code, FieldError},
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    routes::{
        Tag,
        jobs::{JobView, Waiting, control::requester},
    },
};
use keywright_entities::{rotation, rotation_plan, rotation_step};
use keywright_jobs::{
    domain::{
        licence::Limit,
        rotation::{NotNow, Resolution},
    },
    kinds::rotation::request::{self, Refused},
    licence::Licence,
    queue::{Enqueued, wait::Waiters},
    rotation::asked::{self, Wish},
    setup::database::{Database, Write},
};
use poem_openapi::{
    Enum, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::Example,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use std::sync::Arc;
use uuid::Uuid;

/// Plans and rotations.
pub struct RotationsApi {
    pub database: Database,
    pub waiters: Waiters,
    pub licence: Arc<Licence>,
}

/// What is to be planned.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct PlanRotation {
    pub asset: Uuid,
    /// How. Default: a random text of 32 letters and digits.
    pub policy: Option<Uuid>,
}

impl Example for PlanRotation {
    fn example() -> Self {
        Self { asset: Uuid::from_u128(0x0198_f3c2_5d1c_7a3b_9c57_2f1d_6b0e_4a01), policy: None }
    }
}

/// What is to be rotated: either what a plan says, or an asset as a policy says.
#[derive(Debug, Default, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct StartRotation {
    /// Of the plan that is agreed to.
    #[oai(validator(min_length = 1, max_length = 128))]
    pub plan_hash: Option<String>,
    /// With `policy`, in place of a plan.
    pub asset: Option<Uuid>,
    pub policy: Option<Uuid>,
}

impl Example for StartRotation {
    fn example() -> Self {
        Self {
            plan_hash: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned()),
            ..Self::default()
        }
    }
}

/// What becomes of a rotation that stands still.
#[derive(Debug, Object)]
#[oai(example)]
pub struct ResolveRotation {
    pub action: ResolveAction,
    /// Why, for the audit log.
    #[oai(validator(min_length = 1, max_length = 2000))]
    pub reason: String,
}

impl Example for ResolveRotation {
    fn example() -> Self {
        Self { action: ResolveAction::Resume, reason: "The second key was deleted by hand.".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum ResolveAction {
    /// It goes on where it stood; what was under way is looked at first.
    Resume,
    /// What was made is taken away again. Not from PROMOTED on.
    Compensate,
    /// Everything stays as it is, and the rotation is over.
    Abandon,
}

static ROTATIONS: Sorting<rotation::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || rotation::Column::CreatedAt.into_expr(),
        nullable: false,
        read: |row| row.created_at.into(),
    }],
    default: "-createdAt",
    unique: SortKey {
        name: "id",
        column: || rotation::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Rotation")]
impl RotationsApi {
    /// Plan a rotation
    ///
    /// A job that looks at what is to be replaced and changes nothing. It reads the present value to find out whose credential it is;
    /// the value is kept nowhere.
    #[oai(path = "/api/rotation/plan", method = "post", operation_id = "planRotation")]
    async fn plan(
        &self,
        caller: Caller<perm::RotationRun>,
        once: Once,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        body: Json<PlanRotation>,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        let waiting = self.waiting(&caller, prefer.0.as_deref());
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(waiting.replayed(replay).await),
        };
        match request::plan(&write, &caller.visible(), requester(&caller), body.0.asset, body.0.policy).await {
            Ok(begun) => waiting.accepted(write, begun).await,
            Err(refusal) => write.refused(refused(refusal)).await,
        }
    }

    /// Get a plan
    #[oai(path = "/api/rotation/plans/:id", method = "get", operation_id = "getRotationPlan")]
    async fn get_plan(&self, caller: Caller<perm::RotationRead>, id: Path<Uuid>) -> Result<Json<PlanView>, ApiError> {
        let row = rotation_plan::Entity::find_by_id(id.0)
            .filter(caller.visible().on(rotation_plan::Column::SubscriptionId))
            .one(self.database.reader())
            .await?;
        Ok(Json(PlanView::of(row.ok_or_else(|| ApiError::not_found("rotation plan"))?)?))
    }

    /// Rotate
    ///
    /// With `planHash` exactly what that plan says, unless what it was made for has changed since; with `asset` and `policy` it is
    /// planned and done in one go, where the policy asks for no approval. One rotation of an asset at a time: asked again while it is
    /// under way, answers with it.
    #[oai(path = "/api/rotation/rotate", method = "post", operation_id = "rotate")]
    async fn rotate(
        &self,
        caller: Caller<perm::RotationRun>,
        once: Once,
        /// `wait=N`: answer when it is done, at most N seconds later (0-60).
        #[oai(name = "Prefer")]
        prefer: Header<Option<String>>,
        body: Json<StartRotation>,
    ) -> Result<Made<Accepted<JobView>>, ApiError> {
        let start = Start::of(body.0)?;
        let waiting = self.waiting(&caller, prefer.0.as_deref());
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(waiting.replayed(replay).await),
        };
        match self.begin(&write, &caller, start).await {
            Ok(begun) => waiting.accepted(write, begun).await,
            Err(refusal) => write.refused(refusal).await,
        }
    }

    /// List rotations, newest first
    #[oai(path = "/api/rotation/rotations", method = "get", operation_id = "listRotations")]
    async fn list(
        &self,
        caller: Caller<perm::RotationRead>,
        list: ListParams,
        /// Only those that stand there.
        state: Query<Option<Vec<RotationState>>>,
        /// Only those of this asset.
        asset: Query<Option<Uuid>>,
        /// Only those of this subscription.
        subscription: Query<Option<Uuid>>,
        /// `createdAt` (default `-createdAt`).
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<RotationView>>, ApiError> {
        let _ = sort;
        let mut select = rotation::visible(&caller.visible());
        if let Some(states) = state.0 {
            select = select.filter(rotation::Column::State.is_in(states.into_iter().map(RotationState::stored)));
        }
        if let Some(asset) = asset.0 {
            select = select.filter(rotation::Column::AssetId.eq(asset));
        }
        if let Some(subscription) = subscription.0 {
            select = select.filter(rotation::Column::SubscriptionId.eq(subscription));
        }
        let mut slice = list.fetch(select, &ROTATIONS, self.database.reader()).await?;
        let rows = std::mem::take(&mut slice.rows).into_iter();
        let views = rows.map(RotationView::of).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(slice.holding(views).into_page(|view| view)))
    }

    /// Get a rotation with its history
    #[oai(path = "/api/rotation/rotations/:id", method = "get", operation_id = "getRotation")]
    async fn get(&self, caller: Caller<perm::RotationRead>, id: Path<Uuid>) -> Result<Current<DetailedView>, ApiError> {
        let found = rotation::visible(&caller.visible()).filter(rotation::Column::Id.eq(id.0));
        let row = found.one(self.database.reader()).await?.ok_or_else(|| ApiError::not_found("rotation"))?;
        let version = row.version;
        let steps = rotation_step::Entity::find()
            .filter(rotation_step::Column::RotationId.eq(row.id))
            .filter(rotation_step::Column::Number.lte(version))
            .order_by_asc(rotation_step::Column::Number)
            .all(self.database.reader())
            .await?;
        let rotation = RotationView::of(row)?;
        let history = steps.into_iter().map(Into::into).collect();
        Ok(Current::at_version(version, DetailedView { rotation, history }))
    }

    /// Roll a rotation back
    ///
    /// From PROMOTED on and while the former credential exists: it becomes the current one again, tested like any other. Before, cancel
    /// the rotation's job instead.
    #[oai(path = "/api/rotation/rotations/:id/rollback", method = "post", operation_id = "rollBackRotation")]
    async fn roll_back(
        &self,
        caller: Caller<perm::RotationRun>,
        id: Path<Uuid>,
    ) -> Result<Json<RotationView>, ApiError> {
        self.ask(&caller, id.0, Wish::RollBack).await
    }

    /// Decide what becomes of a rotation that stands still
    #[oai(path = "/api/rotation/rotations/:id/resolve", method = "post", operation_id = "resolveRotation")]
    async fn resolve(
        &self,
        caller: Caller<perm::RotationRun>,
        id: Path<Uuid>,
        body: Json<ResolveRotation>,
    ) -> Result<Json<RotationView>, ApiError> {
        let resolution = match body.0.action {
            ResolveAction::Resume => Resolution::Resume,
            ResolveAction::Compensate => Resolution::Compensate,
            ResolveAction::Abandon => Resolution::Abandon,
        };
        self.ask(&caller, id.0, Wish::Resolve { resolution, reason: body.0.reason }).await
    }
}

/// What a valid request asks for.
enum Start {
    Planned(String),
    Unplanned { asset: Uuid, policy: Uuid },
}

impl Start {
    fn of(body: StartRotation) -> Result<Self, ApiError> {
        match body {
            StartRotation { plan_hash: Some(hash), asset: None, policy: None } => Ok(Self::Planned(hash)),
            StartRotation { plan_hash: None, asset: Some(asset), policy: Some(policy) } => {
                Ok(Self::Unplanned { asset, policy })
            }
            StartRotation { plan_hash: Some(_), asset, .. } => {
                let pointer = if asset.is_some() { "/asset" } else { "/policy" };
                let message = "A plan says both the asset and the policy: send planHash alone, or asset with policy.";
                Err(ApiError::validation(vec![FieldError::new(pointer, "foreign", message)]))
            }
            StartRotation { asset, .. } => {
                let pointer = if asset.is_some() { "/policy" } else { "/asset" };
                let message = "Send planHash, or asset with policy.";
                Err(ApiError::validation(vec![FieldError::new(pointer, "required", message)]))
            }
        }
    }
}

impl RotationsApi {
    fn waiting<'a>(&'a self, caller: &Caller<perm::RotationRun>, prefer: Option<&'a str>) -> Waiting<'a> {
        Waiting { waiters: &self.waiters, database: &self.database, visible: caller.visible(), prefer }
    }

    async fn begin(
        &self,
        write: &Write,
        caller: &Caller<perm::RotationRun>,
        start: Start,
    ) -> Result<Enqueued, ApiError> {
        let (visible, by) = (caller.visible(), requester(caller));
        let begun = match start {
            Start::Planned(hash) => request::rotate_planned(write, &visible, by, Some(caller.user_id), &hash).await,
            Start::Unplanned { asset, policy } => request::rotate_unplanned(write, &visible, by, asset, policy).await,
        };
        let begun = begun.map_err(refused)?;
        // whoever joins begins nothing
        if matches!(begun, Enqueued::New(_)) {
            self.licence.admit(write, Limit::ManualRotations).await?;
        }
        Ok(begun)
    }

    async fn ask(
        &self,
        caller: &Caller<perm::RotationRun>,
        id: Uuid,
        wish: Wish,
    ) -> Result<Json<RotationView>, ApiError> {
        let write = self.database.begin().await?;
        match asked::ask(&*write, &caller.visible(), id, &wish, &requester(caller)).await {
            Ok(row) => {
                let view = RotationView::of(row)?;
                write.commit().await?;
                Ok(Json(view))
            }
            Err(refusal) => {
                write.rollback().await?;
                Err(not_asked(refusal))
            }
        }
    }
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::NoAsset => {
            ApiError::invalid("/asset", "unknown", "There is no such asset, or it is not there any more.")
        }
        Refused::NoPolicy => ApiError::invalid("/policy", "unknown", "There is no such rotation policy."),
        Refused::NoPlan => ApiError::invalid("/planHash", "unknown", "There is no plan of this hash."),
        Refused::PolicyDisabled => ApiError::new(
            Code::PolicyDisabled,
            "The policy is disabled, so that it begins nothing new. Enable it first.",
        ),
        Refused::Stale(why) => ApiError::new(
            Code::PlanStale,
            format!("The plan does not hold any more: {why}. Make a new one and read it."),
        ),
        Refused::SubscriptionDisabled => ApiError::new(
            Code::SubscriptionDisabled,
            "The asset's subscription is disabled, so its account is not called. Enable it first.",
        ),
        Refused::Unsupported { kind, method, kinds } => ApiError::new(
            Code::RotationUnsupported,
            format!("{kind} is not rotated by {method}, which is for {}.", kinds.join(" and ")),
        ),
        Refused::PlanFirst => ApiError::new(
            Code::PlanRequired,
            "The policy wants somebody else's approval, which is given to a plan: make one and send its planHash.",
        ),
        Refused::Busy(job) => {
            ApiError::conflict("Another rotation of the same asset or identity is open; wait for its end or decide it.")
                .with_job_id(job)
        }
        Refused::Database(error) => error.into(),
    }
}

fn not_asked(refused: asked::Refused) -> ApiError {
    match refused {
        asked::Refused::NotFound => ApiError::not_found("rotation"),
        asked::Refused::NotNow(NotNow::PastPointOfNoReturn) => ApiError::new(
            Code::PastPointOfNoReturn,
            "The new credential is already the current one: roll the rotation back instead.",
        ),
        asked::Refused::NotNow(why) => ApiError::new(Code::RotationState, format!("That cannot be asked now: {why}.")),
        asked::Refused::Database(error) => error.into(),
    }
}
