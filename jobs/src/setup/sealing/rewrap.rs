//! Another key-encryption key takes the place of the old one, while everything goes on.
//!
//! First the canary: from that commit on every process seals under the new key. Then, in small transactions, whatever is under
//! another key. A run that is killed leaves rows under both, which every process with both keys opens; the next run goes on.

use super::{
    KeyEncryptionKey, SealError, Sealing,
    places::{self, Place, Visitor},
};
use crate::{
    audit::{Actor, Event, EventType},
    setup::database::Database,
};
use keywright_entities::sealing_canary;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use std::collections::BTreeSet;
use thiserror::Error;

/// Rows per transaction: few enough that nobody waits long for one of them.
const BATCH: u64 = 100;

/// Why not everything is under the present key. What was done stays done; run it again.
#[derive(Debug, Error)]
pub enum RewrapError {
    #[error("{table} {record}: {reason}")]
    Value { table: String, record: String, reason: SealError },
    #[error("the database cannot be read or written: {0}")]
    Database(#[from] DbErr),
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// The key under which everything is now.
    pub key: String,
    /// How many values were wrapped anew by this run.
    pub values: u64,
}

impl Sealing {
    /// Wraps whatever is not under the configured key anew, the canary first. May run while everything else does, several
    /// times at once, and again after it was killed.
    ///
    /// # Errors
    /// [`RewrapError::Value`] names a value that does not open.
    pub async fn rewrap(&self, db: &Database) -> Result<Rewrapped, RewrapError> {
        let Some((new, old)) = self.0.ring.split_first() else {
            return Ok(Rewrapped { key: String::new(), values: 0 });
        };
        let mut work = Rewrap { db, new, old, values: 0 };
        work.bring_into_force().await?;
        places::visit(&mut work).await?;
        let done = Rewrapped { key: new.id().to_owned(), values: work.values };
        if done.values > 0 {
            let write = db.begin().await?;
            let event = event(EventType::MasterKeyRewrapped, &done.key).detail("values", done.values);
            event.write(&*write).await?;
            write.commit().await?;
        }
        Ok(done)
    }
}

fn event(event: EventType, key: &str) -> Event {
    Event::new(event, Actor::SYSTEM, "master_key").subject(key)
}

struct Rewrap<'a> {
    db: &'a Database,
    new: &'a KeyEncryptionKey,
    old: &'a [KeyEncryptionKey],
    values: u64,
}

impl Rewrap<'_> {
    async fn bring_into_force(&mut self) -> Result<(), RewrapError> {
        let write = self.db.begin().await?;
        // whoever seals holds a share of it until what they sealed is stored
        let canary =
            sealing_canary::Entity::find_by_id(sealing_canary::ID.to_owned()).lock_exclusive().one(&*write).await?;
        if canary.is_none_or(|canary| canary.key_id == self.new.id()) {
            return Ok(write.rollback().await?);
        }
        self.values += self.batch(&*write, &places::canary_place()).await?.1;
        event(EventType::MasterKeyChanged, self.new.id()).write(&*write).await?;
        Ok(write.commit().await?)
    }

    /// How many rows were found, and how many of them were wrapped anew: others replace values meanwhile.
    async fn batch<E>(&self, db: &impl ConnectionTrait, place: &Place<E>) -> Result<(usize, u64), RewrapError>
    where
        E: EntityTrait,
        E::Model: Send + Sync,
    {
        let rows = E::find().filter(place.key_id.ne(self.new.id())).order_by_asc(place.id).limit(BATCH).all(db).await?;
        let mut done = 0;
        for row in &rows {
            let row = (place.read)(row);
            let binding = (place.binding)(&row.record, row.version);
            let mut wrapped = Err(SealError::Refused);
            for old in self.old {
                wrapped = self.new.rewrap(old, &binding, row.sealed);
                if wrapped.is_ok() {
                    break;
                }
            }
            let table = binding.table.to_owned();
            let sealed = wrapped.map_err(|reason| RewrapError::Value { table, record: row.record.clone(), reason })?;
            let update = E::update_many()
                .col_expr(place.key_id, Expr::value(sealed.key_id))
                .col_expr(place.sealed, Expr::value(sealed.bytes))
                .filter(place.id.eq(row.id))
                .filter(place.sealed.eq(row.sealed));
            done += update.exec(db).await?.rows_affected;
        }
        Ok((rows.len(), done))
    }
}

impl Visitor for Rewrap<'_> {
    type Error = RewrapError;

    async fn table<E>(&mut self, place: Place<E>) -> Result<(), RewrapError>
    where
        E: EntityTrait,
        E::Model: Send + Sync,
    {
        loop {
            let write = self.db.begin().await?;
            let (found, done) = self.batch(&*write, &place).await?;
            write.commit().await?;
            self.values += done;
            if found == 0 {
                return Ok(());
            }
        }
    }
}

/// The keys under which anything is sealed.
pub(super) async fn key_ids(db: &impl ConnectionTrait) -> Result<BTreeSet<String>, DbErr> {
    let mut ids = KeyIds { db, found: BTreeSet::new() };
    places::visit(&mut ids).await?;
    Ok(ids.found)
}

struct KeyIds<'a, C> {
    db: &'a C,
    found: BTreeSet<String>,
}

impl<C: ConnectionTrait> Visitor for KeyIds<'_, C> {
    type Error = DbErr;

    async fn table<E>(&mut self, place: Place<E>) -> Result<(), DbErr>
    where
        E: EntityTrait,
        E::Model: Send + Sync,
    {
        let ids: Vec<String> =
            E::find().select_only().column(place.key_id).distinct().into_tuple().all(self.db).await?;
        self.found.extend(ids);
        Ok(())
    }
}
