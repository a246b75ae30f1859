//! How attempts end, and how a parent ends with its last child. Everything here is fenced by the epoch.

mod parts;

use super::{HELD, enqueue, lease::Held, line::Back, row, rows};
use crate::{kinds, metrics};
use keywright_entities::{
    clock, job,
    types::{JobState, WaitingFor},
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Value};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{BTreeMap, HashSet},
    fmt::{self, Display, Formatter},
    time::Duration,
};
use uuid::Uuid;

/// Why a job failed, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: String,
    pub detail: String,
    /// The provider's name of the right that was missing.
    pub permission: Option<String>,
}

/// When a job comes back that waits although there is something to do for it: an attempt that only thinks so must not spin.
const AT_ONCE: Duration = Duration::from_millis(200);
/// The code under which a scope counts as denied rather than failed.
pub const DENIED: &str = "permission_denied";

/// What becomes of a job after an attempt.
#[derive(Clone, Debug)]
pub enum Outcome {
    Ended {
        state: JobState,
        reason: Option<Reason>,
    },
    FannedOut(Vec<enqueue::NewJob>),
    /// The job has ended well; its parent gets these further children.
    HandedOver(Vec<enqueue::NewJob>),
    Retry {
        reason: Reason,
        after: Duration,
    },
    Snooze {
        waiting_for: WaitingFor,
        after: Duration,
    },
    /// Given back untouched: the attempt does not count.
    GivenBack,
}

impl Outcome {
    /// Its name among the labels of metrics: one of few.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ended { state, .. } => state.as_str(),
            Self::FannedOut(_) => "fanned_out",
            Self::HandedOver(_) => "handed_over",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::GivenBack => "given_back",
        }
    }

    /// Why it is not what was hoped for.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Ended { reason, .. } => reason.as_ref(),
            Self::Retry { reason, .. } => Some(reason),
            Self::FannedOut(_) | Self::HandedOver(_) | Self::Snooze { .. } | Self::GivenBack => None,
        }
    }
}

/// One line for the log.
impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { state, reason: None } => write!(f, "{state}"),
            Self::Ended { state, reason: Some(Reason { code, detail, .. }) } => write!(f, "{state}: {code}: {detail}"),
            Self::FannedOut(children) => write!(f, "goes on in {} parts", children.len()),
            Self::HandedOver(children) => write!(f, "succeeded: its parent goes on in {} more parts", children.len()),
            Self::Retry { reason, after } => {
                write!(f, "again in {} s: {}: {}", after.as_secs(), reason.code, reason.detail)
            }
            Self::Snooze { waiting_for, after } => write!(f, "waits for {waiting_for} for {} s", after.as_secs()),
            Self::GivenBack => f.write_str("given back"),
        }
    }
}

/// Writes what became of an attempt. `false`: the lease was lost, nothing was written.
pub async fn record(db: &impl ConnectionTrait, held: &Held, outcome: Outcome) -> Result<bool, DbErr> {
    // whoever asked for the end of the job gets it, whatever the attempt made of it, unless it came to its own end
    let state = state_of(db, held).await?;
    let canceling = state == Some(JobState::Canceling);
    match outcome {
        Outcome::Ended { state, reason } => end(db, held, state, reason).await,
        _ if canceling => end(db, held, JobState::Canceled, None).await,
        Outcome::FannedOut(children) => parts::fan_out(db, held, &children).await,
        Outcome::HandedOver(children) => parts::hand_over(db, held, &children).await,
        Outcome::Retry { reason, after } => {
            let also = "error_code = $4, error_detail = $5, error_permission = $6,";
            suspend(db, held, WaitingFor::Retry, after, also, reason_values(Some(reason))).await
        }
        Outcome::Snooze { waiting_for, after } => {
            let at_once = state.is_some() && kinds::waits(db, held.id, waiting_for).await?;
            let after = if at_once { after.min(AT_ONCE) } else { after };
            suspend(db, held, waiting_for, after, UNCOUNTED, []).await
        }
        Outcome::GivenBack => Back::ready(UNCOUNTED).let_go(db, held, []).await,
    }
}

