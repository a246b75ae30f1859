//! The sealed form and its arithmetic: AES-256-GCM with random nonces (NIST SP 800-38D) in two layers.
//!
//! `form (1) | wrap nonce (12) | wrapped data key (32 + 16) | nonce (12) | ciphertext | tag (16)`
//!
//! Both layers are bound to the place, the wrap also to the key-encryption key, so that another one needs only another wrap. In
//! the first form the inner layer was bound to the key too and no version to the place; it is still opened.

use crate::setup::ids;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use sea_orm::DbErr;
use secrecy::{ExposeSecret, SecretSlice};
use thiserror::Error;
use zeroize::Zeroizing;

const FORM: u8 = 2;
const FIRST_FORM: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;
const KEY: usize = 32;

/// Where a sealed value is kept and what for. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub table: &'a str,
    /// The id of the row.
    pub record: &'a str,
    /// Which value of the row: rises when another takes its place, so that the old one put back does not open. 0 where a value
    /// is never replaced.
    pub version: i64,
    /// Which of the row's secrets it is.
    pub purpose: &'a str,
}

/// A sealed value, fit to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Names the key-encryption key, so that values under an old one can be found.
    pub key_id: String,
    pub bytes: Vec<u8>,
}

/// Why a value could not be sealed or opened. Tells nothing of the value.
#[derive(Debug, Error)]
pub enum SealError {
    #[error(
        "the sealed value has a form that this program does not know; it was written by a newer version or cut short"
    )]
    Form,
    #[error(
        "the sealed value does not open: it was sealed under another key or for another record, or was changed since"
    )]
    Refused,
    #[error("the system's cipher or random generator failed")]
    Cipher,
    #[error(
        "this process does not have the key-encryption key {needed}, under which values are sealed now; start it again with that key"
    )]
    Superseded { needed: String },
    #[error("the key in force cannot be asked for: {0}")]
    Database(#[from] DbErr),
}

/// The key that wraps data keys. Has neither `Debug` nor `Serialize`; the cipher's context clears itself when dropped.
pub struct KeyEncryptionKey {
    id: String,
    key: RandomizedNonceKey,
}

impl KeyEncryptionKey {
    /// Takes 32 random bytes.
    ///
    /// # Errors
    /// [`SealError::Cipher`] if the cipher rejects the key.
    pub fn new(bytes: &[u8; KEY]) -> Result<Self, SealError> {
        let mut labelled = Zeroizing::new(b"keywright key id\0".to_vec());
        labelled.extend_from_slice(bytes);
        let id = hex::encode(digest(&SHA256, &labelled)).chars().take(16).collect();
        Ok(Self { id, key: cipher(bytes)? })
    }

    /// A fingerprint of the key: safe to show, and useless for guessing 32 random bytes.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn seal(&self, binding: &Binding<'_>, secret: &[u8]) -> Result<Sealed, SealError> {
        let data_key = Zeroizing::new(ids::random::<KEY>().map_err(|_| SealError::Cipher)?);
        let sealed = encrypt(&cipher(&data_key)?, &data_aad(FORM, &self.id, binding), secret)?;
        let wrapped = self.wrap(binding, data_key.as_slice())?;
        Ok(Sealed { key_id: self.id.clone(), bytes: [&[FORM][..], &wrapped, &sealed].concat() })
    }

    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let parts = Parts::of(sealed)?;
        let data_key = self.unwrap(binding, &parts)?;
        let data_key: &[u8; KEY] = data_key.as_slice().try_into().map_err(|_| SealError::Form)?;
        let mut plain = decrypt(&cipher(data_key)?, &data_aad(parts.form, &self.id, binding), parts.sealed)?;
        Ok(SecretSlice::from(std::mem::take(&mut *plain)))
    }

    /// The same value under `self` instead of `old`. Opens the data key alone, save for the first form, which is made anew.
    pub fn rewrap(&self, old: &Self, binding: &Binding<'_>, sealed: &[u8]) -> Result<Sealed, SealError> {
        let parts = Parts::of(sealed)?;
        if parts.form == FIRST_FORM {
            return self.seal(binding, old.open(binding, sealed)?.expose_secret());
        }
        let wrapped = self.wrap(binding, &old.unwrap(binding, &parts)?)?;
        Ok(Sealed { key_id: self.id.clone(), bytes: [&[FORM][..], &wrapped, parts.sealed].concat() })
    }

    fn wrap(&self, binding: &Binding<'_>, data_key: &[u8]) -> Result<Vec<u8>, SealError> {
        encrypt(&self.key, &key_aad(FORM, &self.id, binding), data_key)
    }

    fn unwrap(&self, binding: &Binding<'_>, parts: &Parts<'_>) -> Result<Zeroizing<Vec<u8>>, SealError> {
        decrypt(&self.key, &key_aad(parts.form, &self.id, binding), parts.wrapped)
    }
}

