//! Subscriptions: the accounts, projects and machines that are looked at.

mod credential;
mod endpoints;
mod input;
pub mod questions;
mod rules;
mod service_account_key;

use super::Tag;
use crate::{
    answer::{Created, Current, Found, NoContent, expect_version},
    auth::{Caller, Principal, perm},
    context,
    error::ApiError,
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
    wire::{JobState, ProviderKind},
};
use input::{NewSubscription, SubscriptionPatch};
use keywright_entities::{asset, clock, job_subscription, scope::Scope, subscription, subscription_credential};
use keywright_jobs::{
    audit::{Event, EventType},
    domain::licence::Limit,
    egress::EgressGuard,
    kinds::discovery::{coverage, publish},
    licence::Licence,
    setup::{
        database::{Database, Write},
        ids,
        sealing::Sealing,
    },
};
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::Any,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, QuerySelect, SqlErr, sea_query::Expr,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// Subscriptions.
pub struct SubscriptionsApi {
    pub database: Database,
    /// Where addresses that users enter may lead.
    pub egress: Arc<EgressGuard>,
    pub sealing: Sealing,
    pub licence: Arc<Licence>,
}

/// An account, project, tenant or machine.
#[derive(Debug, Object)]
#[oai(rename = "Subscription", rename_all = "camelCase")]
pub struct SubscriptionView {
    pub id: Uuid,
    pub provider: ProviderKind,
    /// The provider's own id: an AWS account, a Google project, an Azure subscription, a machine's name.
    pub external_id: String,
    pub name: String,
    pub enabled: bool,
    /// Empty: every region that is enabled.
    pub regions: Vec<String>,
    pub tags: BTreeMap<String, String>,
    /// Under the provider's name, its own settings.
    pub settings: Any<Value>,
    pub auth: AuthView,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_scan_at: Option<Timestamp>,
    pub last_scan_state: Option<JobState>,
}

/// As whom the provider is asked; the credential itself is never shown.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct AuthView {
    /// `ambient`, `profile`, `assumeRole` or `stored`.
    pub mode: String,
    pub updated_at: Timestamp,
}

impl From<subscription::Model> for SubscriptionView {
    fn from(row: subscription::Model) -> Self {
        Self {
            regions: row.region_list(),
            tags: serde_json::from_value(row.tags).unwrap_or_default(),
            id: row.id,
            provider: row.provider.into(),
            external_id: row.external_id,
            name: row.name,
            enabled: row.enabled,
            settings: Any(row.settings),
            auth: AuthView { mode: row.auth_mode, updated_at: row.auth_updated_at.into() },
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            last_scan_at: row.last_scan_at.map(Into::into),
            last_scan_state: row.last_scan_state.map(Into::into),
        }
    }
}