/// The attempt does not count, and nothing went wrong with it.
const UNCOUNTED: &str = "attempt = attempt - 1, error_code = NULL, error_detail = NULL, error_permission = NULL,";

/// Writes what became of several attempts; where it tells `false`, that lease was lost and nothing was written for it.
///
/// Ends share their statements. Everything else, which is rarer, is written one by one.
pub async fn record_all(db: &impl ConnectionTrait, attempts: &[(Held, Outcome)]) -> Result<Vec<bool>, DbErr> {
    let ends: Vec<Json> = attempts
        .iter()
        .filter_map(|(held, outcome)| match outcome {
            Outcome::Ended { state, reason } => Some(json!({
                "id": held.id,
                "epoch": held.epoch,
                "state": state.as_str(),
                "code": reason.as_ref().map(|reason| &reason.code),
                "detail": reason.as_ref().map(|reason| &reason.detail),
                "permission": reason.as_ref().and_then(|reason| reason.permission.as_ref()),
            })),
            _ => None,
        })
        .collect();
    let ended = if ends.is_empty() { HashSet::new() } else { end_all(db, ends).await? };
    let mut recorded = Vec::with_capacity(attempts.len());
    for (held, outcome) in attempts {
        recorded.push(match outcome {
            Outcome::Ended { .. } => ended.contains(&held.id),
            other => record(db, held, other.clone()).await?,
        });
    }
    Ok(recorded)
}

/// Ends the jobs of these attempts and tells which of them it did.
async fn end_all(db: &impl ConnectionTrait, ends: Vec<Json>) -> Result<HashSet<Uuid>, DbErr> {
    let backend = db.get_database_backend();
    let (attempts, returning) = match backend {
        DbBackend::Sqlite => (
            "(SELECT unhex(value ->> 'id', '-') AS id, value ->> 'epoch' AS epoch, value ->> 'state' AS state, \
             value ->> 'code' AS code, value ->> 'detail' AS detail, value ->> 'permission' AS permission \
             FROM json_each($1)) AS attempt",
            "*",
        ),
        _ => (
            "jsonb_to_recordset($1) \
             AS attempt(id uuid, epoch bigint, state text, code text, detail text, permission text)",
            "job.*",
        ),
    };
    let ending = ending("attempt.state", ["attempt.code", "attempt.detail", "attempt.permission"]);
    let text = format!(
        "UPDATE job SET {ending} FROM {attempts} \
         WHERE job.id = attempt.id AND job.epoch = attempt.epoch AND {HELD} RETURNING {returning}"
    );
    let ended = rows(db, clock::statement(backend, &text, [Json::Array(ends).into()])).await?;
    have_ended(db, &ended).await?;
    Ok(ended.iter().map(|job| job.id).collect())
}

async fn state_of(db: &impl ConnectionTrait, held: &Held) -> Result<Option<JobState>, DbErr> {
    let lock = if db.get_database_backend() == DbBackend::Postgres { "FOR UPDATE" } else { "" };
    let text = format!("SELECT * FROM job WHERE id = $1 AND epoch = $2 AND {HELD} {lock}");
    let found = row(db, clock::statement(db.get_database_backend(), &text, held.fence())).await?;
    Ok(found.map(|job| job.state))
}

/// Lets go of the job until a later time.
async fn suspend<const N: usize>(
    db: &impl ConnectionTrait,
    held: &Held,
    waiting_for: WaitingFor,
    after: Duration,
    also: &'static str,
    more: [Value; N],
) -> Result<bool, DbErr> {
    let values = std::iter::once(Value::from(waiting_for.as_str())).chain(more);
    Back { state: "'waiting'", waiting_for: "$3", after, also }.let_go(db, held, values).await
}

async fn end(db: &impl ConnectionTrait, held: &Held, state: JobState, reason: Option<Reason>) -> Result<bool, DbErr> {
    end_where(db, &format!("epoch = $2 AND {HELD}"), held.fence(), state, reason).await
}

