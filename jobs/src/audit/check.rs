//! Checking the log in the database: every event against its hash, the tree against every checkpoint, and the jobs that ended
//! against the events that must tell of it.

use super::{
    Actor, Event, EventType,
    keys::{self, KeyError},
    log::{self, LogError, number},
};
use crate::{
    metrics,
    provider::{Gate, Stopped},
};
use keywright_entities::{
    audit_checkpoint, audit_log, audit_outbox,
    types::{JobState, Outcome},
};
use keywright_proof::{
    Hash,
    checkpoint::Checkpoint,
    log::LogCheck,
    note::{Note, NoteError, Verifier},
    tree::{Frontier, Node},
    verdict::Fault,
};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Rows read at once.
const PAGE: u64 = 1000;

/// What was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub origin: String,
    /// Events up to the last one that has a number.
    pub events: u64,
    pub checkpoints: u64,
    /// Events that the newest checkpoint covers.
    pub covered: u64,
    pub root: Hash,
    /// The first thing that is wrong; none: all is valid.
    pub fault: Option<Fault>,
}

/// Why the log could not be checked; says nothing about it.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Log(#[from] LogError),
    /// The job that checks must end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What a check came to, as it is kept and told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub origin: String,
    pub events: u64,
    pub checkpoints: u64,
    pub covered: u64,
    /// Over the events that were checked, in base64.
    pub root: String,
    pub wrong: Option<Wrong>,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// A stable word.
    pub code: String,
    pub event: Option<u64>,
    pub detail: String,
}

impl From<Checked> for Verdict {
    fn from(checked: Checked) -> Self {
        let wrong = |fault: Fault| Wrong { code: fault.code.to_owned(), event: fault.event, detail: fault.what };
        Self {
            origin: checked.origin,
            events: checked.events,
            checkpoints: checked.checkpoints,
            covered: checked.covered,
            root: checked.root.to_string(),
            wrong: checked.fault.map(wrong),
        }
    }
}

impl Verdict {
    /// What the log itself is told of it.
    pub fn event(&self, actor: Actor) -> Event {
        let outcome = if self.wrong.is_none() { Outcome::Success } else { Outcome::Failure };
        Event::new(EventType::AuditVerified, actor, "audit_log")
            .outcome(outcome)
            .detail("events", self.events)
            .detail("fault", self.wrong.as_ref().map(|wrong| wrong.code.as_str()))
            .detail("at", self.wrong.as_ref().and_then(|wrong| wrong.event))
    }

    /// Tells those who watch this process. Called once for each check, when the log was told.
    pub fn alarm(&self) {
        metrics::audit_verified(self.wrong.is_none());
        if let Some(Wrong { code, event, detail }) = &self.wrong {
            tracing::error!(
                code,
                event,
                detail,
                "the audit log is not what was signed: somebody changed it, or the database lost a part of it"
            );
        }
    }
}

/// Checks all of it as of now, a page at a time; `seen` hears after each how many of how many events were checked. Before each the gate of
/// the job that checks must be passed, where one does.
///
/// # Errors
/// [`CheckError`] when something cannot be read; what is wrong with the log is in the answer.
pub async fn check(
    db: &impl ConnectionTrait,
    gate: Option<&Gate>,
    mut seen: impl FnMut(u64, u64),
) -> Result<Checked, CheckError> {
    let state = audit_log::get(db).await?;
    let size = u64::try_from(state.size).map_err(|_| LogError::Hashes)?;
    let mut run = Run {
        keys: Vec::new(),
        origin: state.origin,
        log: LogCheck::begin(Frontier::default()),
        ahead: Vec::new(),
        checkpoints: 0,
        covered: 0,
    };
    let mut fault = run.events(db, size, gate, &mut seen).await?;
    if fault.is_none() {
        fault = run.beyond(db, size).await?;
    }
    if fault.is_none() {
        fault = unlogged(db).await?;
    }
    Ok(Checked {
        events: run.log.next(),
        checkpoints: run.checkpoints,
        covered: run.covered,
        root: run.log.frontier().root(),
        origin: run.origin,
        fault,
    })
}

struct Run {
    keys: Vec<Verifier>,
    origin: String,
    log: LogCheck,
    /// Checkpoints that the events have not reached yet, the next one last.
    ahead: Vec<audit_checkpoint::Model>,
    checkpoints: u64,
    covered: u64,
}

impl Run {
    async fn events(
        &mut self,
        db: &impl ConnectionTrait,
        size: u64,
        gate: Option<&Gate>,
        seen: &mut impl FnMut(u64, u64),
    ) -> Result<Option<Fault>, CheckError> {
        let mut after = -1;
        loop {
            let from = self.log.next();
            let mut checkpoints = audit_checkpoint::run(db, after, number(size), PAGE).await?;
            // after them: whoever signs one makes its key before
            self.keys = keys::history(db).await?.verifiers();
            checkpoints.reverse();
            let last_page = (checkpoints.len() as u64) < PAGE;
            after = checkpoints.first().map_or(after, |last| last.size);
            // without another page, all up to the end belong to these
            let upto = if last_page { size } else { u64::try_from(after).unwrap_or(size) };
            self.ahead = checkpoints;
            if let Some(fault) = self.until(db, upto, size, gate, seen).await? {
                return Ok(Some(fault));
            }
            if last_page || self.log.next() == from && upto == size {
                return Ok(None);
            }
        }
    }

