//! Policies: how things are rotated.

use super::terms::{MethodView, VerifyView};
use crate::{
    answer::{Created, Current, NoContent, expect_version},
    auth::{Caller, Principal, perm},
    context,
    error::{ApiError, FieldError},
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    routes::Tag,
    timestamp::Timestamp,
};
use keywright_entities::{clock, rotation, rotation_policy};
use keywright_jobs::{
    audit::{Event, EventType},
    domain::rotation::Terms,
    setup::{
        database::{Database, Write},
        ids,
    },
};
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::Example,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, IntoActiveModel, ModelTrait, PaginatorTrait, QueryFilter,
    QuerySelect, SqlErr,
};
use serde_json::json;
use uuid::Uuid;

/// Rotation policies.
pub struct PoliciesApi {
    pub database: Database,
}

/// How things are rotated.
#[derive(Debug, Object)]
#[oai(rename = "RotationPolicy", rename_all = "camelCase")]
pub struct PolicyView {
    pub id: Uuid,
    pub name: String,
    /// Nothing new is begun by one that is not.
    pub enabled: bool,
    pub method: MethodView,
    /// Seconds for which both credentials work after the new one became current, and in which it can be rolled back.
    pub grace_seconds: u32,
    /// Seconds between switching the former one off and deleting it.
    pub hold_seconds: u32,
    /// Seconds for which the former one must have been unused before it is switched off, where the provider tells; 0: it need not.
    pub quiet_seconds: u32,
    pub verify: VerifyView,
    /// Somebody else must approve each rotation.
    pub approval: bool,
    /// A target with one slot may be rotated, although for a moment what is stored does not work.
    pub allow_gap: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A policy to be. Everything but the name has a default.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct NewRotationPolicy {
    #[oai(validator(min_length = 1, max_length = 256))]
    pub name: String,
    /// Default `true`.
    pub enabled: Option<bool>,
    /// Default: a random text of 32 letters and digits.
    pub method: Option<MethodView>,
    /// Default 3,600.
    #[oai(validator(maximum(value = "7776000")))]
    pub grace_seconds: Option<u32>,
    /// Default 86,400.
    #[oai(validator(maximum(value = "7776000")))]
    pub hold_seconds: Option<u32>,
    /// Default 3,600.
    #[oai(validator(maximum(value = "7776000")))]
    pub quiet_seconds: Option<u32>,
    /// Default: three in a row, 2 s apart, within 300 s.
    pub verify: Option<VerifyView>,
    /// Default `false`.
    pub approval: Option<bool>,
    /// Default `false`.
    pub allow_gap: Option<bool>,
}

/// A merge patch: what is absent stays as it is.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct RotationPolicyPatch {
    #[oai(validator(min_length = 1, max_length = 256))]
    pub name: Option<String>,
    pub enabled: Option<bool>,
    /// Replaced as a whole.
    pub method: Option<MethodView>,
    #[oai(validator(maximum(value = "7776000")))]
    pub grace_seconds: Option<u32>,
    #[oai(validator(maximum(value = "7776000")))]
    pub hold_seconds: Option<u32>,
    #[oai(validator(maximum(value = "7776000")))]
    pub quiet_seconds: Option<u32>,
    /// Replaced as a whole.
    pub verify: Option<VerifyView>,
    pub approval: Option<bool>,
    pub allow_gap: Option<bool>,
}

impl Example for NewRotationPolicy {
    fn example() -> Self {
        Self { name: "Application secrets".to_owned(), grace_seconds: Some(7200), ..Self::empty(String::new()) }
    }
}

impl NewRotationPolicy {
    fn empty(name: String) -> Self {
        Self {
            name,
            enabled: None,
            method: None,
            grace_seconds: None,
            hold_seconds: None,
            quiet_seconds: None,
            verify: None,
            approval: None,
            allow_gap: None,
        }
    }

    fn patch(self) -> RotationPolicyPatch {
        RotationPolicyPatch {
            name: Some(self.name),
            enabled: self.enabled,
            method: self.method,
            grace_seconds: self.grace_seconds,
            hold_seconds: self.hold_seconds,
            quiet_seconds: self.quiet_seconds,
            verify: self.verify,
            approval: self.approval,
            allow_gap: self.allow_gap,
        }
    }
}

