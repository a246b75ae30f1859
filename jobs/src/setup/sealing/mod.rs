//! Sealing: everything secret that the database keeps is encrypted under a key that the database does not hold.
//!
//! Envelope encryption: each record has a data key of its own, which is wrapped under the key-encryption key, so that a new
//! key-encryption key needs only the wraps to be made anew. Both layers are bound to where the record is stored, so that a
//! sealed value that was moved to another row or column does not open.
//!
//! One row, the canary, is opened at every start: a process with another key refuses to run before it can write anything.

mod envelope;
mod master_key;

pub use envelope::{Binding, KeyEncryptionKey, SealError, Sealed};
pub use master_key::MasterKeyError;

use super::{
    config::MasterKeySource,
    database::Database,
    ids::{self, NoRandomness},
};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use keywright_entities::{clock, sealing_canary};
use sea_orm::{DbErr, EntityTrait, Set, sea_query::OnConflict};
use secrecy::{ExposeSecret, SecretSlice};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

const CANARY: Binding<'static> =
    Binding { table: "sealing_canary", record: sealing_canary::ID, purpose: "instance secret" };

/// Seals and opens the secrets of one instance. Has neither `Debug` nor `Serialize`.
#[derive(Clone)]
pub struct Sealing(Arc<Keys>);

struct Keys {
    kek: KeyEncryptionKey,
    instance: SecretSlice<u8>,
}

/// Why the secrets of this database cannot be used.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(
        "the key-encryption key is not the one this database was sealed with (given: {given}, needed: {needed}). Nothing \
         was changed. Start with the original KEYWRIGHT_MASTER_KEY or KEYWRIGHT_MASTER_KEY_FILE, or restore \
         master.key in the data directory from its backup; without it the sealed secrets cannot be recovered"
    )]
    WrongKey { given: String, needed: String },
    #[error("a secret could not be sealed: {0}")]
    Seal(#[from] SealError),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("the canary cannot be read or written: {0}")]
    Database(#[from] DbErr),
}

impl Sealing {
    /// Takes the key from `source` and proves with the canary that it is this database's; makes the canary when there is
    /// none yet. The schema must be current.
    ///
    /// # Errors
    /// [`StartError::WrongKey`] when another key sealed this database.
    pub async fn start(db: &Database, source: &MasterKeySource) -> Result<Self, StartError> {
        let kek = source.load(db.backend())?;
        let canary = match sealing_canary::get(db.reader()).await? {
            Some(canary) => canary,
            None => make_canary(db, &kek).await?,
        };
        let wrong = || StartError::WrongKey { given: kek.id().to_owned(), needed: canary.key_id.clone() };
        if canary.key_id != kek.id() {
            return Err(wrong());
        }
        let instance = kek.open(&CANARY, &canary.sealed_secret).map_err(|_| wrong())?;
        Ok(Self(Arc::new(Keys { kek, instance })))
    }

    /// Encrypts `secret` so that it opens only where `binding` says.
    ///
    /// # Errors
    /// [`SealError`] when the system gives no randomness.
    pub fn seal(&self, binding: &Binding<'_>, secret: &[u8]) -> Result<Sealed, SealError> {
        self.0.kek.seal(binding, secret)
    }

    /// Decrypts what [`Sealing::seal`] made for the same binding.
    ///
    /// # Errors
    /// [`SealError`] when it was sealed for another place or under another key, or was changed since.
    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        self.0.kek.open(binding, sealed)
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
    let sealed = kek.seal(&CANARY, secret.as_slice())?;
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
