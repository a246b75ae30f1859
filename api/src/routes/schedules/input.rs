//! What clients may say about a schedule.

use crate::{
    auth::Principal,
    error::{ApiError, FieldError},
    patch::{Patch, merge_object},
    routes::discovery::scan_problems,
    strict::{self, Operations},
    wire::{CatchUp, ScheduleKind},
};
use chrono::{DateTime, Utc};
use keywright_entities::{schedule, types};
use keywright_jobs::{
    domain::schedule::{Fault, Timing},
    setup::database::Write,
};
use poem_openapi::{
    Object,
    types::{Any, ToJSON},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

const UTC: &str = "UTC";
const NOT_CRON: &str =
    "Must be five fields of cron: minute, hour, day of month, month, day of week, as in 30 2 * * MON-FRI.";
const NEVER: &str = "Never comes: no such day exists.";
const NO_ZONE: &str = "Must be a name of the IANA time zone database, as in Europe/Berlin.";

/// A body as JSON has it.
type Members = BTreeMap<String, Any<Value>>;

/// A schedule to be.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct NewSchedule {
    #[oai(validator(min_length = 1, max_length = 256))]
    pub name: String,
    /// Five fields: minute, hour, day of month, month, day of week.
    #[oai(validator(max_length = 256))]
    pub cron: String,
    /// Its name in the IANA time zone database; default `UTC`.
    #[oai(validator(max_length = 64))]
    pub time_zone: Option<String>,
    pub kind: ScheduleKind,
    /// The body of that kind's own request; default `{}`.
    pub body: Option<Members>,
    /// Default `last`.
    pub catch_up: Option<CatchUp>,
    /// Default `true`.
    pub enabled: Option<bool>,
}

impl poem_openapi::types::Example for NewSchedule {
    fn example() -> Self {
        Self {
            name: "Every night".to_owned(),
            cron: "30 2 * * *".to_owned(),
            time_zone: Some("Europe/Berlin".to_owned()),
            kind: ScheduleKind::Scan,
            body: Some(BTreeMap::from([("mode".to_owned(), Any(json!("full")))])),
            catch_up: None,
            enabled: None,
        }
    }
}

/// A merge patch: what is absent stays as it is.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct SchedulePatch {
    #[oai(validator(min_length = 1, max_length = 256))]
    pub name: Option<String>,
    #[oai(validator(max_length = 256))]
    pub cron: Option<String>,
    /// `null`: `UTC`.
    #[oai(validator(max_length = 64))]
    pub time_zone: Patch<String>,
    pub kind: Option<ScheduleKind>,
    /// Merged into the body member by member; `null`: `{}`.
    pub body: Patch<Members>,
    /// `null`: `last`.
    pub catch_up: Patch<CatchUp>,
    pub enabled: Option<bool>,
}

impl NewSchedule {
    /// The row to be [`checked`].
    pub fn into_row(self, id: Uuid, owner: Uuid, now: DateTime<Utc>) -> schedule::Model {
        schedule::Model {
            id,
            name: self.name,
            cron: self.cron,
            time_zone: self.time_zone.unwrap_or_else(|| UTC.to_owned()),
            kind: self.kind.as_str().to_owned(),
            body: json!(self.body.unwrap_or_default()),
            catch_up: self.catch_up.unwrap_or(CatchUp::Last).into(),
            enabled: self.enabled.unwrap_or(true),
            owner_id: owner,
            next_fire_at: None,
            blocked_at: None,
            last_run_id: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }
}

impl SchedulePatch {
    /// The row after the patch, to be [`checked`].
    pub fn apply(self, mut row: schedule::Model, owner: Uuid, now: DateTime<Utc>) -> schedule::Model {
        let timing = (row.cron.clone(), row.time_zone.clone(), row.enabled);
        if let Some(name) = self.name {
            row.name = name;
        }
        if let Some(cron) = self.cron {
            row.cron = cron;
        }
        match self.time_zone {
            Patch::Keep => {}
            Patch::Clear => row.time_zone = UTC.to_owned(),
            Patch::Set(zone) => row.time_zone = zone,
        }
        if let Some(kind) = self.kind {
            row.kind = kind.as_str().to_owned();
        }
        merge_object(&mut row.body, self.body.to_json());
        match self.catch_up {
            Patch::Keep => {}
            Patch::Clear => row.catch_up = types::CatchUp::Last,
            Patch::Set(policy) => row.catch_up = policy.into(),
        }
        row.enabled = self.enabled.unwrap_or(row.enabled);
        if timing != (row.cron.clone(), row.time_zone.clone(), row.enabled) {
            row.next_fire_at = None;
        }
        row.owner_id = owner;
        row.blocked_at = None;
        row.updated_at = now;
        row.version += 1;
        row
    }
}

/// The row with its next instant, once everything is right that the schema cannot say. What is as it was `before` is not looked
/// at again: a schedule whose subscription is gone can still be disabled.
///
/// # Errors
/// 400 that names everything that is wrong.
pub async fn checked(
    write: &Write,
    operations: &Operations,
    caller: &Principal,
    before: Option<&schedule::Model>,
    mut row: schedule::Model,
    now: DateTime<Utc>,
) -> Result<schedule::Model, ApiError> {
    let mut wrong = Vec::new();
    match Timing::parse(&row.cron, &row.time_zone) {
        Ok(timing) => {
            let next = timing.next_after(now);
            if next.is_none() {
                wrong.push(FieldError::new("/cron", "never", NEVER));
            }
            row.next_fire_at = if row.enabled { row.next_fire_at.or(next) } else { None };
        }
        Err(faults) => wrong.extend(faults.into_iter().map(|fault| match fault {
            Fault::Cron => FieldError::new("/cron", "format", NOT_CRON),
            Fault::Zone => FieldError::new("/timeZone", "unknown", NO_ZONE),
        })),
    }
    // it runs as its owner, who may see more than the token that writes it
    if row.body.get("subscriptions").is_none_or(Value::is_null) && caller.sees_less_than_user() {
        let text = "Name the subscriptions: this token may see some of its owner's only.";
        wrong.push(FieldError::new("/body/subscriptions", "required", text));
    }
    if before.is_some_and(|before| before.kind == row.kind && before.body == row.body) {
        strict::refuse(wrong)?;
        return Ok(row);
    }
    // what the kind's own request would refuse
    match ScheduleKind::parse(&row.kind) {
        Some(ScheduleKind::Scan) => {
            let problems = operations.problems_of_body("startScan", &row.body, "/body");
            if problems.is_empty() {
                wrong.extend(scan_problems(&**write, &caller.visible(), &row.body, "/body").await?);
            }
            wrong.extend(problems);
        }
        None => wrong.push(FieldError::new("/kind", "unsupported", "This version starts no such job for schedules.")),
    }
    strict::refuse(wrong)?;
    Ok(row)
}
