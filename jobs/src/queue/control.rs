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
}

/// Asks for the end of a job and of its children. At once for what is queued; after the current provider call for the rest.
pub async fn cancel(db: &impl ConnectionTrait, id: Uuid) -> Result<Canceled, DbErr> {
    // children first, as their own end locks them before the parent: no two transactions wait for each other in a ring
    cancel_children(db, id).await?;
    let Some(job) = locked(db, id).await? else {
        return Ok(Canceled::NotFound);
    };
    if job.state == JobState::Canceled {
        return Ok(Canceled::Accepted(job));
    }
    if job.state.is_done() {
        return Ok(Canceled::Done(job));
    }
    if job.due_at.is_some() {
        outcome::end_unheld(db, &job, JobState::Canceled, None).await?;
    } else {
        mark(db, id).await?;
        // the parent became a parent between the two looks: then its children are there now
        cancel_children(db, id).await?;
    }
    let now = job::by_id(db, id).await?.unwrap_or(job);
    Ok(Canceled::Accepted(now))
}

async fn cancel_children(db: &impl ConnectionTrait, parent: Uuid) -> Result<(), DbErr> {
    let text = format!(
        "SELECT * FROM job WHERE parent_id = $1 AND completed_at IS NULL ORDER BY id {}",
        for_update(db.get_database_backend())
    );
    let open = rows(db, clock::statement(db.get_database_backend(), &text, [parent.into()])).await?;
    if open.is_empty() {
        return Ok(());
    }
    // first the parent's mark, so that the last child to end here finds it
    mark(db, parent).await?;
    for child in &open {
        if child.due_at.is_some() {
            outcome::end_unheld(db, child, JobState::Canceled, None).await?;
        } else {
            mark(db, child.id).await?;
        }
    }
    Ok(())
}

/// Tells the attempt that holds the job to stop.
async fn mark(db: &impl ConnectionTrait, job: Uuid) -> Result<(), DbErr> {
    const MARK: &str = "UPDATE job SET state = 'canceling', version = version + 1 \
        WHERE id = $1 AND completed_at IS NULL AND state <> 'canceling'";
    db.execute_raw(clock::statement(db.get_database_backend(), MARK, [job.into()])).await.map(|_| ())
}

async fn locked(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<job::Model>, DbErr> {
    let text = format!("SELECT * FROM job WHERE id = $1 {}", for_update(db.get_database_backend()));
    row(db, clock::statement(db.get_database_backend(), &text, [id.into()])).await
}

fn for_update(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres { "FOR UPDATE" } else { "" }
}
