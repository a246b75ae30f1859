//! Jobs that go on in parts.

use super::{end, finish_parent};
use crate::queue::{HELD, control, enqueue, lease::Held, row};
use keywright_entities::{clock, types::JobState};
use sea_orm::{ConnectionTrait, DbErr};

/// Gives the job its children and lets go of it; it stays `running` until the last of them ends.
pub(super) async fn fan_out(
    db: &impl ConnectionTrait,
    held: &Held,
    children: &[enqueue::NewJob],
) -> Result<bool, DbErr> {
    let park = format!(
        "UPDATE job SET state = CASE WHEN paused_at IS NULL THEN 'running' ELSE 'waiting' END, \
        waiting_for = CASE WHEN paused_at IS NULL THEN NULL ELSE 'pause' END, lease_until = NULL, worker_id = NULL, turn = NULL, epoch = epoch + 1, \
        error_code = NULL, error_detail = NULL, error_permission = NULL, \
        children_total = $3, children_open = $3, version = version + 1 \
        WHERE id = $1 AND epoch = $2 AND {HELD} RETURNING *"
    );
    let [id, epoch] = held.fence();
    let count = i32::try_from(children.len()).unwrap_or(i32::MAX);
    let values = [id, epoch, count.into()];
    let Some(parent) = row(db, clock::statement(db.get_database_backend(), &park, values)).await? else {
        return Ok(false);
    };
    enqueue::enqueue_all(db, children).await?;
    if children.is_empty() {
        finish_parent(db, parent, false).await?;
    } else if parent.paused_at.is_some() {
        control::pause_family(db, parent.id).await?;
    }
    Ok(true)
}

/// Gives the parent further children and ends the job, whose row the caller has locked: a child comes before its parent. They are
/// there before the end is counted, so that it is not taken for that of the last.
pub(super) async fn hand_over(
    db: &impl ConnectionTrait,
    held: &Held,
    children: &[enqueue::NewJob],
) -> Result<bool, DbErr> {
    let grow = format!(
        "UPDATE job SET children_total = children_total + $3, children_open = children_open + $3, version = version + 1 \
         WHERE completed_at IS NULL AND id = (SELECT parent_id FROM job WHERE id = $1 AND epoch = $2 AND {HELD}) RETURNING *"
    );
    let [id, epoch] = held.fence();
    let values = [id, epoch, i32::try_from(children.len()).unwrap_or(i32::MAX).into()];
    if let Some(parent) = row(db, clock::statement(db.get_database_backend(), &grow, values)).await? {
        enqueue::enqueue_all(db, children).await?;
        if parent.paused_at.is_some() {
            control::pause_family(db, parent.id).await?;
        }
    }
    end(db, held, JobState::Succeeded, None).await
}
