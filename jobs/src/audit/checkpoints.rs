//! Signing what the log holds.

use super::{
    keys,
    log::{self, LogError, number},
    sequencer::SequenceError,
};
use crate::setup::{database::Database, sealing::Sealing};
use keywright_entities::{audit_checkpoint, audit_log, clock};
use keywright_proof::{checkpoint::Checkpoint, note::Signer, tree::Edge};
use sea_orm::{ActiveValue::Set, ConnectionTrait, DatabaseTransaction, EntityTrait, Statement, sea_query::OnConflict};

/// The size of a checkpoint that covers at least so many events. One of all that have a number is made when there is none: whoever
/// waits for it need not wait until the sequencer finds one due.
///
/// # Errors
/// [`SequenceError`]. That fewer events have a number is none: then the answer is smaller.
pub async fn covering(database: &Database, sealing: &Sealing, events: u64) -> Result<u64, SequenceError> {
    let size = |size: i64| u64::try_from(size).map_err(|_| LogError::Hashes);
    let newest = audit_checkpoint::newest(database.reader()).await?;
    if let Some(newest) = newest.filter(|newest| newest.size >= number(events)) {
        return Ok(size(newest.size)?);
    }
    let signer = keys::signer(database, sealing).await?;
    let write = database.begin().await?;
    // whoever appends moves this row on, and waits for it until this is done
    const STILL: &str = "UPDATE audit_log SET size = size WHERE id = 'log'";
    write.execute_raw(Statement::from_string(database.backend(), STILL)).await?;
    let log = audit_log::get(&*write).await?;
    let size = size(log.size)?;
    let tiles = log::tiles(&*write, Edge::needed(size)).await?;
    let edge = Edge::of(size, &tiles).ok_or(LogError::Hashes)?;
    sign(&write, &signer, &log.origin, &edge).await?;
    write.commit().await?;
    Ok(size)
}

/// Signs the log as it is in this transaction, in which nobody else appends. Where there is a checkpoint of this size already, it is
/// of the same log.
pub(super) async fn sign(
    db: &DatabaseTransaction,
    signer: &Signer,
    origin: &str,
    edge: &Edge,
) -> Result<(), SequenceError> {
    let now = clock::micros(clock::now(db).await?);
    let (size, root) = (edge.size(), edge.frontier().root());
    let checkpoint = Checkpoint { origin: origin.to_owned(), size, root, time: Some(keys::time(now)) };
    let row = audit_checkpoint::ActiveModel {
        size: Set(number(size)),
        note: Set(checkpoint.sign(signer)?.to_string()),
        created_at: Set(now),
    };
    let once = OnConflict::column(audit_checkpoint::Column::Size).do_nothing().to_owned();
    audit_checkpoint::Entity::insert(row).on_conflict(once).exec_without_returning(db).await?;
    Ok(())
}