/// Ends a job whose lease lapsed, if it is still as it was read.
pub async fn end_lapsed(
    db: &impl ConnectionTrait,
    job: &job::Model,
    state: JobState,
    reason: Option<Reason>,
) -> Result<(), DbErr> {
    let guard = "epoch = $2 AND lease_until < {now}";
    let counted = "UPDATE job SET rescues = rescues + 1 WHERE id = $1 AND epoch = $2 AND lease_until < {now}";
    let fence = || [job.id.into(), job.epoch.into()];
    db.execute_raw(clock::statement(db.get_database_backend(), counted, fence())).await?;
    end_where(db, guard, fence(), state, reason).await.map(|_| ())
}

/// Ends a job that no attempt holds, if it is still as it was read. Tells whether it did.
pub async fn end_unheld(
    db: &impl ConnectionTrait,
    job: &job::Model,
    state: JobState,
    reason: Option<Reason>,
) -> Result<bool, DbErr> {
    let guard = "epoch = $2 AND lease_until IS NULL AND (due_at IS NOT NULL OR resume_at IS NOT NULL)";
    end_where(db, guard, [job.id.into(), job.epoch.into()], state, reason).await
}

async fn end_where(
    db: &impl ConnectionTrait,
    guard: &str,
    [id, epoch]: [Value; 2],
    state: JobState,
    reason: Option<Reason>,
) -> Result<bool, DbErr> {
    let ending = ending("$3", ["$4", "$5", "$6"]);
    let text = format!("UPDATE job SET {ending} WHERE id = $1 AND {guard} RETURNING *");
    let [code, detail, permission] = reason_values(reason);
    let values = [id, epoch, state.as_str().into(), code, detail, permission];
    let Some(ended) = row(db, clock::statement(db.get_database_backend(), &text, values)).await? else {
        return Ok(false);
    };
    have_ended(db, &[ended]).await?;
    Ok(true)
}

/// What follows from the ends of these jobs.
async fn have_ended(db: &impl ConnectionTrait, jobs: &[job::Model]) -> Result<(), DbErr> {
    kinds::ended(db, jobs).await?;
    for job in jobs {
        metrics::finished(&job.kind, job.state);
    }
    let mut families: BTreeMap<Uuid, Vec<&job::Model>> = BTreeMap::new();
    for job in jobs {
        if let Some(parent) = job.parent_id {
            families.entry(parent).or_default().push(job);
        }
    }
    // in the order of their ids, so that no two transactions wait for each other's parents
    for (parent, children) in families {
        children_ended(db, parent, &children).await?;
    }
    Ok(())
}

/// SQL that ends a job; the state and the reason follow as SQL.
fn ending(state: &str, [code, detail, permission]: [&str; 3]) -> String {
    format!(
        "state = {state}, waiting_for = NULL, due_at = NULL, turn = NULL, over_limit = NULL, lease_until = NULL, paused_at = NULL, \
         resume_at = NULL, completed_at = {{now}}, epoch = job.epoch + 1, error_code = {code}, error_detail = {detail}, \
         error_permission = {permission}, version = version + 1"
    )
}

fn reason_values(reason: Option<Reason>) -> [Value; 3] {
    let (code, detail, permission) = match reason {
        Some(reason) => (Some(reason.code), Some(reason.detail), reason.permission),
        None => (None, None, None),
    };
    [code.into(), detail.into(), permission.into()]
}

