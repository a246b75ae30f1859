//! Signed notes (C2SP signed-note) with Ed25519.
//!
//! A note is text, an empty line, and signature lines `— NAME BASE64`, of which each begins with the four bytes of the key's id.
//! Signatures by keys that a reader does not know say nothing to it.

use crate::hash::Hash;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// The type of an Ed25519 key in key ids and verifier keys.
const ED25519_TYPE: u8 = 1;
/// More signatures than this are an attempt to keep readers busy.
const MOST_SIGNATURES: usize = 100;
const DASH: &str = "\u{2014} ";

/// Why a note does not count.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    #[error("it is not a signed note")]
    Form,
    #[error("a signature on it by a known key is wrong: the text or the signature was changed")]
    Signature,
    #[error("none of the given keys has signed it")]
    NoKnownKey,
}

/// Some text is not a verifier key, or bytes are not a private key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("it is not a verifier key of the form NAME+ID+KEY")]
    Form,
    #[error("the id in it does not belong to its name and key")]
    Id,
    #[error("it is not an Ed25519 key")]
    Kind,
}

/// The public half of a key with the name under which it signs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl Verifier {
    /// # Errors
    /// [`KeyError`] when no key may have this name, or the key has another length.
    pub fn new(name: &str, public: &[u8]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Form);
        }
        let public = public.try_into().map_err(|_| KeyError::Kind)?;
        Ok(Self { name: name.to_owned(), id: key_id(name, &public), public })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id: eight hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The key as SubjectPublicKeyInfo in PEM, for `openssl`.
    pub fn pem(&self) -> String {
        // RFC 8410, 4: the algorithm's identifier, and the key as a bit string
        let mut der = hex::decode("302a300506032b6570032100").unwrap_or_default();
        der.extend_from_slice(&self.public);
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    fn signed(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.id(), STANDARD.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(id), Some(key)) => (name, id, STANDARD.decode(key).map_err(|_| KeyError::Form)?),
            _ => return Err(KeyError::Form),
        };
        let (ED25519_TYPE, public) = key.split_first().map(|(kind, key)| (*kind, key)).ok_or(KeyError::Form)? else {
            return Err(KeyError::Kind);
        };
        let verifier = Self::new(name, public)?;
        if verifier.id() != id { Err(KeyError::Id) } else { Ok(verifier) }
    }
}

/// A private key with the name under which it signs. Has neither `Debug` nor `Serialize`.
pub struct Signer {
    pair: Ed25519KeyPair,
    verifier: Verifier,
}

impl Signer {
    /// Of a private key as PKCS#8.
    ///
    /// # Errors
    /// [`KeyError`] when it is none, or no key may have this name.
    pub fn from_pkcs8(name: &str, document: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(document).map_err(|_| KeyError::Kind)?;
        let verifier = Verifier::new(name, pair.public_key().as_ref())?;
        Ok(Self { pair, verifier })
    }

    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The note of this text, which ends in a newline and has no control characters beside newlines.
    ///
    /// # Errors
    /// [`NoteError::Form`] when the text is not of this form.
    pub fn sign(&self, text: &str) -> Result<Note, NoteError> {
        if !is_text(text) {
            return Err(NoteError::Form);
        }
        let mut bytes = self.verifier.id.to_vec();
        bytes.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        Ok(Note { text: text.to_owned(), signatures: vec![Signature { name: self.verifier.name.clone(), bytes }] })
    }

    /// A detached signature over these bytes: the 64 bytes that `openssl pkeyutl -verify` takes.
    pub fn sign_detached(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    name: String,
    /// The key's id, then the signature.
    bytes: Vec<u8>,
}

/// Text with signatures, which count only once they are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// The text without having verified anything.
    pub fn unverified(&self) -> &str {
        &self.text
    }

    /// The names and ids of the keys that are said to have signed it.
    pub fn signers(&self) -> impl Iterator<Item = (&str, String)> {
        self.signatures
            .iter()
            .filter_map(|signature| Some((signature.name.as_str(), hex::encode(signature.bytes.first_chunk::<4>()?))))
    }

