//! How attempts end, and how a parent ends with its last child. Everything here is fenced by the epoch.

use super::{control, enqueue, lease::Held, line::Back, row};
use crate::kinds;
use keywright_entities::{
    clock, job,
    types::{JobState, WaitingFor},
};
use sea_orm::{ConnectionTrait, DbErr, Value};
use serde_json::{Map, Value as Json};
use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

/// Why a job failed, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: String,
    pub detail: String,
    /// The provider's name of the right that was missing.
    pub permission: Option<String>,
}

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

/// One line for the log.
impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { state, reason: None } => write!(f, "{state}"),
            Self::Ended { state, reason: Some(Reason { code, detail, .. }) } => write!(f, "{state}: {code}: {detail}"),
            Self::FannedOut(children) => write!(f, "goes on in {} parts", children.len()),
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
    let canceling = state_of(db, held).await? == Some(JobState::Canceling);
    match outcome {
        Outcome::Ended { state, reason } => end(db, held, state, reason).await,
        _ if canceling => end(db, held, JobState::Canceled, None).await,
        Outcome::FannedOut(children) => fan_out(db, held, &children).await,
        Outcome::Retry { reason, after } => {
            let also = "error_code = $4, error_detail = $5, error_permission = $6,";
            suspend(db, held, WaitingFor::Retry, after, also, reason_values(Some(reason))).await
        }
        Outcome::Snooze { waiting_for, after } => suspend(db, held, waiting_for, after, UNCOUNTED, []).await,
        Outcome::GivenBack => Back::ready(UNCOUNTED).let_go(db, held, []).await,
    }
}

/// The attempt does not count, and nothing went wrong with it.
const UNCOUNTED: &str = "attempt = attempt - 1, error_code = NULL, error_detail = NULL, error_permission = NULL,";

async fn state_of(db: &impl ConnectionTrait, held: &Held) -> Result<Option<JobState>, DbErr> {
    let lock = if db.get_database_backend() == sea_orm::DbBackend::Postgres { "FOR UPDATE" } else { "" };
    let text = format!("SELECT * FROM job WHERE id = $1 AND epoch = $2 AND lease_until IS NOT NULL {lock}");
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

/// Gives the job its children and lets go of it; it stays `running` until the last of them ends.
async fn fan_out(db: &impl ConnectionTrait, held: &Held, children: &[enqueue::NewJob]) -> Result<bool, DbErr> {
    const PARK: &str = "UPDATE job SET state = CASE WHEN paused_at IS NULL THEN 'running' ELSE 'waiting' END, \
        waiting_for = CASE WHEN paused_at IS NULL THEN NULL ELSE 'pause' END, lease_until = NULL, worker_id = NULL, turn = NULL, epoch = epoch + 1, \
        error_code = NULL, error_detail = NULL, error_permission = NULL, \
        children_total = $3, children_open = $3, version = version + 1 \
        WHERE id = $1 AND epoch = $2 AND lease_until IS NOT NULL RETURNING *";
    let [id, epoch] = held.fence();
    let count = i32::try_from(children.len()).unwrap_or(i32::MAX);
    let values = [id, epoch, count.into()];
    let Some(parent) = row(db, clock::statement(db.get_database_backend(), PARK, values)).await? else {
        return Ok(false);
    };
    for child in children {
        enqueue::enqueue(db, child).await?;
    }
    if children.is_empty() {
        finish_parent(db, parent).await?;
    } else if parent.paused_at.is_some() {
        control::pause_family(db, parent.id).await?;
    }
    Ok(true)
}

async fn end(db: &impl ConnectionTrait, held: &Held, state: JobState, reason: Option<Reason>) -> Result<bool, DbErr> {
    let guard = "epoch = $2 AND lease_until IS NOT NULL";
    end_where(db, guard, held.fence(), state, reason).await
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
    let fence = [job.id.into(), job.epoch.into()];
    db.execute_raw(clock::statement(db.get_database_backend(), counted, fence.clone())).await?;
    end_where(db, guard, fence, state, reason).await.map(|_| ())
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
    let text = format!(
        "UPDATE job SET state = $3, waiting_for = NULL, due_at = NULL, turn = NULL, lease_until = NULL, paused_at = NULL, \
         resume_at = NULL, completed_at = {{now}}, \
         epoch = epoch + 1, error_code = $4, error_detail = $5, error_permission = $6, version = version + 1 \
         WHERE id = $1 AND {guard} RETURNING *"
    );
    let [code, detail, permission] = reason_values(reason);
    let values = [id, epoch, state.as_str().into(), code, detail, permission];
    let Some(ended) = row(db, clock::statement(db.get_database_backend(), &text, values)).await? else {
        return Ok(false);
    };
    kinds::ended(db, &ended).await?;
    if let Some(parent) = ended.parent_id {
        child_ended(db, parent, &ended).await?;
    }
    Ok(true)
}

fn reason_values(reason: Option<Reason>) -> [Value; 3] {
    let (code, detail, permission) = match reason {
        Some(reason) => (Some(reason.code), Some(reason.detail), reason.permission),
        None => (None, None, None),
    };
    [code.into(), detail.into(), permission.into()]
}

/// Counts an ended child in its parent. The row lock of the first update makes the children take turns, so that exactly one
/// of them is the last.
async fn child_ended(db: &impl ConnectionTrait, parent: uuid::Uuid, child: &job::Model) -> Result<(), DbErr> {
    const COUNT: &str = "UPDATE job SET children_open = children_open - 1, \
        children_succeeded = children_succeeded + $2, children_failed = children_failed + $3, \
        children_denied = children_denied + $4, children_canceled = children_canceled + $5, version = version + 1 \
        WHERE id = $1 AND completed_at IS NULL RETURNING *";
    let denied = child.error_code.as_deref() == Some(DENIED);
    let is = |yes: bool| Value::from(i32::from(yes));
    let values = [
        parent.into(),
        is(child.state == JobState::Succeeded),
        is(child.state == JobState::Failed && !denied),
        is(child.state == JobState::Failed && denied),
        is(child.state == JobState::Canceled),
    ];
    let backend = db.get_database_backend();
    let Some(mut parent) = row(db, clock::statement(backend, COUNT, values)).await? else {
        return Ok(());
    };
    let counts = sum_counts(parent.counts.take(), child.counts.as_ref());
    let values = [parent.id.into(), counts.clone().into()];
    db.execute_raw(clock::statement(backend, "UPDATE job SET counts = $2 WHERE id = $1", values)).await?;
    parent.counts = Some(counts);
    if parent.children_open == 0 {
        finish_parent(db, parent).await?;
    }
    Ok(())
}

async fn finish_parent(db: &impl ConnectionTrait, parent: job::Model) -> Result<(), DbErr> {
    let (state, reason) = parent_end(&parent);
    let guard = "epoch = $2 AND lease_until IS NULL AND children_open = 0 AND completed_at IS NULL";
    // a parent may itself be somebody's child
    Box::pin(end_where(db, guard, [parent.id.into(), parent.epoch.into()], state, reason)).await.map(|_| ())
}

/// How a parent ends: all succeeded, none, or some; a cancel that reached a child makes it canceled.
fn parent_end(parent: &job::Model) -> (JobState, Option<Reason>) {
    let total = parent.children_total;
    if parent.state == JobState::Canceling && parent.children_canceled > 0 {
        return (JobState::Canceled, None);
    }
    if parent.children_succeeded == total {
        return (JobState::Succeeded, None);
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
    use super::sum_counts;
    use serde_json::json;

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