/// Counts ended children in their parent. The row lock of the first update makes the children take turns, so that exactly one
/// of them is the last.
async fn children_ended(db: &impl ConnectionTrait, parent: Uuid, children: &[&job::Model]) -> Result<(), DbErr> {
    const COUNT: &str = "UPDATE job SET children_open = children_open - $2, \
        children_succeeded = children_succeeded + $3, children_failed = children_failed + $4, \
        children_denied = children_denied + $5, children_canceled = children_canceled + $6, version = version + 1 \
        WHERE id = $1 AND completed_at IS NULL RETURNING *";
    let count = |is: &dyn Fn(&job::Model) -> bool| {
        let number = children.iter().filter(|child| is(child)).count();
        Value::from(i32::try_from(number).unwrap_or(i32::MAX))
    };
    let denied = |child: &job::Model| child.error_code.as_deref() == Some(DENIED);
    let values = [
        parent.into(),
        count(&|_| true),
        count(&|child| child.state == JobState::Succeeded),
        count(&|child| child.state == JobState::Failed && !denied(child)),
        count(&|child| child.state == JobState::Failed && denied(child)),
        count(&|child| child.state == JobState::Canceled),
    ];
    let backend = db.get_database_backend();
    let Some(mut parent) = row(db, clock::statement(backend, COUNT, values)).await? else {
        return Ok(());
    };
    let counts = children.iter().fold(parent.counts.take(), |sum, child| Some(sum_counts(sum, child.counts.as_ref())));
    let values = [parent.id.into(), counts.clone().into()];
    db.execute_raw(clock::statement(backend, "UPDATE job SET counts = $2 WHERE id = $1", values)).await?;
    parent.counts = counts;
    if parent.children_open == 0 {
        let late =
            parent.deadline_at.is_some_and(|deadline| children.iter().any(|child| child.completed_at > Some(deadline)));
        finish_parent(db, parent, late).await?;
    }
    Ok(())
}

async fn finish_parent(db: &impl ConnectionTrait, parent: job::Model, late: bool) -> Result<(), DbErr> {
    let (state, reason) = parent_end(&parent, late);
    let guard = "epoch = $2 AND lease_until IS NULL AND children_open = 0 AND completed_at IS NULL";
    // a parent may itself be somebody's child
    Box::pin(end_where(db, guard, [parent.id.into(), parent.epoch.into()], state, reason)).await.map(|_| ())
}

/// Why a job ends whose deadline has passed.
pub fn too_late(job: &job::Model) -> Reason {
    let detail = match (&job.worker_label, job.started_at) {
        (Some(label), None) => {
            format!("no worker with the label {label} took the job within {} seconds", job.timeout_seconds)
        }
        _ if job.parent_id.is_some() => "the deadline of the job or of what it is a part of has passed".to_owned(),
        _ => format!("the job did not end within {} seconds of its first start", job.timeout_seconds),
    };
    Reason { code: super::TOO_LATE.to_owned(), detail, permission: None }
}

/// How a parent ends: all succeeded, none, or some; a cancel that reached a child makes it canceled. `late`: its deadline has passed.
fn parent_end(parent: &job::Model, late: bool) -> (JobState, Option<Reason>) {
    let total = parent.children_total;
    if parent.state == JobState::Canceling && parent.children_canceled > 0 {
        return (JobState::Canceled, None);
    }
    if parent.children_succeeded == total {
        return (JobState::Succeeded, None);
    }
    if late {
        let state = if parent.children_succeeded > 0 { JobState::Partial } else { JobState::Failed };
        return (state, Some(too_late(parent)));
    }
    if parent.children_succeeded > 0 {
        return (JobState::Partial, None);
    }
    let (code, detail) = if parent.children_denied == total {
        ("all_scopes_denied", "the provider refused every scope; /scopes names the missing permissions")
    } else {
        ("all_scopes_failed", "no scope could be read; /scopes gives the reason of each")
    };
    (JobState::Failed, Some(Reason { code: code.to_owned(), detail: detail.to_owned(), permission: None }))
}

/// Adds up counts by name.
pub fn sum_counts(so_far: Option<Json>, more: Option<&Json>) -> Json {
    let mut sum = match so_far {
        Some(Json::Object(map)) => map,
        _ => Map::new(),
    };
    for (name, value) in more.and_then(Json::as_object).into_iter().flatten() {
        let before = sum.get(name).and_then(Json::as_i64).unwrap_or(0);
        sum.insert(name.clone(), before.saturating_add(value.as_i64().unwrap_or(0)).into());
    }
    Json::Object(sum)
}

#[cfg(test)]
mod tests {
    use super::{json, sum_counts};

    #[test]
    fn counts_add_up_by_name() {
        let first = sum_counts(None, Some(&json!({"found": 3, "created": 1})));
        assert_eq!(
            sum_counts(Some(first.clone()), Some(&json!({"found": 4, "warnings": 2}))),
            json!({"found": 7, "created": 1, "warnings": 2})
        );
        assert_eq!(sum_counts(Some(first.clone()), None), first);
    }
}
