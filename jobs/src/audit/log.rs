//! Reading the log that the sequencer made: events as they are hashed, hashes, and proofs.

use super::{keys, names::committed};
use keywright_entities::{audit_name, audit_outbox, audit_tile};
use keywright_proof::{
    Hash,
    canonical::NotJson,
    event::{ActorRef, AuditEvent, SALT, SubjectRef},
    export::{Name, Names},
    tree::{self, Node, TILE, TileId, Tiles},
};
use sea_orm::{ConnectionTrait, DbErr};
use std::collections::HashMap;
use thiserror::Error;
use uuid::Uuid;

/// Why the log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    NotJson(#[from] NotJson),
    #[error("hashes of the audit log are missing from the database, or are no hashes")]
    Hashes,
}

/// An event with its number, and the names in it that were not erased.
#[derive(Clone, Debug)]
pub struct Logged {
    pub row: audit_outbox::Model,
    pub actor: Option<audit_name::Model>,
    pub subject: Option<audit_name::Model>,
}

impl Logged {
    /// The number; 0 for an event that has none.
    pub fn seq(&self) -> u64 {
        self.row.seq.and_then(|seq| seq.try_into().ok()).unwrap_or_default()
    }

    /// Calls `with` with the event as it is hashed.
    pub fn hashed<T>(&self, with: impl FnOnce(&AuditEvent<'_>) -> T) -> T {
        let hash = |name: &Option<audit_name::Model>| name.as_ref().and_then(committed);
        as_hashed(&self.row, self.seq(), hash(&self.actor), hash(&self.subject), with)
    }

    /// What of the names can be shown.
    pub fn names(&self) -> Names {
        let name = |row: &Option<audit_name::Model>| {
            let row = row.as_ref()?;
            let salt: [u8; SALT] = row.salt.as_deref()?.try_into().ok()?;
            Some(Name::new(&salt, row.name.as_deref()?))
        };
        Names { actor: name(&self.actor), subject: name(&self.subject) }
    }
}

/// The one place that says what of a row is hashed.
pub(super) fn as_hashed<T>(
    row: &audit_outbox::Model,
    seq: u64,
    actor: Option<Hash>,
    subject: Option<Hash>,
    with: impl FnOnce(&AuditEvent<'_>) -> T,
) -> T {
    let (id, at, job) = (row.id.to_string(), keys::time(row.at), row.job_id.map(|id| id.to_string()));
    with(&AuditEvent {
        seq,
        id: &id,
        at: &at,
        event_type: &row.event_type,
        actor: ActorRef { actor_type: row.actor_type.as_str(), id: row.actor_id.as_deref(), name: actor },
        subject: SubjectRef { subject_type: &row.subject_type, id: row.subject_id.as_deref(), name: subject },
        outcome: row.outcome.as_str(),
        request_id: row.request_id.as_deref(),
        job_id: job.as_deref(),
        details: row.details.clone(),
    })
}

/// The rows with their names.
///
/// # Errors
/// When the database cannot be read.
pub async fn with_names(db: &impl ConnectionTrait, rows: Vec<audit_outbox::Model>) -> Result<Vec<Logged>, DbErr> {
    let mut ids: Vec<Uuid> = rows.iter().flat_map(|row| [row.actor_name_id, row.subject_name_id]).flatten().collect();
    ids.sort_unstable();
    ids.dedup();
    let names = if ids.is_empty() { Vec::new() } else { audit_name::by_ids(db, ids).await? };
    let names: HashMap<Uuid, audit_name::Model> = names.into_iter().map(|name| (name.id, name)).collect();
    let name = |id: Option<Uuid>| id.and_then(|id| names.get(&id).cloned());
    let logged =
        |row: audit_outbox::Model| Logged { actor: name(row.actor_name_id), subject: name(row.subject_name_id), row };
    Ok(rows.into_iter().map(logged).collect())
}

/// At most `limit` events from number `from` to before `to`.
///
/// # Errors
/// When the database cannot be read.
pub async fn events(db: &impl ConnectionTrait, from: u64, to: u64, limit: u64) -> Result<Vec<Logged>, DbErr> {
    let rows = audit_outbox::run(db, number(from), number(to), limit).await?;
    with_names(db, rows).await
}

/// A size or number as columns keep it.
pub fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// These tiles, as far as they are there.
///
/// # Errors
/// [`LogError`].
pub async fn tiles(db: &impl ConnectionTrait, ids: impl IntoIterator<Item = TileId>) -> Result<Tiles, LogError> {
    let key = |id: TileId| (i32::try_from(id.level).unwrap_or(i32::MAX), number(id.index));
    let ids: Vec<(i32, i64)> = ids.into_iter().map(key).collect();
    let mut tiles = Tiles::default();
    for row in audit_tile::read(db, &ids).await? {
        let (level, index) = (u32::try_from(row.level).ok(), u64::try_from(row.idx).ok());
        let id = level.zip(index).map(|(level, index)| TileId { level, index }).ok_or(LogError::Hashes)?;
        if !tiles.insert(id, &row.hashes) {
            return Err(LogError::Hashes);
        }
    }
    Ok(tiles)
}

/// The tiles with the hashes of the events from number `from` to `to`.
///
/// # Errors
/// [`LogError`].
pub(super) async fn leaves(db: &impl ConnectionTrait, from: u64, to: u64) -> Result<Tiles, LogError> {
    tiles(db, (from / TILE..=to / TILE).map(|index| TileId { level: 0, index })).await
}

/// The hashes of these subtrees.
///
/// # Errors
/// [`LogError::Hashes`] when one is missing.
pub async fn hashes(db: &impl ConnectionTrait, nodes: &[Node]) -> Result<Vec<Hash>, LogError> {
    let tiles = tiles(db, Tiles::needed(nodes)).await?;
    nodes.iter().map(|node| tiles.hash(*node)).collect::<Option<_>>().ok_or(LogError::Hashes)
}

/// The hash of one event and the proof that it is in the log of `size` events; `None` when there is no such event.
///
/// # Errors
/// [`LogError`].
pub async fn inclusion(
    db: &impl ConnectionTrait,
    event: u64,
    size: u64,
) -> Result<Option<(Hash, Vec<Hash>)>, LogError> {
    let Some(nodes) = tree::inclusion_nodes(event, size) else { return Ok(None) };
    let leaf = Node { level: 0, index: event };
    let tiles = tiles(db, Tiles::needed(nodes.iter().flatten().chain([&leaf]))).await?;
    let proof = tree::inclusion(&nodes, |node| tiles.hash(node)).ok_or(LogError::Hashes)?;
    Ok(Some((tiles.hash(leaf).ok_or(LogError::Hashes)?, proof)))
}

/// The proof that the log of `to` events begins with that of `from`; `None` unless 0 < `from` <= `to`.
///
/// # Errors
/// [`LogError`].
pub async fn consistency(db: &impl ConnectionTrait, from: u64, to: u64) -> Result<Option<Vec<Hash>>, LogError> {
    let Some(nodes) = tree::consistency_nodes(from, to) else { return Ok(None) };
    let tiles = tiles(db, Tiles::needed(nodes.iter().flatten())).await?;
    Ok(Some(tree::consistency(&nodes, |node| tiles.hash(node)).ok_or(LogError::Hashes)?))
}
