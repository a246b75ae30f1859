//! What people ask of a job while it is under way.

use super::{
    line::{READY, READY_WAITS},
    outcome, row, rows,
};
use keywright_entities::{clock, job, types::JobState};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use uuid::Uuid;

/// What came of asking for a job's end.
#[derive(Clone, Debug, PartialEq)]
pub enum Canceled {
    NotFound,
    /// It had ended otherwise before.
    Done(job::Model),
    /// It is canceled now, or will be after the provider call that is under way.
    Accepted(job::Model),
    /// The same, because somebody asked before: nothing was changed.
    Already(job::Model),
    /// Of a rotation whose new credential is already the current one.
    PastPointOfNoReturn(job::Model),
}

/// Asks for the end of a job and of its children. At once for what is queued; after the current provider call for the rest.
pub async fn cancel(db: &impl ConnectionTrait, id: Uuid) -> Result<Canceled, DbErr> {
    // children first, as their own end locks them before the parent: no two transactions wait for each other in a ring
    let mut marked = cancel_children(db, id).await?;
    let Some(job) = locked(db, id).await? else {
        return Ok(Canceled::NotFound);
    };
    if job.state == JobState::Canceled {
        return Ok(if marked { Canceled::Accepted(job) } else { Canceled::Already(job) });
    }
    if job.state.is_done() {
        return Ok(Canceled::Done(job));
    }
    if job.is_unheld() {
        marked |= outcome::end_unheld(db, &job, JobState::Canceled, None).await?;
    } else {
        marked |= mark(db, id).await?;
        // the parent became a parent between the two looks: then its children are there now
        cancel_children(db, id).await?;
    }
    let now = job::by_id(db, id).await?.unwrap_or(job);
    Ok(if marked { Canceled::Accepted(now) } else { Canceled::Already(now) })
}

/// Tells whether the parent had not been told to stop before.
async fn cancel_children(db: &impl ConnectionTrait, parent: Uuid) -> Result<bool, DbErr> {
    let open = open_children(db, parent).await?;
    if open.is_empty() {
        return Ok(false);
    }
    // first the parent's mark, so that the last child to end here finds it
    let marked = mark(db, parent).await?;
    for child in &open {
        if child.is_unheld() {
            outcome::end_unheld(db, child, JobState::Canceled, None).await?;
        } else {
            mark(db, child.id).await?;
        }
    }
    Ok(marked)
}

/// Tells the attempt that holds the job to stop; returns whether it had not been told before. Whoever asks for the same from now on
/// means a new job.
async fn mark(db: &impl ConnectionTrait, job: Uuid) -> Result<bool, DbErr> {
    const MARK: &str = "UPDATE job SET state = 'canceling', waiting_for = NULL, paused_at = NULL, unique_key = NULL, \
        version = version + 1 WHERE id = $1 AND completed_at IS NULL AND state <> 'canceling'";
    db.execute_raw(clock::statement(db.get_database_backend(), MARK, [job.into()]))
        .await
        .map(|done| done.rows_affected() > 0)
}

/// What came of asking that a job rests, or goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Steered {
    NotFound,
    /// It has ended.
    Done(job::Model),
    Accepted(job::Model),
    /// It rested, or went on, already: nothing was changed.
    Already(job::Model),
}

/// Lets a job and its children rest until [`resume`]. What is queued or waiting rests at once; an attempt stops before its next
/// request and is not counted. A job that is being canceled is left alone.
pub async fn pause(db: &impl ConnectionTrait, id: Uuid) -> Result<Steered, DbErr> {
    steer(db, id, true).await
}

/// Lets a job and its children go on: at once, or when they would have been due. The time that it rested does not count towards
/// its deadline.
pub async fn resume(db: &impl ConnectionTrait, id: Uuid) -> Result<Steered, DbErr> {
    steer(db, id, false).await
}

async fn steer(db: &impl ConnectionTrait, id: Uuid, rest: bool) -> Result<Steered, DbErr> {
    // children before their parent, in the order of every transaction that locks both
    let of_children = family(db, id, rest).await?;
    let Some(job) = locked(db, id).await? else {
        return Ok(Steered::NotFound);
    };
    if job.state.is_done() {
        return Ok(Steered::Done(job));
    }
    let changed = if rest { rest_one(db, &job).await? } else { wake_one(db, &job).await? };
    if changed && job.children_total > 0 {
        // children that came between the two looks
        family(db, id, rest).await?;
    }
    let now = job::by_id(db, id).await?.unwrap_or(job);
    Ok(if changed || of_children { Steered::Accepted(now) } else { Steered::Already(now) })
}

