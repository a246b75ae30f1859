//! Sealing: everything secret that the database keeps is encrypted under a key that the database does not hold.
//!
//! Envelope encryption: each record has a data key of its own, which is wrapped under the key-encryption key, so that a new
//! key-encryption key needs only the wraps to be made anew. Both layers are bound to where the record is stored, so that a
//! sealed value that was moved to another row or column, or put back after it was replaced, does not open.
//!
//! One row, the canary, is opened at every start: a process with another key refuses to run before it can write anything. The
//! canary also says which key is in force: while a new key-encryption key takes the old one's place, processes have both, open
//! what is under either, and seal under the canary's.

mod envelope;
mod master_key;
pub mod places;
mod rewrap;

pub use envelope::{Binding, KeyEncryptionKey, SealError, Sealed};
pub use master_key::MasterKeyError;
pub use rewrap::{RewrapError, Rewrapped};

use super::{
    config::{MasterKeySource, MasterKeys},
    database::Database,
    ids::{self, NoRandomness},
};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use keywright_entities::{clock, sealing_canary};
use places::INSTANCE;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QuerySelect, Set, sea_query::OnConflict};
use secrecy::{ExposeSecret, SecretSlice};
use std::{path::PathBuf, sync::Arc};
use thiserror::Error;
use zeroize::Zeroizing;

/// Seals and opens the secrets of one instance. Has neither `Debug` nor `Serialize`.
#[derive(Clone)]
pub struct Sealing(Arc<Keys>);

struct Keys {
    /// The configured key, and the previous one if there is one.
    ring: Vec<KeyEncryptionKey>,
    instance: SecretSlice<u8>,
}

/// Why the secrets of this database cannot be used. Nothing was changed.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(
        "the key-encryption key is not the one this database was sealed with (given: {given}, needed: {needed}). Nothing \
         was changed. Start with the original KEYWRIGHT_MASTER_KEY, KEYWRIGHT_MASTER_KEY_FILE or KEYWRIGHT_MASTER_KEY_KMS, or \
         restore master.key in the data directory from its backup; without it the sealed secrets cannot be recovered"
    )]
    WrongKey { given: String, needed: String },
    #[error(
        "this database was sealed with the key-encryption key {needed}, and there is no key in {path}. Nothing was changed and no \
         new key was made. Restore the file from its backup, or name the data directory that holds it with \
         KEYWRIGHT_DATA_DIR; without it the sealed secrets cannot be recovered"
    )]
    Lost { path: PathBuf, needed: String },
    #[error(
        "some values of this database are still sealed with the key-encryption key {needed} (given: {given}). Nothing was changed. \
         Give that key as KEYWRIGHT_MASTER_KEY_PREVIOUS and let `keywright-api rewrap` come to its end first"
    )]
    StillNeeded { given: String, needed: String },
    #[error(
        "KEYWRIGHT_MASTER_KEY_PREVIOUS is the same key as the present one ({0}); remove it, or give the key before"
    )]
    SameKey(String),
    #[error("a secret could not be sealed: {0}")]
    Seal(#[from] SealError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("the canary cannot be read or written: {0}")]
    Database(#[from] DbErr),
}

impl StartError {
    /// Whether starting again without a change of the configuration is of no use.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::MasterKey(error) => error.is_configuration(),
            Self::WrongKey { .. } | Self::Lost { .. } | Self::StillNeeded { .. } | Self::SameKey(_) => true,
            Self::Seal(_) | Self::NoRandomness(_) | Self::Database(_) => false,
        }
    }
}