    /// The events up to one of them, and the checkpoints on the way.
    async fn until(
        &mut self,
        db: &impl ConnectionTrait,
        upto: u64,
        size: u64,
        gate: Option<&Gate>,
        seen: &mut impl FnMut(u64, u64),
    ) -> Result<Option<Fault>, CheckError> {
        if let Err(fault) = self.reached() {
            return Ok(Some(fault));
        }
        while self.log.next() < upto {
            if let Some(gate) = gate {
                gate.pass().await?;
            }
            let from = self.log.next();
            let events = log::events(db, from, upto, PAGE).await?;
            let to = upto.min(from + PAGE);
            let tiles = log::leaves(db, from, to).await?;
            if events.is_empty() {
                let what = format!("the log has {size} events, of which those from {from} on are gone");
                return Ok(Some(Fault::tampered("event_missing", what).at_event(from)));
            }
            for event in events {
                let Some(stored) = tiles.hash(Node { level: 0, index: event.seq() }) else {
                    let what = "its hash is gone from the database";
                    return Ok(Some(Fault::tampered("hash_missing", what).at_event(event.seq())));
                };
                let bytes = event.hashed(|event| event.leaf_bytes()).map_err(LogError::from)?;
                let taken = self.log.event(event.seq(), &bytes, Some(&stored));
                let named = names_belong(&event);
                if let Err(fault) = taken.and(named).and_then(|()| self.reached()) {
                    return Ok(Some(fault));
                }
            }
            seen(self.log.next(), size);
        }
        Ok(None)
    }

    /// Compares with the checkpoints of this size.
    fn reached(&mut self) -> Result<(), Fault> {
        while let Some(row) = self.ahead.pop_if(|row| row.size <= number(self.log.next())) {
            let size = u64::try_from(row.size).unwrap_or_default();
            let wrong = |code, what: String| Fault::tampered(code, format!("the checkpoint of {size} events: {what}"));
            let note: Note =
                row.note.parse().map_err(|error: NoteError| wrong("signature_unreadable", error.to_string()))?;
            let (checkpoint, _) = Checkpoint::verify(&note, &self.keys).map_err(|error| {
                wrong(if error == NoteError::NoKnownKey { "other_key" } else { "signature_wrong" }, error.to_string())
            })?;
            if checkpoint.origin != self.origin || checkpoint.size != size {
                return Err(wrong("other_log", "it is of another log or of another size".to_owned()));
            }
            self.log.checkpoint(&checkpoint)?;
            self.checkpoints += 1;
            self.covered = size;
        }
        Ok(())
    }

    /// Nothing may be signed or numbered that the log does not know of.
    async fn beyond(&self, db: &impl ConnectionTrait, size: u64) -> Result<Option<Fault>, CheckError> {
        // the newest checkpoint first: what is appended meanwhile only makes the log longer
        let newest =
            audit_checkpoint::newest(db).await?.and_then(|row| u64::try_from(row.size).ok()).unwrap_or_default();
        let now = u64::try_from(audit_log::get(db).await?.size).unwrap_or_default();
        if now < size || newest > now {
            let what =
                format!("{newest} events were signed, and the log says that it has {now}: events were cut off its end");
            return Ok(Some(Fault::tampered("log_shrunk", what).at_event(now)));
        }
        let more = audit_outbox::run(db, number(now), i64::MAX, 1).await?;
        let still = u64::try_from(audit_log::get(db).await?.size).unwrap_or_default();
        Ok(more.first().and_then(|row| u64::try_from(row.seq?).ok()).filter(|seq| *seq >= still).map(|seq| {
            Fault::tampered("event_out_of_order", "it has a number that the log has not given").at_event(seq)
        }))
    }
}

fn names_belong(event: &log::Logged) -> Result<(), Fault> {
    let names = event.names();
    let wrong = || {
        Err(Fault::tampered("name_changed", "a name is not the one with which the event was logged")
            .at_event(event.seq()))
    };
    for (row, name) in [(&event.actor, names.actor), (&event.subject, names.subject)] {
        let committed = row.as_ref().and_then(|row| row.commitment.as_deref()).and_then(Hash::from_bytes);
        if name.is_some_and(|name| name.commitment() != committed) {
            return wrong();
        }
    }
    Ok(())
}

/// A job that has ended without an event that tells of it: no hash can show what was never hashed.
async fn unlogged(db: &impl ConnectionTrait) -> Result<Option<Fault>, DbErr> {
    let ends: Vec<String> =
        JobState::ALL.iter().filter(|state| state.is_done()).map(|state| format!("'{}'", state.as_str())).collect();
    let text = format!(
        "SELECT job.id AS id FROM job WHERE job.parent_id IS NULL AND job.state IN ({}) AND NOT EXISTS \
         (SELECT 1 FROM audit_outbox event WHERE event.job_id = job.id AND event.type IN ('job.ended', 'job.canceled')) LIMIT 1",
        ends.join(", ")
    );
    let Some(row) = db.query_one_raw(Statement::from_string(db.get_database_backend(), text)).await? else {
        return Ok(None);
    };
    let job: Uuid = row.try_get("", "id")?;
    Ok(Some(Fault::tampered("event_never_logged", format!("the job {job} has ended, and no event tells of it"))))
}
