//! What the end of its job means to a rotation: it is over too, or it stands still until a person decides.

use super::{
    Opened,
    ledger::{self, Also, Change},
};
use crate::{
    audit::Actor,
    domain::rotation::{self as machine, Reason, State},
    queue::outcome::DENIED,
};
use keywright_entities::{clock, job, rotation, types::JobState};
use sea_orm::{ConnectionTrait, DbErr};
use serde_json::json;

/// To be called in the transaction that ends the job.
///
/// # Errors
/// When the database does not take it.
pub async fn ended(db: &impl ConnectionTrait, job: &job::Model) -> Result<(), DbErr> {
    let Some(row) = rotation::of_job_locked(db, job.id).await? else { return Ok(()) };
    let opened = Opened::read(row)?;
    let record = &opened.record;
    if record.state.is_over() || record.state == State::NeedsHuman {
        return Ok(());
    }
    let now = clock::micros(clock::now(db).await?);
    let reason = match (job.state, job.error_code.as_deref()) {
        (JobState::Canceled, _) => Reason::Canceled,
        (_, Some("worker_lost")) => Reason::WorkerLost,
        (_, Some(DENIED)) => Reason::Denied(job.error_permission.clone().unwrap_or_default()),
        (_, code) => Reason::CallFails(code.unwrap_or("job_ended").to_owned()),
    };
    let untouched = record.state == State::Planned && record.begun.is_none() && record.orphan.is_none();
    let record = if untouched {
        machine::enter(record, State::RolledBack, Some(reason), now)
    } else {
        machine::stand_still(record, reason, now)
    };
    let details = json!({"job": job.state.as_str(), "error": job.error_code});
    let (what, actor, also) = ("job ended".to_owned(), Actor::SYSTEM, Also::default());
    let change = Change { of: &opened, record: &record, what, outcome: None, details, by: None, actor, also };
    ledger::write(db, change).await.map(|_| ())
}