impl Sealing {
    /// Takes the keys and proves with the canary that they are this database's; makes the key, where that is allowed, and the
    /// canary when there are none yet. The schema must be current.
    ///
    /// # Errors
    /// [`StartError::WrongKey`] when another key sealed this database.
    pub async fn start(db: &Database, keys: impl Into<MasterKeys>) -> Result<Self, StartError> {
        let keys = keys.into();
        let canary = sealing_canary::get(db.reader()).await?;
        let previous = match &keys.previous {
            Some(previous) => Some(previous.load(db, false).await.map_err(MasterKeyError::previous)?),
            None => None,
        };
        // a new database, or one whose key is to be replaced: otherwise a new key opens nothing
        let may_make = canary
            .as_ref()
            .is_none_or(|canary| previous.as_ref().is_some_and(|previous| previous.id() == canary.key_id));
        if let (MasterKeySource::Local(path), Some(canary), false) = (&keys.current, &canary, may_make)
            && !path.exists()
        {
            return Err(StartError::Lost { path: path.clone(), needed: canary.key_id.clone() });
        }
        let mut ring = vec![keys.current.load(db, may_make).await?];
        if let Some(previous) = previous {
            if ring.iter().any(|key| key.id() == previous.id()) {
                return Err(StartError::SameKey(previous.id().to_owned()));
            }
            ring.push(previous);
        }
        let given = || ring.iter().map(KeyEncryptionKey::id).collect::<Vec<_>>().join(" and ");
        let unknown = |id: &str| ring.iter().all(|key| key.id() != id);
        let canary = match (canary, ring.first()) {
            (Some(canary), _) => canary,
            (None, Some(first)) => match rewrap::key_ids(db.reader()).await?.into_iter().find(|id| unknown(id)) {
                // somebody took the canary away, which does not make another key the right one
                Some(needed) => return Err(StartError::WrongKey { given: given(), needed }),
                None => make_canary(db, first).await?,
            },
            (None, None) => return Err(SealError::Cipher.into()),
        };
        let wrong = || StartError::WrongKey { given: given(), needed: canary.key_id.clone() };
        let kek = ring.iter().find(|key| key.id() == canary.key_id).ok_or_else(wrong)?;
        let instance = kek.open(&INSTANCE, &canary.sealed_secret).map_err(|_| wrong())?;
        if let Some(needed) = rewrap::key_ids(db.reader()).await?.into_iter().find(|id| unknown(id)) {
            return Err(StartError::StillNeeded { given: given(), needed });
        }
        Ok(Self(Arc::new(Keys { ring, instance })))
    }

    /// The same for a process that is not the first: `None` while the local key is still to be made by `keywright-api`.
    ///
    /// # Errors
    /// As [`Sealing::start`].
    pub async fn join(db: &Database, keys: impl Into<MasterKeys>) -> Result<Option<Self>, StartError> {
        let keys = keys.into();
        if let MasterKeySource::Local(path) = &keys.current
            && !path.exists()
            && (keys.previous.is_some() || sealing_canary::get(db.reader()).await?.is_none())
        {
            return Ok(None);
        }
        Self::start(db, keys).await.map(Some)
    }

    /// Encrypts `secret` so that it opens only where `binding` says, under the key in force. `db` is the transaction that stores
    /// it: until its end no other key comes into force.
    ///
    /// # Errors
    /// [`SealError`] when the system gives no randomness, and when this process does not have the key in force.
    pub async fn seal(
        &self,
        db: &impl ConnectionTrait,
        binding: &Binding<'_>,
        secret: &[u8],
    ) -> Result<Sealed, SealError> {
        let canary = sealing_canary::Entity::find_by_id(sealing_canary::ID.to_owned()).lock_shared().one(db).await?;
        let needed = canary.map(|canary| canary.key_id).unwrap_or_default();
        match self.0.ring.iter().find(|key| key.id() == needed) {
            Some(key) => key.seal(binding, secret),
            None => Err(SealError::Superseded { needed }),
        }
    }

    /// Decrypts what [`Sealing::seal`] made for the same binding.
    ///
    /// # Errors
    /// [`SealError`] when it was sealed for another place or under another key, or was changed since.
    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let mut last = SealError::Refused;
        for key in &self.0.ring {
            match key.open(binding, sealed) {
                Ok(secret) => return Ok(secret),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A key for one purpose, the same in every process of the instance and for its whole life, whatever becomes of the
    /// key-encryption key (HKDF-SHA256, RFC 5869, of the instance's secret).
    ///
    /// # Errors
    /// None in practice: 32 bytes is far below the limit of HKDF.
    pub fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, SealError> {
        let prk: Prk = Salt::new(HKDF_SHA256, b"keywright").extract(self.0.instance.expose_secret());
        let info = [purpose.as_bytes()];
        let mut key = Zeroizing::new([0; 32]);
        prk.expand(&info, Bytes32).and_then(|okm| okm.fill(key.as_mut_slice())).map_err(|_| SealError::Cipher)?;
        Ok(key)
    }
}

/// The length asked of HKDF.
#[derive(Clone, Copy)]
struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// Inserts the canary unless another process was faster, and returns the one that counts.
async fn make_canary(db: &Database, kek: &KeyEncryptionKey) -> Result<sealing_canary::Model, StartError> {
    let secret = Zeroizing::new(ids::random::<32>()?);
    let sealed = kek.seal(&INSTANCE, secret.as_slice())?;
    let write = db.begin().await?;
    let row = sealing_canary::ActiveModel {
        id: Set(sealing_canary::ID.to_owned()),
        key_id: Set(sealed.key_id),
        sealed_secret: Set(sealed.bytes),
        created_at: Set(clock::micros(clock::now(&*write).await?)),
    };
    sealing_canary::Entity::insert(row)
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(&*write)
        .await?;
    write.commit().await?;
    let missing = || DbErr::RecordNotFound("the canary was written but is not there".to_owned());
    Ok(sealing_canary::get(db.reader()).await?.ok_or_else(missing)?)
}

#[cfg(test)]
mod tests;