    /// The text, which at least one of these keys has signed; and by which.
    ///
    /// # Errors
    /// [`NoteError::Signature`] when a signature by one of them is wrong, [`NoteError::NoKnownKey`] when there is none.
    pub fn verify<'a>(&self, keys: impl IntoIterator<Item = &'a Verifier>) -> Result<(&str, &'a Verifier), NoteError> {
        let mut by = None;
        for key in keys {
            for signature in self.signatures.iter().filter(|signature| signature.name == key.name) {
                let Some((id, bytes)) = signature.bytes.split_first_chunk::<4>() else { continue };
                if *id != key.id {
                    continue;
                }
                if !key.signed(&self.text, bytes) {
                    return Err(NoteError::Signature);
                }
                by.get_or_insert(key);
            }
        }
        by.map(|key| (self.text.as_str(), key)).ok_or(NoteError::NoKnownKey)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|Signature { name, bytes }| writeln!(f, "{DASH}{name} {}", STANDARD.encode(bytes)))
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let text = format!("{text}\n");
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let signatures: Vec<Signature> =
            lines.split('\n').map(signature).collect::<Option<_>>().ok_or(NoteError::Form)?;
        if !is_text(&text) || signatures.len() > MOST_SIGNATURES {
            return Err(NoteError::Form);
        }
        Ok(Self { text, signatures })
    }
}

fn signature(line: &str) -> Option<Signature> {
    let (name, bytes) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(bytes).ok().filter(|bytes| bytes.len() > 4)?;
    is_name(name).then(|| Signature { name: name.to_owned(), bytes })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter == '+' || letter.is_control())
}

fn is_text(text: &str) -> bool {
    text.ends_with('\n') && text.chars().all(|letter| letter >= ' ' || letter == '\n')
}

fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let hash = Hash::of_parts(&[name.as_bytes(), b"\n", &[ED25519_TYPE], public]);
    let mut id = [0; 4];
    id.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
    id
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key of one's own for tests, by number.
    pub fn signer(number: u8) -> Signer {
        named(&format!("keywright/test/{number}"), number)
    }

    pub fn named(name: &str, number: u8) -> Signer {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        Signer::from_pkcs8(name, pair.to_pkcs8v1().unwrap().as_ref()).unwrap()
    }

    /// The example of C2SP's signed-note and of Go's `note` package.
    #[test]
    fn the_example_of_the_specification() {
        let key: Verifier = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let text = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n";
        let note = format!(
            "{text}\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
        );
        let note: Note = note.parse().unwrap();
        assert_eq!(note.verify([&key]).unwrap().0, text);
        assert_eq!(key.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    }

    #[test]
    fn what_was_changed_does_not_verify() {
        let (ours, other) = (signer(1), signer(2));
        let note = ours.sign("text\nmore\n").unwrap().to_string();
        let parsed: Note = note.parse().unwrap();
        assert_eq!(parsed.to_string(), note);
        assert_eq!(parsed.verify([other.verifier(), ours.verifier()]).unwrap().1, ours.verifier());
        assert_eq!(parsed.verify([other.verifier()]), Err(NoteError::NoKnownKey));
        let changed: Note = note.replace("more", "mone").parse().unwrap();
        assert_eq!(changed.verify([ours.verifier()]), Err(NoteError::Signature));
        // every single byte counts
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let verified = String::from_utf8(bytes).ok().and_then(|note| note.parse::<Note>().ok());
            assert!(verified.is_none_or(|note| note.verify([ours.verifier()]).is_err()), "byte {at}");
        }
    }

    #[test]
    fn forms_that_are_no_notes() {
        let note = signer(1).sign("text\n").unwrap().to_string();
        for wrong in [
            String::new(),
            "text\n".to_owned(),
            note.trim_end().to_owned(),
            note.replace("text\n", "te\rxt\n"),
            note.replace('\u{2014}', "-"),
            format!("{note}\u{2014} name+plus AAAAAAAAAAA=\n"),
            format!("{note}\u{2014} name AAAA\n"),
        ] {
            assert_eq!(wrong.parse::<Note>(), Err(NoteError::Form), "{wrong:?}");
        }
        assert!(signer(1).sign("no newline").is_err() && signer(1).sign("tab\t\n").is_err());
        let key = signer(1).verifier().to_string();
        assert!(key.parse::<Verifier>().is_ok());
        assert_eq!(key.replace("test/1", "test/2").parse::<Verifier>(), Err(KeyError::Id));
        assert_eq!("name+00000000".parse::<Verifier>(), Err(KeyError::Form));
    }
}