impl RotationPolicyPatch {
    fn apply(self, row: &mut rotation_policy::Model) -> Result<(), ApiError> {
        let mut terms = terms(row)?;
        let mut wrong: Vec<FieldError> = Vec::new();
        if let Some(method) = self.method {
            match method.method() {
                Ok(method) => terms.method = method,
                Err(errors) => wrong.extend(errors),
            }
        }
        if !wrong.is_empty() {
            return Err(ApiError::validation(wrong));
        }
        terms.grace_seconds = self.grace_seconds.unwrap_or(terms.grace_seconds);
        terms.hold_seconds = self.hold_seconds.unwrap_or(terms.hold_seconds);
        terms.quiet_seconds = self.quiet_seconds.unwrap_or(terms.quiet_seconds);
        terms.verify = self.verify.map_or(terms.verify, Into::into);
        terms.approval = self.approval.unwrap_or(terms.approval);
        terms.allow_gap = self.allow_gap.unwrap_or(terms.allow_gap);
        row.name = self.name.unwrap_or_else(|| row.name.clone());
        row.enabled = self.enabled.unwrap_or(row.enabled);
        row.content = json!(terms);
        Ok(())
    }
}

fn terms(row: &rotation_policy::Model) -> Result<Terms, ApiError> {
    serde_json::from_value(row.content.clone()).map_err(ApiError::internal)
}

impl PolicyView {
    fn of(row: rotation_policy::Model) -> Result<Self, ApiError> {
        let terms = terms(&row)?;
        Ok(Self {
            id: row.id,
            name: row.name,
            enabled: row.enabled,
            method: MethodView::from(&terms.method),
            grace_seconds: terms.grace_seconds,
            hold_seconds: terms.hold_seconds,
            quiet_seconds: terms.quiet_seconds,
            verify: VerifyView::from(&terms.verify),
            approval: terms.approval,
            allow_gap: terms.allow_gap,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        })
    }
}

static POLICIES: Sorting<rotation_policy::Model> = Sorting {
    keys: &[SortKey {
        name: "name",
        column: || rotation_policy::Column::Name.into_expr(),
        nullable: false,
        read: |row| row.name.clone().into(),
    }],
    default: "name",
    unique: SortKey {
        name: "id",
        column: || rotation_policy::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Rotation")]
impl PoliciesApi {
    /// List rotation policies
    #[oai(path = "/api/rotation/policies", method = "get", operation_id = "listRotationPolicies")]
    async fn list(
        &self,
        _caller: Caller<perm::RotationRead>,
        list: ListParams,
        /// `name`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<PolicyView>>, ApiError> {
        let _ = sort;
        let mut slice = list.fetch(rotation_policy::Entity::find(), &POLICIES, self.database.reader()).await?;
        let rows = std::mem::take(&mut slice.rows).into_iter();
        let views = rows.map(PolicyView::of).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(slice.holding(views).into_page(|view| view)))
    }

    /// Add a rotation policy
    #[oai(path = "/api/rotation/policies", method = "post", operation_id = "createRotationPolicy")]
    async fn create(
        &self,
        caller: Caller<perm::RotationPoliciesWrite>,
        once: Once,
        body: Json<NewRotationPolicy>,
    ) -> Result<Made<Created<PolicyView>>, ApiError> {
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(replay.stored()),
        };
        match create(&write, &caller, body.0).await {
            Ok((id, view)) => write.commit(Created::versioned(format!("/api/rotation/policies/{id}"), 1, view)).await,
            Err(refusal) => write.refused(refusal).await,
        }
    }

    /// Get a rotation policy
    #[oai(path = "/api/rotation/policies/:id", method = "get", operation_id = "getRotationPolicy")]
    async fn get(&self, _caller: Caller<perm::RotationRead>, id: Path<Uuid>) -> Result<Current<PolicyView>, ApiError> {
        let row = rotation_policy::Entity::find_by_id(id.0).one(self.database.reader()).await?;
        let row = row.ok_or_else(|| ApiError::not_found("rotation policy"))?;
        Ok(Current::at_version(row.version, PolicyView::of(row)?))
    }

    /// Change a rotation policy
    ///
    /// A merge patch (RFC 7396). Rotations that are under way go on as they were begun; plans that were made before are stale.
    #[oai(path = "/api/rotation/policies/:id", method = "patch", operation_id = "updateRotationPolicy")]
    async fn update(
        &self,
        caller: Caller<perm::RotationPoliciesWrite>,
        id: Path<Uuid>,
        /// The version that is to be changed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<RotationPolicyPatch>,
    ) -> Result<Current<PolicyView>, ApiError> {
        let write = self.database.begin().await?;
        match change(&write, &caller, id.0, if_match.0.as_deref(), body.0).await {
            Ok((version, view)) => {
                write.commit().await?;
                Ok(Current::at_version(version, view))
            }
            Err(refusal) => {
                write.rollback().await?;
                Err(refusal)
            }
        }
    }

    /// Remove a rotation policy
    ///
    /// Not while a rotation that it began is under way.
    #[oai(path = "/api/rotation/policies/:id", method = "delete", operation_id = "deleteRotationPolicy")]
    async fn delete(
        &self,
        caller: Caller<perm::RotationPoliciesWrite>,
        id: Path<Uuid>,
        /// The version that is to be removed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<NoContent, ApiError> {
        let write = self.database.begin().await?;
        match remove(&write, &caller, id.0, if_match.0.as_deref()).await {
            Ok(()) => {
                write.commit().await?;
                Ok(NoContent::NoContent)
            }
            Err(refusal) => {
                write.rollback().await?;
                Err(refusal)
            }
        }
    }
}

