//! Schedules: requests that are made again and again, by the clock.

mod input;
mod view;

use super::Tag;
use crate::{
    answer::{Created, Current, NoContent, expect_version},
    auth::{Caller, Principal, perm},
    context,
    error::{ApiError, Code},
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    strict::Operations,
    wire::ScheduleKind,
};
use input::{NewSchedule, SchedulePatch, checked};
use keywright_entities::{clock, schedule, schedule_run};
use keywright_jobs::{
    audit::{Event, EventType},
    kinds, settings,
    setup::{
        database::{Database, Write},
        ids,
    },
};
use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, IntoActiveModel, ModelTrait,
    PaginatorTrait, QueryFilter, QuerySelect, Select,
};
use std::sync::Arc;
use uuid::Uuid;
use view::{ScheduleView, Surroundings};

/// Schedules.
pub struct SchedulesApi {
    pub database: Database,
}

static SCHEDULES: Sorting<schedule::Model> = Sorting {
    keys: &[
        SortKey {
            name: "createdAt",
            column: || schedule::Column::CreatedAt.into_expr(),
            nullable: false,
            read: |row| row.created_at.into(),
        },
        SortKey {
            name: "name",
            column: || schedule::Column::Name.into_expr(),
            nullable: false,
            read: |row| row.name.clone().into(),
        },
    ],
    default: "createdAt",
    unique: SortKey {
        name: "id",
        column: || schedule::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

#[OpenApi(tag = "Tag::Schedules")]
impl SchedulesApi {
    /// List schedules
    #[oai(path = "/api/schedules", method = "get", operation_id = "listSchedules")]
    async fn list(
        &self,
        caller: Caller<perm::SchedulesRead>,
        list: ListParams,
        /// Only those that start this kind of job.
        kind: Query<Option<ScheduleKind>>,
        /// Only enabled or only disabled ones.
        enabled: Query<Option<bool>>,
        /// `createdAt` (default), `name`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<ScheduleView>>, ApiError> {
        let _ = sort;
        let mut select = schedule::visible(self.database.backend(), &caller.visible(), caller.user_id);
        if let Some(kind) = kind.0 {
            select = select.filter(schedule::Column::Kind.eq(kind.as_str()));
        }
        if let Some(enabled) = enabled.0 {
            select = select.filter(schedule::Column::Enabled.eq(enabled));
        }
        let slice = list.fetch(select, &SCHEDULES, self.database.reader()).await?;
        let around = Surroundings::of(self.database.reader(), &slice.rows).await?;
        Ok(Json(slice.into_page(|row| around.view(row))))
    }

    /// Add a schedule
    ///
    /// Its jobs run with the rights that its owner has when it fires; the owner is who wrote it last.
    #[oai(path = "/api/schedules", method = "post", operation_id = "createSchedule")]
    async fn create(
        &self,
        caller: Caller<perm::SchedulesWrite>,
        operations: Data<&Arc<Operations>>,
        once: Once,
        body: Json<NewSchedule>,
    ) -> Result<Made<Created<ScheduleView>>, ApiError> {
        may_start(&caller, body.0.kind.as_str())?;
        let write = match once.begin(&self.database).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(replay.stored()),
        };
        match create(&write, &caller, &operations, body.0).await {
            Ok((row, shown)) => {
                write.commit(Created::versioned(format!("/api/schedules/{}", row.id), row.version, shown)).await
            }
            Err(refusal) => write.refused(refusal).await,
        }
    }

    /// Get a schedule
    #[oai(path = "/api/schedules/:id", method = "get", operation_id = "getSchedule")]
    async fn get(
        &self,
        caller: Caller<perm::SchedulesRead>,
        id: Path<Uuid>,
    ) -> Result<Current<ScheduleView>, ApiError> {
        let row = visible(self.database.backend(), &caller, id.0).one(self.database.reader()).await?;
        let row = row.ok_or_else(|| ApiError::not_found("schedule"))?;
        Ok(Current::at_version(row.version, view(self.database.reader(), row).await?))
    }

    /// Change a schedule
    ///
    /// A merge patch (RFC 7396). Whoever changes it becomes its owner. Another `cron` or `timeZone`, and enabling it, count from
    /// now on: nothing of before is made up for.
    #[oai(path = "/api/schedules/:id", method = "patch", operation_id = "updateSchedule")]
    async fn update(
        &self,
        caller: Caller<perm::SchedulesWrite>,
        operations: Data<&Arc<Operations>>,
        id: Path<Uuid>,
        /// The version that is to be changed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<SchedulePatch>,
    ) -> Result<Current<ScheduleView>, ApiError> {
        let write = self.database.begin().await?;
        let done = change(&write, &caller, &operations, id.0, if_match.0.as_deref(), body.0).await;
        let (version, shown) = write.settle(done).await?;
        Ok(Current::at_version(version, shown))
    }

    /// Remove a schedule
    ///
    /// The jobs that it started stay.
    #[oai(path = "/api/schedules/:id", method = "delete", operation_id = "deleteSchedule")]
    async fn delete(
        &self,
        caller: Caller<perm::SchedulesWrite>,
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

async fn create(
    write: &Write,
    caller: &Principal,
    operations: &Operations,
    new: NewSchedule,
) -> Result<(schedule::Model, ScheduleView), ApiError> {
    let now = clock::micros(clock::now(&**write).await?);
    let row = new.into_row(ids::new(), caller.user_id, now);
    let row = checked(write, operations, caller, None, row, now).await?;
    leave_room(write).await?;
    let row = row.into_active_model().insert(&**write).await?;
    event(EventType::ScheduleCreated, caller, &row).write(&**write).await?;
    let shown = view(&**write, row.clone()).await?;
    Ok((row, shown))
}

async fn change(
    write: &Write,
    caller: &Principal,
    operations: &Operations,
    id: Uuid,
    if_match: Option<&str>,
    patch: SchedulePatch,
) -> Result<(i64, ScheduleView), ApiError> {
    let before = find_to_change(write, caller, id).await?;
    expect_version(if_match, before.version)?;
    let now = clock::micros(clock::now(&**write).await?);
    let after = patch.apply(before.clone(), caller.user_id, now);
    may_start(caller, &after.kind)?;
    let after = checked(write, operations, caller, Some(&before), after, now).await?;
    let changed = after.into_active_model().reset_all().update(&**write).await?;
    event(EventType::ScheduleUpdated, caller, &changed).write(&**write).await?;
    Ok((changed.version, view(&**write, changed).await?))
}

async fn remove(write: &Write, caller: &Principal, id: Uuid, if_match: Option<&str>) -> Result<(), ApiError> {
    let row = find_to_change(write, caller, id).await?;
    if if_match.is_none() {
        return Err(ApiError::precondition_required());
    }
    expect_version(if_match, row.version)?;
    event(EventType::ScheduleDeleted, caller, &row).write(&**write).await?;
    let runs = schedule_run::Entity::delete_many().filter(schedule_run::Column::ScheduleId.eq(row.id));
    runs.exec(&**write).await?;
    row.delete(&**write).await?;
    Ok(())
}

async fn view(db: &impl ConnectionTrait, row: schedule::Model) -> Result<ScheduleView, ApiError> {
    let around = Surroundings::of(db, std::slice::from_ref(&row)).await?;
    Ok(around.view(row))
}

fn visible(backend: DbBackend, caller: &Principal, id: Uuid) -> Select<schedule::Entity> {
    schedule::visible(backend, &caller.visible(), caller.user_id).filter(schedule::Column::Id.eq(id))
}

/// What is there already goes on, however many the settings allow.
async fn leave_room(write: &Write) -> Result<(), ApiError> {
    // locked where there is a limit, so that those who add at the same time count each other
    let Some(_) = settings::read(&**write).await?.limits.schedules else { return Ok(()) };
    let row = keywright_entities::settings::row_locked(&**write).await?;
    let Some(most) = settings::of(&row)?.limits.schedules else { return Ok(()) };
    if schedule::Entity::find().count(&**write).await? < most {
        return Ok(());
    }
    let detail =
        format!("The settings allow {most} schedules, and there are as many. Remove one, or raise limits.schedules.");
    Err(ApiError::new(Code::TooManySchedules, detail))
}

/// Nobody else changes or fires it before this transaction ends.
async fn find_to_change(write: &Write, caller: &Principal, id: Uuid) -> Result<schedule::Model, ApiError> {
    let row = visible(write.get_database_backend(), caller, id).lock_exclusive().one(&**write).await?;
    row.ok_or_else(|| ApiError::not_found("schedule"))
}

/// Nobody has done by the clock what they may not do themselves.
fn may_start(caller: &Principal, kind: &str) -> Result<(), ApiError> {
    match kinds::start_permission(kind) {
        Some(permission) => caller.require(permission),
        None => Ok(()),
    }
}

fn event(event_type: EventType, caller: &Principal, row: &schedule::Model) -> Event {
    Event::new(event_type, caller.actor(), "schedule")
        .subject(row.id)
        .request(context::request_id())
        .detail("name", row.name.as_str())
        .detail("kind", row.kind.as_str())
        .detail("cron", row.cron.as_str())
        .detail("timeZone", row.time_zone.as_str())
        .detail("enabled", row.enabled)
}