struct Parts<'a> {
    form: u8,
    wrapped: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a [u8]) -> Result<Self, SealError> {
        let (form, rest) = sealed.split_first().ok_or(SealError::Form)?;
        if ![FORM, FIRST_FORM].contains(form) {
            return Err(SealError::Form);
        }
        let (wrapped, sealed) = rest.split_at_checked(NONCE + KEY + TAG).ok_or(SealError::Form)?;
        Ok(Self { form: *form, wrapped, sealed })
    }
}

fn cipher(key: &[u8; KEY]) -> Result<RandomizedNonceKey, SealError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Cipher)
}

fn key_aad(form: u8, key_id: &str, binding: &Binding<'_>) -> Vec<u8> {
    let Binding { table, record, version, purpose } = binding;
    match form {
        FIRST_FORM => joined(form, &["key", key_id, table, record, purpose]),
        _ => joined(form, &["key", key_id, table, record, &version.to_string(), purpose]),
    }
}

fn data_aad(form: u8, key_id: &str, binding: &Binding<'_>) -> Vec<u8> {
    let Binding { table, record, version, purpose } = binding;
    match form {
        FIRST_FORM => joined(form, &["data", key_id, table, record, purpose]),
        _ => joined(form, &["data", table, record, &version.to_string(), purpose]),
    }
}

/// Fields with their lengths before them, so that no two different lists of fields read the same.
fn joined(form: u8, fields: &[&str]) -> Vec<u8> {
    let mut bytes = vec![form];
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    bytes
}

fn encrypt(key: &RandomizedNonceKey, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    // Room for the tag beforehand: growing would leave a copy of the plain text behind.
    let mut buffer = Vec::with_capacity(plain.len() + TAG);
    buffer.extend_from_slice(plain);
    let nonce = key.seal_in_place_append_tag(Aad::from(aad), &mut buffer).map_err(|_| SealError::Cipher)?;
    Ok([nonce.as_ref().as_slice(), &buffer].concat())
}

