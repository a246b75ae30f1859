//! Jobs that rest until somebody else approves them: whatever else is asked of them, they come into the line by [`let_in`] alone.

use super::line::{READY, READY_WAITS};
use keywright_entities::{clock, job};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QuerySelect, Value};
use uuid::Uuid;

/// Holds a job that was put into the queue in this same transaction. `false`: it is not waiting to be claimed.
pub(crate) async fn hold(db: &impl ConnectionTrait, job: Uuid, approval: Uuid) -> Result<bool, DbErr> {
    const HOLD: &str = "UPDATE job SET state = 'waiting', waiting_for = 'approval', approval_id = $2, resume_at = due_at, \
        due_at = NULL, turn = NULL, epoch = epoch + 1, version = version + 1 \
        WHERE id = $1 AND due_at IS NOT NULL AND approval_id IS NULL";
    changed(db, HOLD, [job.into(), approval.into()]).await
}

/// Lets the job go on as if it were asked for now: into the line, beside it when its time is to come, or at rest when it is
/// paused. `false`: it does not wait for this approval any more.
pub(crate) async fn let_in(db: &impl ConnectionTrait, job: Uuid, approval: Uuid) -> Result<bool, DbErr> {
    let backend = db.get_database_backend();
    // nor does the wait count towards its deadline
    let deadline = clock::sql_plus_elapsed(backend, "deadline_at", "created_at");
    let later = "CASE WHEN resume_at > {now} THEN resume_at ELSE {now} END";
    let text = format!(
        "UPDATE job SET approval_id = NULL, \
         state = CASE WHEN paused_at IS NULL THEN {READY} ELSE state END, \
         waiting_for = CASE WHEN paused_at IS NULL THEN {READY_WAITS} ELSE 'pause' END, \
         due_at = CASE WHEN paused_at IS NULL THEN {later} END, \
         resume_at = CASE WHEN paused_at IS NULL THEN NULL ELSE {later} END, \
         deadline_at = {deadline}, epoch = epoch + 1, version = version + 1 \
         WHERE id = $1 AND approval_id = $2 AND completed_at IS NULL"
    );
    changed(db, &text, [job.into(), approval.into()]).await
}

/// Locks the job's row: who locks a job and its approval locks them in this order.
pub(crate) async fn lock(db: &impl ConnectionTrait, job: Uuid) -> Result<(), DbErr> {
    job::Entity::find_by_id(job).lock_exclusive().one(db).await.map(|_| ())
}

async fn changed(db: &impl ConnectionTrait, text: &str, values: [Value; 2]) -> Result<bool, DbErr> {
    let done = db.execute_raw(clock::statement(db.get_database_backend(), text, values)).await?;
    Ok(done.rows_affected() > 0)
}
