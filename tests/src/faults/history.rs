//! Somebody who looks at the job table all the time: what holds at the end may have been broken on the way.

use super::checker::{Breach, breach};
use keywright_entities::{
    job,
    types::{
        JobState::{Canceling, Queued, Running, Waiting},
        WaitingFor,
    },
};
use keywright_jobs::setup::database::Database;
use sea_orm::EntityTrait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

const LOOK: Duration = Duration::from_millis(100);

/// Looks until it is dropped.
pub struct History {
    breaches: Arc<Mutex<Vec<Breach>>>,
    looking: JoinHandle<()>,
}

impl History {
    pub fn begin(db: Database) -> Self {
        let breaches = Arc::new(Mutex::default());
        let looking = tokio::spawn(look(db, Arc::clone(&breaches)));
        Self { breaches, looking }
    }

    /// What was seen that must not be.
    pub fn breaches(&self) -> Vec<Breach> {
        self.breaches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(db: Database, breaches: Arc<Mutex<Vec<Breach>>>) {
    let mut seen = HashMap::new();
    loop {
        // the database may be away: that is one of the faults
        if let Ok(rows) = job::Entity::find().all(db.reader()).await {
            let mut found = Vec::new();
            for row in rows {
                compare(&mut found, &seen, &row);
                seen.insert(row.id, row);
            }
            breaches.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn compare(breaches: &mut Vec<Breach>, seen: &HashMap<Uuid, job::Model>, row: &job::Model) {
    if let Err(why) = shape(row) {
        breaches.push(breach(
            "every job is due, held, at rest, a parent of open children, or done",
            format!("{why}: {row:?}"),
        ));
    }
    let Some(before) = seen.get(&row.id) else { return };
    let changed = |what: &str| breach("jobs change only as they may", format!("{what}: {before:?} became {row:?}"));
    if row.epoch < before.epoch || row.version < before.version || row.rescues < before.rescues {
        breaches.push(changed("epoch, version or rescues went back"));
    }
    let same_hold = row.epoch == before.epoch && row.lease_until.is_some() && before.lease_until.is_some();
    if same_hold && (row.worker_id != before.worker_id || row.attempt != before.attempt) {
        breaches.push(changed("another attempt under the same epoch"));
    }
    let outcome = |job: &job::Model| (job.state, job.completed_at, job.attempt, job.epoch, job.error_code.clone());
    if before.completed_at.is_some() && outcome(before) != outcome(row) {
        breaches.push(changed("a second outcome"));
    }
}

/// Whether a row is in exactly one of the five situations that there are.
pub fn shape(row: &job::Model) -> Result<(), &'static str> {
    if !(0..=row.max_attempts).contains(&row.attempt) {
        return Err("attempt is out of bounds");
    }
    let state_fits = match (row.due_at, row.lease_until, row.completed_at) {
        (Some(_), None, None) => matches!(row.state, Queued | Waiting),
        (None, Some(_), None) => matches!(row.state, Running | Canceling) && row.worker_id.is_some(),
        (None, None, None) if row.paused_at.is_some() => {
            // it goes on in its line, or with its children
            (row.state, row.waiting_for) == (Waiting, Some(WaitingFor::Pause))
                && row.resume_at.is_some() != (row.children_open > 0)
        }
        (None, None, None) => row.children_open > 0 && matches!(row.state, Running | Canceling),
        (None, None, Some(_)) => row.state.is_done() && row.children_open == 0,
        _ => false,
    };
    if state_fits { Ok(()) } else { Err("the state and the times do not fit") }
}