static SUBSCRIPTIONS: Sorting<subscription::Model> = Sorting {
    keys: &[
        SortKey {
            name: "createdAt",
            column: || subscription::Column::CreatedAt.into_expr(),
            nullable: false,
            read: |row| row.created_at.into(),
        },
        SortKey {
            name: "name",
            column: || subscription::Column::Name.into_expr(),
            nullable: false,
            read: |row| row.name.clone().into(),
        },
    ],
    default: "createdAt",
    unique: SortKey {
        name: "id",
        column: || subscription::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Subscriptions")]
impl SubscriptionsApi {
    /// List subscriptions
    #[oai(path = "/api/subscriptions", method = "get", operation_id = "listSubscriptions")]
    async fn list(
        &self,
        caller: Caller<perm::InventoryRead>,
        list: ListParams,
        /// Only those of this provider.
        provider: Query<Option<ProviderKind>>,
        /// Only enabled or only disabled ones.
        enabled: Query<Option<bool>>,
        /// `createdAt` (default), `name`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<SubscriptionView>>, ApiError> {
        let _ = sort;
        let mut select = subscription::live().filter(caller.visible().on(subscription::Column::Id));
        if let Some(provider) = provider.0 {
            select = select
                .filter(subscription::Column::Provider.eq(keywright_entities::types::ProviderKind::from(provider)));
        }
        if let Some(enabled) = enabled.0 {
            select = select.filter(subscription::Column::Enabled.eq(enabled));
        }
        Ok(Json(list.fetch(select, &SUBSCRIPTIONS, self.database.reader()).await?.into_page(SubscriptionView::from)))
    }

    /// Add a subscription
    #[oai(path = "/api/subscriptions", method = "post", operation_id = "createSubscription")]
    async fn create(
        &self,
        caller: Caller<perm::SubscriptionsWrite>,
        once: Once,
        body: Json<NewSubscription>,
    ) -> Result<Made<Created<SubscriptionView>>, ApiError> {
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(replay.stored()),
        };
        match self.insert(&write, &caller, body.0).await {
            Ok(row) => {
                let location = format!("/api/subscriptions/{}", row.id);
                write.commit(Created::versioned(location, row.version, row.into())).await
            }
            Err(refusal) => {
                let answer = write.refused(refusal.clone()).await;
                self.note(&caller, None, &refusal).await?;
                answer
            }
        }
    }

    /// Get a subscription
    #[oai(path = "/api/subscriptions/:id", method = "get", operation_id = "getSubscription")]
    async fn get(
        &self,
        caller: Caller<perm::InventoryRead>,
        id: Path<Uuid>,
        /// The version that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<Found<SubscriptionView>, ApiError> {
        let row = find(self.database.reader(), &caller.visible(), id.0).await?;
        Ok(Found::at_version(row.version, if_none_match.0.as_deref(), row.into()))
    }

    /// Change a subscription
    ///
    /// A merge patch (RFC 7396). A region that is taken out makes its assets stale.
    #[oai(path = "/api/subscriptions/:id", method = "patch", operation_id = "updateSubscription")]
    async fn update(
        &self,
        caller: Caller<perm::SubscriptionsWrite>,
        id: Path<Uuid>,
        /// The version that is to be changed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<SubscriptionPatch>,
    ) -> Result<Current<SubscriptionView>, ApiError> {
        let write = self.database.begin().await?;
        let done = self.change(&write, &caller, id.0, if_match.0.as_deref(), body.0).await;
        match write.settle(done).await {
            Ok(changed) => Ok(Current::at_version(changed.version, changed.into())),
            Err(refusal) => {
                self.note(&caller, Some(id.0), &refusal).await?;
                Err(refusal)
            }
        }
    }

    /// Remove a subscription
    ///
    /// Its assets become removed; their history stays. Refused while it is scanned.
    #[oai(path = "/api/subscriptions/:id", method = "delete", operation_id = "deleteSubscription")]
    async fn delete(
        &self,
        caller: Caller<perm::SubscriptionsWrite>,
        id: Path<Uuid>,
        /// The version that is to be removed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<NoContent, ApiError> {
        let write = self.database.begin().await?;
        let done = remove(&write, &caller, id.0, if_match.0.as_deref()).await;
        write.settle(done).await.map(|()| NoContent::NoContent)
    }
}

impl SubscriptionsApi {
    /// Writes to the audit log that an address was refused, if that is what `refusal` says.
    async fn note(&self, caller: &Principal, id: Option<Uuid>, refusal: &ApiError) -> Result<(), ApiError> {
        let Some(event) = endpoints::refusal(caller.actor(), id, refusal) else { return Ok(()) };
        let write = self.database.begin().await?;
        event.write(&*write).await?;
        Ok(write.commit().await?)
    }

    async fn change(
        &self,
        write: &Write,
        caller: &Principal,
        id: Uuid,
        if_match: Option<&str>,
        patch: SubscriptionPatch,
    ) -> Result<subscription::Model, ApiError> {
        let before = find_to_change(write, &caller.visible(), id).await?;
        expect_version(if_match, before.version)?;
        let now = clock::now(&**write).await?;
        let (after, credential) = patch.apply(before.clone(), now, &self.egress)?;
        mark_stale(write, &before, &after).await?;
        let changed = after.into_active_model().reset_all().update(&**write).await?;
        credential.store(&**write, &self.sealing, &changed).await?;
        event(EventType::SubscriptionUpdated, caller, &changed).write(&**write).await?;
        Ok(changed)
    }

    async fn insert(
        &self,
        write: &Write,
        caller: &Principal,
        new: NewSubscription,
    ) -> Result<subscription::Model, ApiError> {
        self.licence.admit(write, Limit::Subscriptions).await?;
        let (row, credential) = new.into_row(ids::new(), clock::now(&**write).await?, &self.egress)?;
        let external_id = row.external_id.clone();
        let row = row.into_active_model().insert(&**write).await.map_err(|error| taken(error, &external_id))?;
        credential.store(&**write, &self.sealing, &row).await?;
        coverage::expected(&**write, &row).await?;
        event(EventType::SubscriptionCreated, caller, &row).write(&**write).await?;
        Ok(row)
    }
}

async fn remove(write: &Write, caller: &Principal, id: Uuid, if_match: Option<&str>) -> Result<(), ApiError> {
    let row = find_to_change(write, &caller.visible(), id).await?;
    if if_match.is_none() {
        return Err(ApiError::precondition_required());
    }
    expect_version(if_match, row.version)?;
    if job_subscription::is_under_way(&**write, row.id).await? {
        return Err(ApiError::conflict("Jobs of this subscription are under way. Cancel them or wait for their end."));
    }
    publish::remove_all_of(write, row.id).await?;
    coverage::forget(&**write, row.id).await?;
    subscription_credential::remove(&**write, row.id).await?;
    let now = clock::now(&**write).await?;
    event(EventType::SubscriptionDeleted, caller, &row).write(&**write).await?;
    let mut row = row.into_active_model();
    row.deleted_at = Set(Some(now));
    row.update(&**write).await?;
    Ok(())
}

/// The live subscription that the caller may see.
async fn find(db: &impl ConnectionTrait, visible: &Scope, id: Uuid) -> Result<subscription::Model, ApiError> {
    let found = subscription::by_id(db, id).await?.filter(|row| visible.allows(row.id));
    found.ok_or_else(|| ApiError::not_found("subscription"))
}

/// The same, and nobody else changes it before this transaction ends: what is merged into it is not lost, and of two changes of
/// one version the second is refused.
async fn find_to_change(db: &DatabaseTransaction, visible: &Scope, id: Uuid) -> Result<subscription::Model, ApiError> {
    let select = subscription::live().filter(subscription::Column::Id.eq(id)).lock_exclusive();
    let found = select.one(db).await?.filter(|row| visible.allows(row.id));
    found.ok_or_else(|| ApiError::not_found("subscription"))
}

fn taken(error: DbErr, external_id: &str) -> ApiError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            ApiError::conflict(format!("There is a subscription for {external_id} of this provider already."))
        }
        _ => error.into(),
    }
}

/// A region that is no longer looked at makes its assets stale, not removed.
async fn mark_stale(
    db: &DatabaseTransaction,
    before: &subscription::Model,
    after: &subscription::Model,
) -> Result<(), DbErr> {
    let kept = after.region_list();
    if kept.is_empty() || kept == before.region_list() {
        return Ok(());
    }
    coverage::narrowed(db, before.id, &kept).await?;
    asset::Entity::update_many()
        .col_expr(asset::Column::Stale, Expr::value(true))
        .filter(asset::Column::SubscriptionId.eq(before.id))
        .filter(asset::Column::RemovedAt.is_null())
        .filter(asset::Column::Region.is_not_in(kept))
        .exec(db)
        .await
        .map(|_| ())
}

fn event(event_type: EventType, caller: &Principal, row: &subscription::Model) -> Event {
    Event::new(event_type, caller.actor(), "subscription")
        .subject(row.id)
        .request(context::request_id())
        .detail("provider", row.provider.as_str())
        .detail("externalId", row.external_id.as_str())
        .detail("enabled", row.enabled)
}
