//! What people ask of a job while it is under way.

use super::{outcome, row, rows};
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
    if job.due_at.is_some() {
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
    let text = format!(
        "SELECT * FROM job WHERE parent_id = $1 AND completed_at IS NULL ORDER BY id {}",
        for_update(db.get_database_backend())
    );
    let open = rows(db, clock::statement(db.get_database_backend(), &text, [parent.into()])).await?;
    if open.is_empty() {
        return Ok(false);
    }
    // first the parent's mark, so that the last child to end here finds it
    let marked = mark(db, parent).await?;
    for child in &open {
        if child.due_at.is_some() {
            outcome::end_unheld(db, child, JobState::Canceled, None).await?;
        } else {
            mark(db, child.id).await?;
        }
    }
    Ok(marked)
}

/// Tells the attempt that holds the job to stop; returns whether it had not been told before.
async fn mark(db: &impl ConnectionTrait, job: Uuid) -> Result<bool, DbErr> {
    const MARK: &str = "UPDATE job SET state = 'canceling', version = version + 1 \
        WHERE id = $1 AND completed_at IS NULL AND state <> 'canceling'";
    db.execute_raw(clock::statement(db.get_database_backend(), MARK, [job.into()]))
        .await
        .map(|done| done.rows_affected() > 0)
}

async fn locked(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<job::Model>, DbErr> {
    let text = format!("SELECT * FROM job WHERE id = $1 {}", for_update(db.get_database_backend()));
    row(db, clock::statement(db.get_database_backend(), &text, [id.into()])).await
}

fn for_update(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres { "FOR UPDATE" } else { "" }
}