/// Lets the open children of a job rest.
pub(super) async fn pause_family(db: &impl ConnectionTrait, parent: Uuid) -> Result<(), DbErr> {
    family(db, parent, true).await.map(|_| ())
}

async fn family(db: &impl ConnectionTrait, parent: Uuid, rest: bool) -> Result<bool, DbErr> {
    let mut changed = false;
    for child in &open_children(db, parent).await? {
        changed |= if rest { rest_one(db, child).await? } else { wake_one(db, child).await? };
    }
    Ok(changed)
}

/// A held job is told, and rests when its attempt has stopped; a parent rests with its children.
async fn rest_one(db: &impl ConnectionTrait, job: &job::Model) -> Result<bool, DbErr> {
    const UNHELD: &str = "state = 'waiting', waiting_for = 'pause', resume_at = COALESCE(due_at, resume_at), due_at = NULL, turn = NULL, over_limit = NULL, \
        epoch = epoch + 1,";
    const PARENT: &str = "state = 'waiting', waiting_for = 'pause',";
    let also = match (job.is_unheld(), job.lease_until) {
        (true, _) => UNHELD,
        (false, Some(_)) => "",
        (false, None) => PARENT,
    };
    let text = format!(
        "UPDATE job SET {also} paused_at = {{now}}, version = version + 1 \
         WHERE id = $1 AND epoch = $2 AND paused_at IS NULL AND completed_at IS NULL AND state <> 'canceling'"
    );
    changed(db, job, &text).await
}

async fn wake_one(db: &impl ConnectionTrait, job: &job::Model) -> Result<bool, DbErr> {
    let backend = db.get_database_backend();
    // a retry that is not due yet waits on; where that is past, it is let into the line as any other; what must still be approved
    // rests on
    let unheld = format!(
        "state = CASE WHEN approval_id IS NOT NULL OR resume_at > {{now}} AND error_code IS NOT NULL THEN 'waiting' \
           ELSE {READY} END, \
         waiting_for = CASE WHEN approval_id IS NOT NULL THEN 'approval' \
           WHEN resume_at > {{now}} AND error_code IS NOT NULL THEN 'retry' ELSE {READY_WAITS} END, \
         due_at = CASE WHEN approval_id IS NULL THEN resume_at END, \
         resume_at = CASE WHEN approval_id IS NOT NULL THEN resume_at END, turn = NULL, epoch = epoch + 1,"
    );
    let also = match (job.is_unheld(), job.lease_until) {
        (true, _) => unheld.as_str(),
        (false, Some(_)) => "",
        (false, None) => "state = 'running', waiting_for = NULL,",
    };
    let deadline = clock::sql_plus_elapsed(backend, "deadline_at", "paused_at");
    let text = format!(
        "UPDATE job SET {also} deadline_at = {deadline}, paused_at = NULL, version = version + 1 \
         WHERE id = $1 AND epoch = $2 AND paused_at IS NOT NULL AND completed_at IS NULL"
    );
    changed(db, job, &text).await
}

/// Locks the job's row until the caller's transaction ends: no attempt begins or lets go of it meanwhile.
pub async fn held_still(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<job::Model>, DbErr> {
    locked(db, id).await
}

/// Lets a job that waits for a time to come go on now. One that is under way, paused or not yet approved is left alone.
pub async fn hurry(db: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    const HURRY: &str =
        "UPDATE job SET due_at = {now}, version = version + 1 WHERE id = $1 AND due_at > {now} AND turn IS NULL";
    db.execute_raw(clock::statement(db.get_database_backend(), HURRY, [id.into()])).await.map(|_| ())
}

async fn changed(db: &impl ConnectionTrait, job: &job::Model, text: &str) -> Result<bool, DbErr> {
    let values = [job.id.into(), job.epoch.into()];
    let done = db.execute_raw(clock::statement(db.get_database_backend(), text, values)).await?;
    Ok(done.rows_affected() > 0)
}

async fn open_children(db: &impl ConnectionTrait, parent: Uuid) -> Result<Vec<job::Model>, DbErr> {
    let backend = db.get_database_backend();
    let text =
        format!("SELECT * FROM job WHERE parent_id = $1 AND completed_at IS NULL ORDER BY id {}", for_update(backend));
    rows(db, clock::statement(backend, &text, [parent.into()])).await
}

async fn locked(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<job::Model>, DbErr> {
    let text = format!("SELECT * FROM job WHERE id = $1 {}", for_update(db.get_database_backend()));
    row(db, clock::statement(db.get_database_backend(), &text, [id.into()])).await
}

fn for_update(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres { "FOR UPDATE" } else { "" }
}
