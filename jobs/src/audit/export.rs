//! Writing a part of the log so that it can be verified elsewhere, a page at a time.

use super::{
    keys::{self, KeyError},
    log::{self, LogError, Logged, number},
};
use crate::setup::{database::Database, sealing::Sealing};
use chrono::{DateTime, Utc};
use keywright_entities::{audit_checkpoint, audit_log, clock};
use keywright_proof::{
    canonical::NotJson,
    export::{FORMAT, Header, Writer},
    note::{NoteError, Signer},
    tree::{Node, cover},
};
use sea_orm::{DbErr, EntityTrait};
use thiserror::Error;

/// Rows read at once.
const PAGE: u64 = 1000;

/// Why the log cannot be exported, or not to its end.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error("there is no checkpoint yet; a worker makes the first one when it starts")]
    NoCheckpoint,
    #[error("the newest checkpoint covers {covered} events")]
    NotCovered { covered: u64 },
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    NotJson(#[from] NotJson),
    #[error("the end cannot be signed: {0}")]
    Note(#[from] NoteError),
    #[error("event {0} is gone from the database")]
    Missing(u64),
}

/// A part of the log, under the newest checkpoint.
#[derive(Clone, Debug)]
pub struct Part {
    pub from: u64,
    pub to: u64,
    covered: u64,
    checkpoint: String,
    exported_at: String,
    origin: String,
}

impl Part {
    /// The events from number `from` to before `to`; to what the newest checkpoint covers without it.
    ///
    /// # Errors
    /// [`ExportError::NotCovered`] when `to` is beyond that, or before `from`.
    pub async fn of(database: &Database, from: u64, to: Option<u64>) -> Result<Self, ExportError> {
        let db = database.reader();
        // before the checkpoint is chosen: whoever compares it with another one goes by this
        let exported_at = keys::time(clock::now(db).await?);
        let newest = audit_checkpoint::newest(db).await?.ok_or(ExportError::NoCheckpoint)?;
        let covered = u64::try_from(newest.size).map_err(|_| LogError::Hashes)?;
        let to = to.unwrap_or(covered);
        if to > covered || from > to {
            return Err(ExportError::NotCovered { covered });
        }
        let origin = audit_log::get(db).await?.origin;
        Ok(Self { from, to, covered, checkpoint: newest.note, exported_at, origin })
    }

    /// A part that was chosen before: the events from number `from` to before `to`, under the checkpoint of `covered` events. Said to be
    /// exported at `exported_at`, which is not after that checkpoint was chosen, it is the same whenever it is written.
    ///
    /// # Errors
    /// [`ExportError::NoCheckpoint`] when there is none of that size.
    pub async fn chosen(
        database: &Database,
        (from, to, covered): (u64, u64, u64),
        exported_at: DateTime<Utc>,
    ) -> Result<Self, ExportError> {
        let db = database.reader();
        let checkpoint = audit_checkpoint::Entity::find_by_id(number(covered)).one(db).await?;
        let checkpoint = checkpoint.ok_or(ExportError::NoCheckpoint)?.note;
        let origin = audit_log::get(db).await?.origin;
        Ok(Self { from, to, covered, checkpoint, exported_at: keys::time(exported_at), origin })
    }

    /// At most a page of events from number `next` on.
    ///
    /// # Errors
    /// [`ExportError::Missing`] when they do not follow one another.
    pub async fn page(&self, database: &Database, next: u64) -> Result<Vec<Logged>, ExportError> {
        let events = log::events(database.reader(), next, self.to, PAGE).await?;
        if next < self.to && events.is_empty() {
            return Err(ExportError::Missing(next));
        }
        for (wanted, event) in (next..).zip(&events) {
            if event.seq() != wanted {
                return Err(ExportError::Missing(wanted));
            }
        }
        Ok(events)
    }
}

/// An export on its way.
pub struct Export {
    database: Database,
    part: Part,
    signer: Signer,
    writer: Option<Writer>,
    next: u64,
}

impl Export {
    /// Begins it; gives the first bytes.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn begin(database: &Database, sealing: &Sealing, part: Part) -> Result<(Self, Vec<u8>), ExportError> {
        let db = database.reader();
        let header = Header {
            format: FORMAT.to_owned(),
            origin: part.origin.clone(),
            exported_at: part.exported_at.clone(),
            from: part.from,
            to: part.to,
            checkpoint: part.checkpoint.clone(),
            before: log::hashes(db, &cover(0, part.from)).await?,
            after: log::hashes(db, &cover(part.to, part.covered)).await?,
            cut: None,
            keys: keys::history(db).await?,
        };
        let signer = keys::signer(database, sealing).await?;
        let mut out = Vec::new();
        let writer = Some(Writer::begin(&header, &mut out)?);
        let next = part.from;
        Ok((Self { database: database.clone(), part, signer, writer, next }, out))
    }

    /// The next bytes; none after the end.
    ///
    /// # Errors
    /// [`ExportError`]: what came until then is not the whole.
    pub async fn more(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        let mut out = Vec::new();
        if self.next >= self.part.to {
            writer.end(&self.signer, &mut out)?;
            return Ok(Some(out));
        }
        let db = self.database.reader();
        let events = self.part.page(&self.database, self.next).await?;
        let end = self.next + events.len() as u64;
        let mut checkpoints = audit_checkpoint::run(db, number(self.next), number(end), PAGE).await?;
        checkpoints.reverse();
        let tiles = log::leaves(db, self.next, end).await?;
        for event in events {
            let seq = event.seq();
            let stored = tiles.hash(Node { level: 0, index: seq }).ok_or(LogError::Hashes)?;
            event.hashed(|hashed| writer.event(hashed, &stored, &event.names(), &mut out))?;
            while let Some(checkpoint) = checkpoints.pop_if(|checkpoint| checkpoint.size <= number(seq + 1)) {
                writer.checkpoint(&checkpoint.note, &mut out)?;
            }
        }
        (self.next, self.writer) = (end, Some(writer));
        Ok(Some(out))
    }
}
