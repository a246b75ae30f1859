//! The sealed form and its arithmetic: AES-256-GCM with random nonces (NIST SP 800-38D) in two layers.
//!
//! `version (1) | wrap nonce (12) | wrapped data key (32 + 16) | nonce (12) | ciphertext | tag (16)`

use crate::setup::ids;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
};
use secrecy::SecretSlice;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

const VERSION: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;
const KEY: usize = 32;

/// Where a sealed value is kept and what for. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub table: &'a str,
    /// The id of the row.
    pub record: &'a str,
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
        let mut data_key = Zeroizing::new(ids::random::<KEY>().map_err(|_| SealError::Cipher)?);
        let sealed = encrypt(&cipher(&data_key)?, &aad("data", &self.id, binding), secret)?;
        let wrapped = encrypt(&self.key, &aad("key", &self.id, binding), data_key.as_slice())?;
        data_key.zeroize();
        Ok(Sealed { key_id: self.id.clone(), bytes: [&[VERSION][..], &wrapped, &sealed].concat() })
    }

    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Form)?;
        if *version != VERSION {
            return Err(SealError::Form);
        }
        let (wrapped, sealed) = rest.split_at_checked(NONCE + KEY + TAG).ok_or(SealError::Form)?;
        let data_key = decrypt(&self.key, &aad("key", &self.id, binding), wrapped)?;
        let data_key: &[u8; KEY] = data_key.as_slice().try_into().map_err(|_| SealError::Form)?;
        let mut plain = decrypt(&cipher(data_key)?, &aad("data", &self.id, binding), sealed)?;
        Ok(SecretSlice::from(std::mem::take(&mut *plain)))
    }
}

fn cipher(key: &[u8; KEY]) -> Result<RandomizedNonceKey, SealError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Cipher)
}

/// Fields with their lengths before them, so that no two different lists of fields read the same.
fn aad(layer: &str, key_id: &str, binding: &Binding<'_>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for field in [layer, key_id, binding.table, binding.record, binding.purpose] {
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
    use secrecy::ExposeSecret;

    const HERE: Binding<'static> = Binding { table: "subscription", record: "17", purpose: "credential" };

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
            Binding { purpose: "token", ..HERE },
            // the same characters, cut elsewhere
            Binding { table: "subscription1", record: "7", ..HERE },
        ] {
            assert!(matches!(kek.open(&other, &sealed.bytes), Err(SealError::Refused)), "{other:?}");
        }
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
