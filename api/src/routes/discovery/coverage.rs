//! What is looked at, what is not, and why: every scope that is or was known.

use super::assets::counts::{self, StatusCounts};
use crate::{
    auth::{Caller, perm},
    error::ApiError,
    page::{ListParams, Page, SortKey, Sorting},
    routes::Tag,
    timestamp::Timestamp,
    wire::ProviderKind,
};
use keywright_entities::{scope::Scope, scope_coverage, subscription, types};
use keywright_jobs::{
    queue::outcome::DENIED,
    settings::Live,
    setup::{clock::Clock, database::Database},
};
use poem_openapi::{Enum, Object, OpenApi, param::Query, payload::Json};
use sea_orm::{
    ColumnTrait, EntityTrait, JoinType, QueryFilter, QuerySelect, RelationDef, RelationTrait, Select,
    sea_query::{CaseStatement, Expr, ExprTrait},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Coverage.
pub struct CoverageApi {
    pub database: Database,
    pub clock: Clock,
    pub settings: Live,
}

/// How a scope stands. Of several that are true, the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum CoverageState {
    /// Its subscription is switched off.
    Disabled,
    /// It is no longer looked at: its region was taken out of the subscription, or is there no more.
    Stale,
    /// Its last listing waits, or waited in vain until its deadline, for the cloud to take more calls.
    Throttled,
    /// A permission was missing the last time.
    Denied,
    /// Something else went wrong the last time.
    Failed,
    /// It has never been read to its end.
    Never,
    /// It was read to its end the last time.
    Scanned,
}

impl CoverageState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Stale => "stale",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Never => "never",
            Self::Scanned => "scanned",
        }
    }

    /// The same as [`state`].
    fn of(row: &scope_coverage::Model, enabled: bool) -> Self {
        match row.error_code.as_deref() {
            _ if !enabled => Self::Disabled,
            _ if !row.planned => Self::Stale,
            _ if row.throttled_at.is_some() => Self::Throttled,
            Some(DENIED) => Self::Denied,
            Some(_) => Self::Failed,
            None if row.scanned_at.is_none() => Self::Never,
            None => Self::Scanned,
        }
    }
}

/// A kind of asset in a region of a subscription.
#[derive(Debug, Object)]
#[oai(rename = "Coverage", rename_all = "camelCase")]
pub struct CoverageView {
    pub id: Uuid,
    pub subscription: Uuid,
    pub provider: ProviderKind,
    /// `*`, as the kind, where the subscription has not told its scopes.
    pub region: String,
    pub kind: String,
    pub state: CoverageState,
    /// When it was last read to its end.
    pub scanned_at: Option<Timestamp>,
    /// By which scan; null where that is not known any more.
    pub scan: Option<Uuid>,
    /// When looking at it last ended, however that was.
    pub attempted_at: Option<Timestamp>,
    /// In which scan.
    pub attempted_by: Option<Uuid>,
    /// Why it was not read to its end the last time.
    pub reason: Option<CoverageReason>,
    /// The assets that are known of it.
    pub counts: StatusCounts,
}

#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct CoverageReason {
    /// Stable.
    pub code: String,
    pub detail: String,
    /// With `permission_denied`, where the provider tells.
    pub required_permission: Option<String>,
}