async fn create(write: &Write, caller: &Principal, new: NewRotationPolicy) -> Result<(Uuid, PolicyView), ApiError> {
    let now = clock::micros(clock::now(&**write).await?);
    let mut row = rotation_policy::Model {
        id: ids::new(),
        name: String::new(),
        enabled: true,
        content: json!(Terms::default()),
        created_at: now,
        updated_at: now,
        version: 1,
    };
    new.patch().apply(&mut row)?;
    let row = row.into_active_model().reset_all().insert(&**write).await.map_err(taken)?;
    event(EventType::RotationPolicyCreated, caller, &row).write(&**write).await?;
    Ok((row.id, PolicyView::of(row)?))
}

async fn change(
    write: &Write,
    caller: &Principal,
    id: Uuid,
    if_match: Option<&str>,
    patch: RotationPolicyPatch,
) -> Result<(i64, PolicyView), ApiError> {
    let mut row = locked(write, id).await?;
    expect_version(if_match, row.version)?;
    patch.apply(&mut row)?;
    row.version += 1;
    row.updated_at = clock::micros(clock::now(&**write).await?);
    let row = row.into_active_model().reset_all().update(&**write).await.map_err(taken)?;
    event(EventType::RotationPolicyUpdated, caller, &row).write(&**write).await?;
    Ok((row.version, PolicyView::of(row)?))
}

async fn remove(write: &Write, caller: &Principal, id: Uuid, if_match: Option<&str>) -> Result<(), ApiError> {
    let row = locked(write, id).await?;
    if if_match.is_none() {
        return Err(ApiError::precondition_required());
    }
    expect_version(if_match, row.version)?;
    let open = rotation::Entity::find()
        .filter(rotation::Column::PolicyId.eq(id))
        .filter(rotation::Column::EndedAt.is_null())
        .count(&**write)
        .await?;
    if open > 0 {
        return Err(ApiError::conflict(format!(
            "{open} rotations that it began are under way: wait for their end, or switch the policy off meanwhile."
        )));
    }
    event(EventType::RotationPolicyDeleted, caller, &row).write(&**write).await?;
    row.delete(&**write).await?;
    Ok(())
}

async fn locked(write: &Write, id: Uuid) -> Result<rotation_policy::Model, ApiError> {
    let row = rotation_policy::Entity::find_by_id(id).lock_exclusive().one(&**write).await?;
    row.ok_or_else(|| ApiError::not_found("rotation policy"))
}

fn taken(error: DbErr) -> ApiError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            ApiError::conflict("There is a rotation policy of this name already.")
        }
        _ => error.into(),
    }
}

fn event(event_type: EventType, caller: &Principal, row: &rotation_policy::Model) -> Event {
    Event::new(event_type, caller.actor(), "rotation_policy")
        .subject(row.id)
        .request(context::request_id())
        .detail("name", row.name.as_str())
        .detail("enabled", row.enabled)
        .detail("terms", row.content.clone())
}