fn decrypt(key: &RandomizedNonceKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(SealError::Form)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Form)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = key.open_in_place(nonce, Aad::from(aad), &mut buffer).map_err(|_| SealError::Refused)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Binding<'static> = Binding { table: "subscription", record: "17", version: 3, purpose: "credential" };

    #[test]
    fn opens_what_it_sealed_and_never_seals_the_same_twice() {
        let kek = KeyEncryptionKey::new(&[7; 32]).unwrap();
        for secret in [&b""[..], b"x", &[0xa5; 100_000]] {
            let (one, two) = (kek.seal(&HERE, secret).unwrap(), kek.seal(&HERE, secret).unwrap());
            assert_ne!(one.bytes, two.bytes);
            assert_eq!(one.key_id, kek.id());
            assert_eq!(kek.open(&HERE, &one.bytes).unwrap().expose_secret(), secret);
        }
    }

    #[test]
    fn another_key_does_not_open() {
        let (one, two) = (KeyEncryptionKey::new(&[7; 32]).unwrap(), KeyEncryptionKey::new(&[8; 32]).unwrap());
        assert_ne!(one.id(), two.id());
        let sealed = one.seal(&HERE, b"secret").unwrap();
        assert!(matches!(two.open(&HERE, &sealed.bytes), Err(SealError::Refused)));
    }

    #[test]
    fn a_moved_value_does_not_open() {
        let kek = KeyEncryptionKey::new(&[7; 32]).unwrap();
        let sealed = kek.seal(&HERE, b"secret").unwrap();
        for other in [
            Binding { table: "webhook", ..HERE },
            Binding { record: "18", ..HERE },
            Binding { version: 2, ..HERE },
            Binding { purpose: "token", ..HERE },
            // the same characters, cut elsewhere
            Binding { table: "subscription1", record: "7", ..HERE },
        ] {
            assert!(matches!(kek.open(&other, &sealed.bytes), Err(SealError::Refused)), "{other:?}");
        }
    }

    #[test]
    fn a_new_key_opens_what_was_wrapped_anew_and_the_old_one_no_longer() {
        let (old, new) = (KeyEncryptionKey::new(&[7; 32]).unwrap(), KeyEncryptionKey::new(&[8; 32]).unwrap());
        let before = old.seal(&HERE, b"secret").unwrap();
        let after = new.rewrap(&old, &HERE, &before.bytes).unwrap();
        assert_eq!((after.key_id.as_str(), after.bytes.len()), (new.id(), before.bytes.len()));
        assert_eq!(new.open(&HERE, &after.bytes).unwrap().expose_secret(), b"secret");
        assert!(matches!(old.open(&HERE, &after.bytes), Err(SealError::Refused)));
        // what the data key encrypts was not touched
        assert_eq!(before.bytes[61..], after.bytes[61..]);
        let moved = Binding { record: "18", ..HERE };
        assert!(matches!(new.rewrap(&old, &moved, &before.bytes), Err(SealError::Refused)));
        assert!(matches!(old.rewrap(&new, &HERE, &before.bytes), Err(SealError::Refused)));
    }

    /// As the program before this form wrote it.
    fn first_form(kek: &KeyEncryptionKey, secret: &[u8]) -> Vec<u8> {
        let data_key = [9; KEY];
        let sealed = encrypt(&cipher(&data_key).unwrap(), &data_aad(FIRST_FORM, kek.id(), &HERE), secret).unwrap();
        let wrapped = encrypt(&kek.key, &key_aad(FIRST_FORM, kek.id(), &HERE), &data_key).unwrap();
        [&[FIRST_FORM][..], &wrapped, &sealed].concat()
    }

    #[test]
    fn the_first_form_is_opened_and_becomes_the_second() {
        let (old, new) = (KeyEncryptionKey::new(&[7; 32]).unwrap(), KeyEncryptionKey::new(&[8; 32]).unwrap());
        let before = first_form(&old, b"secret");
        assert_eq!(old.open(&HERE, &before).unwrap().expose_secret(), b"secret");
        let after = new.rewrap(&old, &HERE, &before).unwrap();
        assert_eq!(after.bytes[0], FORM);
        assert_eq!(new.open(&HERE, &after.bytes).unwrap().expose_secret(), b"secret");
        // one form cannot be passed off as the other
        assert!(old.open(&HERE, &[&[FORM][..], &before[1..]].concat()).is_err());
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_refused() {
        let kek = KeyEncryptionKey::new(&[7; 32]).unwrap();
        let sealed = kek.seal(&HERE, b"secret").unwrap().bytes;
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(kek.open(&HERE, &changed).is_err(), "byte {at}");
            assert!(kek.open(&HERE, &sealed[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn the_secret_is_not_in_the_sealed_form() {
        let kek = KeyEncryptionKey::new(&[7; 32]).unwrap();
        let sealed = kek.seal(&HERE, b"canary-9f31").unwrap().bytes;
        assert!(!sealed.windows(11).any(|part| part == b"canary-9f31"));
    }
}