static COVERAGE: Sorting<scope_coverage::Model> = Sorting {
    keys: &[
        SortKey {
            name: "createdAt",
            column: || scope_coverage::Column::CreatedAt.into_expr(),
            nullable: false,
            read: |row| row.created_at.into(),
        },
        SortKey {
            name: "region",
            column: || scope_coverage::Column::Region.into_expr(),
            nullable: false,
            read: |row| row.region.clone().into(),
        },
        SortKey {
            name: "kind",
            column: || scope_coverage::Column::Kind.into_expr(),
            nullable: false,
            read: |row| row.kind.clone().into(),
        },
        SortKey {
            name: "scannedAt",
            column: || scope_coverage::Column::ScannedAt.into_expr(),
            nullable: true,
            read: |row| row.scanned_at.into(),
        },
    ],
    default: "createdAt",
    unique: SortKey {
        name: "id",
        column: || scope_coverage::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Discovery")]
impl CoverageApi {
    /// List what is looked at and what is not
    #[oai(path = "/api/assets/discovery/coverage", method = "get", operation_id = "listCoverage")]
    #[allow(clippy::too_many_arguments, reason = "one argument per documented parameter")]
    async fn list(
        &self,
        caller: Caller<perm::InventoryRead>,
        list: ListParams,
        /// Only scopes that stand like this.
        state: Query<Option<Vec<CoverageState>>>,
        /// Only scopes of these subscriptions.
        subscription: Query<Option<Vec<Uuid>>>,
        /// Only scopes of these providers.
        provider: Query<Option<Vec<ProviderKind>>>,
        /// Only scopes in these regions.
        region: Query<Option<Vec<String>>>,
        /// Only scopes of these kinds of asset.
        kind: Query<Option<Vec<String>>>,
        /// `createdAt` (default), `region`, `kind`, `scannedAt`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<CoverageView>>, ApiError> {
        let _ = sort;
        let mut select = known(&caller.visible());
        if let Some(states) = state.0 {
            select = select.filter(self::state().is_in(states.into_iter().map(CoverageState::as_str)));
        }
        if let Some(subscriptions) = subscription.0 {
            select = select.filter(scope_coverage::Column::SubscriptionId.is_in(subscriptions));
        }
        if let Some(providers) = provider.0 {
            let providers = providers.into_iter().map(types::ProviderKind::from);
            select = select.filter(scope_coverage::Column::Provider.is_in(providers));
        }
        for (column, texts) in [(scope_coverage::Column::Region, region.0), (scope_coverage::Column::Kind, kind.0)] {
            if let Some(texts) = texts {
                select = select.filter(column.is_in(texts));
            }
        }
        let slice = list.fetch(select, &COVERAGE, self.database.reader()).await?;
        let (now, thresholds) = (self.clock.now(), self.settings.current().await?.thresholds);
        let counts = counts::by_scope(&self.database, &slice.rows, thresholds, now).await?;
        let enabled = self.enabled(&slice.rows).await?;
        Ok(Json(slice.into_page(|row| {
            let place = (row.subscription_id, row.region.clone(), row.kind.clone());
            let enabled = enabled.get(&row.subscription_id).copied().unwrap_or_default();
            CoverageView::new(row, enabled, counts.get(&place).copied().unwrap_or_default())
        })))
    }
}

impl CoverageApi {
    async fn enabled(&self, rows: &[scope_coverage::Model]) -> Result<HashMap<Uuid, bool>, ApiError> {
        let ids = rows.iter().map(|row| row.subscription_id);
        let of = subscription::Entity::find()
            .select_only()
            .columns([subscription::Column::Id, subscription::Column::Enabled])
            .filter(subscription::Column::Id.is_in(ids));
        let rows: Vec<(Uuid, bool)> = of.into_tuple().all(self.database.reader()).await?;
        Ok(rows.into_iter().collect())
    }
}

impl CoverageView {
    fn new(row: scope_coverage::Model, enabled: bool, counts: StatusCounts) -> Self {
        Self {
            state: CoverageState::of(&row, enabled),
            id: row.id,
            subscription: row.subscription_id,
            provider: row.provider.into(),
            region: row.region,
            kind: row.kind,
            scanned_at: row.scanned_at.map(Into::into),
            scan: row.scanned_by,
            attempted_at: row.ended_at.map(Into::into),
            attempted_by: row.ended_by,
            reason: row.error_code.map(|code| CoverageReason {
                code,
                detail: row.error_detail.unwrap_or_default(),
                required_permission: row.error_permission,
            }),
            counts,
        }
    }
}

/// The scopes of subscriptions that are there.
fn known(visible: &Scope) -> Select<scope_coverage::Entity> {
    let of: RelationDef = scope_coverage::Relation::Subscription.def();
    scope_coverage::Entity::find()
        .join(JoinType::InnerJoin, of)
        .filter(subscription::Column::DeletedAt.is_null())
        .filter(visible.on(scope_coverage::Column::SubscriptionId))
}

/// SQL for [`CoverageState::of`].
fn state() -> Expr {
    let is = |state: CoverageState| Expr::val(state.as_str());
    CaseStatement::new()
        .case(subscription::Column::Enabled.eq(false), is(CoverageState::Disabled))
        .case(scope_coverage::Column::Planned.eq(false), is(CoverageState::Stale))
        .case(scope_coverage::Column::ThrottledAt.is_not_null(), is(CoverageState::Throttled))
        .case(scope_coverage::Column::ErrorCode.eq(DENIED), is(CoverageState::Denied))
        .case(scope_coverage::Column::ErrorCode.is_not_null(), is(CoverageState::Failed))
        .case(scope_coverage::Column::ScannedAt.is_null(), is(CoverageState::Never))
        .finally(is(CoverageState::Scanned))
        .into()
}
