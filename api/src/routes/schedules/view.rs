//! Schedules as clients see them.

use crate::{
    routes::jobs::view::JobFailure,
    timestamp::Timestamp,
    wire::{CatchUp, RunOutcome},
};
use chrono::{DateTime, Utc};
use keywright_entities::{clock, schedule, schedule_run, user_account};
use keywright_jobs::{domain::schedule::Timing, schedules};
use poem_openapi::{Object, types::Any};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// How many instants are shown ahead.
const SHOWN: usize = 5;

/// A request that is made again and again, by the clock.
#[derive(Debug, Object)]
#[oai(rename = "Schedule", rename_all = "camelCase")]
pub struct ScheduleView {
    pub id: Uuid,
    pub name: String,
    /// Minute, hour, day of month, month, day of week.
    pub cron: String,
    pub time_zone: String,
    /// The kind of job that it starts.
    pub kind: String,
    /// The body of that kind's own request.
    pub body: Any<Value>,
    pub catch_up: CatchUp,
    pub enabled: bool,
    /// The next five instants; none while it is disabled.
    pub next_fire_times: Vec<Timestamp>,
    /// Why it would not fire now although it is enabled. It fires again as soon as the reason is gone.
    pub blocked_reason: Option<JobFailure>,
    /// Whose rights count when it fires: who wrote it last.
    pub owner: ScheduleOwner,
    pub last_run: Option<ScheduleRun>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Object)]
pub struct ScheduleOwner {
    pub id: Uuid,
    /// Null when the user does not exist any more.
    pub name: Option<String>,
}

/// What came of the latest instant.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct ScheduleRun {
    /// The instant of the expression.
    pub due_at: Timestamp,
    /// When it was dealt with.
    pub fired_at: Timestamp,
    pub outcome: RunOutcome,
    /// The job that was started or joined, or that was in the way.
    pub job: Option<Uuid>,
    /// Why no job was started.
    pub reason: Option<JobFailure>,
}

/// What views of schedules need beside the rows.
pub struct Surroundings {
    now: DateTime<Utc>,
    owners: HashMap<Uuid, user_account::Model>,
    runs: HashMap<Uuid, schedule_run::Model>,
}

impl Surroundings {
    /// Those of these schedules.
    pub async fn of(db: &impl ConnectionTrait, rows: &[schedule::Model]) -> Result<Self, DbErr> {
        let owners: Vec<Uuid> = rows.iter().map(|row| row.owner_id).collect();
        let owners = user_account::Entity::find().filter(user_account::Column::Id.is_in(owners)).all(db).await?;
        let runs: Vec<Uuid> = rows.iter().filter_map(|row| row.last_run_id).collect();
        let runs = schedule_run::Entity::find().filter(schedule_run::Column::Id.is_in(runs)).all(db).await?;
        Ok(Self {
            now: clock::now(db).await?,
            owners: owners.into_iter().map(|user| (user.id, user)).collect(),
            runs: runs.into_iter().map(|run| (run.id, run)).collect(),
        })
    }

    pub fn view(&self, row: schedule::Model) -> ScheduleView {
        let owner = self.owners.get(&row.owner_id);
        let run = row.last_run_id.and_then(|id| self.runs.get(&id));
        let blocked = schedules::obstacle(&row, owner).map(|reason| JobFailure {
            code: reason.code,
            detail: reason.detail,
            required_permission: reason.permission,
        });
        ScheduleView {
            id: row.id,
            next_fire_times: ahead(&row, self.now).into_iter().map(Into::into).collect(),
            blocked_reason: blocked,
            owner: ScheduleOwner { id: row.owner_id, name: owner.map(|owner| owner.name.clone()) },
            last_run: run.map(ScheduleRun::from),
            name: row.name,
            cron: row.cron,
            time_zone: row.time_zone,
            kind: row.kind,
            body: Any(row.body),
            catch_up: row.catch_up.into(),
            enabled: row.enabled,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

/// The instant that is stored is the one that will be dealt with; those after it follow from the expression.
fn ahead(row: &schedule::Model, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let Some(next) = row.next_fire_at else { return Vec::new() };
    let Ok(timing) = Timing::parse(&row.cron, &row.time_zone) else { return Vec::new() };
    let stored = (next > now).then_some(next);
    let later = timing.upcoming(stored.unwrap_or(now), SHOWN);
    stored.into_iter().chain(later).take(SHOWN).collect()
}

impl From<&schedule_run::Model> for ScheduleRun {
    fn from(row: &schedule_run::Model) -> Self {
        let detail = row.reason_detail.clone().unwrap_or_default();
        Self {
            due_at: row.due_at.into(),
            fired_at: row.fired_at.into(),
            outcome: row.outcome.into(),
            job: row.job_id,
            reason: row.reason_code.clone().map(|code| JobFailure { code, detail, required_permission: None }),
        }
    }
}
