//! Firing schedules. Every worker looks for instants that have come, and none of them leads: whoever locks the schedule's row first
//! deals with its next instant, in one transaction with the job, the run and the audit event, and moves the schedule on.

use crate::{
    audit::{Actor, Event, EventType},
    domain::schedule::{Act, Timing},
    kinds::{self, StartRefused},
    queue::{Enqueued, Requester, outcome::Reason},
    setup::{
        database::{Database, Write},
        ids,
    },
};
use chrono::{DateTime, Utc};
use keywright_entities::{
    clock, schedule, schedule_run,
    types::{ActorType, Outcome, RunOutcome},
    user_account,
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, DbErr, IntoActiveModel};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often a worker looks for instants that have come.
const LOOK: Duration = Duration::from_secs(1);
/// Schedules per look.
const BATCH: u64 = 100;

/// Fires what is due until it is told to stop.
pub async fn run(database: Database, stop: CancellationToken) {
    loop {
        let wait = match fire_due(&database).await {
            Ok(0) => LOOK,
            // perhaps there is more to catch up with
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "due schedules could not be looked for; trying again");
                LOOK
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Deals with the next instant of each schedule for which one has come; tells how many there were.
///
/// # Errors
/// When the database cannot tell them. An error over one schedule is logged, and the others go on.
pub async fn fire_due(database: &Database) -> Result<usize, DbErr> {
    let mut stepped = 0;
    for id in schedule::due(database.reader(), BATCH).await? {
        match step(database, id).await {
            Ok(true) => stepped += 1,
            // somebody else was faster
            Ok(false) => {}
            Err(error) => tracing::warn!(schedule = %id, %error, "a schedule could not be fired; trying again"),
        }
    }
    Ok(stepped)
}

async fn step(database: &Database, id: Uuid) -> Result<bool, DbErr> {
    let write = database.begin().await?;
    let Some(row) = schedule::take_due(&*write, id).await? else { return Ok(false) };
    let Some(due) = row.next_fire_at else { return Ok(false) };
    let now = clock::micros(clock::now(&*write).await?);
    let owner = user_account::by_id(&*write, row.owner_id).await?;
    let mut after = row.clone().into_active_model();
    match (obstacle(&row, owner.as_ref()), Timing::parse(&row.cron, &row.time_zone), owner) {
        (None, Ok(timing), Some(owner)) => {
            let step = timing.step(due, now, row.catch_up);
            let run = match step.act {
                Act::Fire(at) => fire(&write, &row, &owner, at, now).await?,
                Act::Miss(at) => record(&write, &row, missed(at), now).await?,
            };
            if let Some(run) = run {
                after.last_run_id = Set(Some(run));
            }
            after.next_fire_at = Set(step.next);
            after.blocked_at = Set(None);
        }
        (reason, timing, _) => {
            if row.blocked_at.is_none() {
                let code = reason.map(|reason| reason.code);
                let event = event(EventType::ScheduleBlocked, &row).outcome(Outcome::Denied);
                event.detail("reason", code).write(&*write).await?;
                after.blocked_at = Set(Some(now));
            }
            // what falls into this time is not made up for
            after.next_fire_at = Set(timing.ok().and_then(|timing| timing.next_after(now)));
        }
    }
    after.update(&*write).await?;
    write.commit().await?;
    Ok(true)
}

/// Why the schedule does not fire now although it is enabled: its owner may not do what it does, or it cannot be read.
pub fn obstacle(row: &schedule::Model, owner: Option<&user_account::Model>) -> Option<Reason> {
    let reason =
        |code: &str, detail: &str| Reason { code: code.to_owned(), detail: detail.to_owned(), permission: None };
    let Some(owner) = owner else {
        return Some(reason(
            "owner_missing",
            "Its owner does not exist any more. Whoever changes it becomes its owner.",
        ));
    };
    if owner.disabled {
        let detail = "Its owner is disabled. Enable the owner; or whoever changes the schedule becomes its owner.";
        return Some(reason("owner_disabled", detail));
    }
    let Some(permission) = kinds::start_permission(&row.kind) else {
        return Some(reason("unknown_kind", "This version starts no job of this kind for schedules."));
    };
    if !permission.is_of(owner.role) {
        let detail = format!(
            "Its owner lacks the permission {} now. Give the owner a role that has it; or whoever changes the schedule becomes \
             its owner.",
            permission.as_str()
        );
        return Some(Reason {
            permission: Some(permission.as_str().to_owned()),
            ..reason("owner_lacks_permission", &detail)
        });
    }
    let unreadable = Timing::parse(&row.cron, &row.time_zone).is_err();
    unreadable.then(|| reason("timing_invalid", "This version cannot read its cron or its time zone. Set them anew."))
}

/// What came of an instant.
struct Came {
    due: DateTime<Utc>,
    outcome: RunOutcome,
    job: Option<Uuid>,
    reason: Option<(String, String)>,
}

fn missed(due: DateTime<Utc>) -> Came {
    let detail = "No worker looked at the time, and catchUp is none. Instants before it may have been missed as well.";
    Came { due, outcome: RunOutcome::Missed, job: None, reason: Some(("missed".to_owned(), detail.to_owned())) }
}

/// Starts the job of one instant with the owner's rights. `None` when it was started before.
async fn fire(
    write: &Write,
    row: &schedule::Model,
    owner: &user_account::Model,
    due: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<Uuid>, DbErr> {
    if schedule_run::is_there(&**write, row.id, due).await? {
        return Ok(None);
    }
    let requester = Requester {
        actor: ActorType::Schedule,
        id: Some(row.id.to_string()),
        name: Some(row.name.clone()),
        request_id: None,
        traceparent: None,
    };
    let came = match kinds::start(write, &row.kind, &owner.visible(), requester, &row.body).await {
        Ok(Enqueued::New(job)) => Came { due, outcome: RunOutcome::Started, job: Some(job.id), reason: None },
        Ok(Enqueued::Open(job)) => Came { due, outcome: RunOutcome::Joined, job: Some(job.id), reason: None },
        Err(StartRefused::Reason { code, detail, job }) => {
            Came { due, outcome: RunOutcome::Refused, job, reason: Some((code.to_owned(), detail)) }
        }
        Err(StartRefused::Database(error)) => return Err(error),
    };
    let refused = came.outcome == RunOutcome::Refused;
    let mut event = event(EventType::ScheduleFired, row)
        .outcome(if refused { Outcome::Failure } else { Outcome::Success })
        .detail("dueAt", due.to_rfc3339())
        .detail("outcome", came.outcome.as_str())
        .detail("reason", came.reason.as_ref().map(|(code, _)| code.clone()));
    if let Some(job) = came.job {
        event = event.job(job);
    }
    event.write(&**write).await?;
    tracing::info!(schedule = %row.id, due = %due, outcome = %came.outcome, job = ?came.job, "schedule fired");
    record(write, row, came, now).await
}

/// `None` when the instant was dealt with before.
async fn record(write: &Write, row: &schedule::Model, came: Came, now: DateTime<Utc>) -> Result<Option<Uuid>, DbErr> {
    if schedule_run::is_there(&**write, row.id, came.due).await? {
        return Ok(None);
    }
    let (code, detail) = came.reason.unzip();
    let run = schedule_run::ActiveModel {
        id: Set(ids::new()),
        schedule_id: Set(row.id),
        due_at: Set(came.due),
        fired_at: Set(now),
        outcome: Set(came.outcome),
        job_id: Set(came.job),
        reason_code: Set(code),
        reason_detail: Set(detail),
    };
    Ok(Some(run.insert(&**write).await?.id))
}

fn event(event_type: EventType, row: &schedule::Model) -> Event {
    let actor = Actor { actor_type: ActorType::Schedule, id: Some(row.id.to_string()), name: Some(row.name.clone()) };
    Event::new(event_type, actor, "schedule").subject(row.id).detail("kind", row.kind.as_str())
}
