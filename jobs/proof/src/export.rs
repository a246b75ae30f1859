//! The export of the audit log as NDJSON: lines that a verifier can check without asking anybody.
//!
//! ```text
//! {"audit": …}                                     what the file is; the newest checkpoint; hashes of what is not in it; keys
//! {"event": …, "leaf": "…", "names": {…}}          an event as it was hashed, its hash, and the names in it
//! {"checkpoint": "…"}                              the checkpoint that was made after the events before it
//! {"end": "…"}                                     a note over the hash of all lines before
//! ```

use crate::{
    canonical::{self, NotJson},
    event::{AuditEvent, SALT, commitment},
    hash::{Hash, Hasher},
    keys::KeyHistory,
    note::{Note, NoteError, Signer},
};
use serde::{Deserialize, Serialize};
use std::fmt;

mod report;
mod verify;

pub use report::Report;
pub use verify::{ConsistencyProof, Inputs, verify};

/// The name of the format, and what its end signs.
pub const FORMAT: &str = "keywright.audit-export/1";
const CUT: &str = "keywright.audit-cut/1";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    pub format: String,
    /// The log's name.
    pub origin: String,
    /// When the export began, by the database's clock (RFC 3339).
    pub exported_at: String,
    /// The number of the first event in the file.
    #[serde(with = "text")]
    pub from: u64,
    /// The number after that of the last one.
    #[serde(with = "text")]
    pub to: u64,
    /// The newest checkpoint: a signed note of at least `to` events.
    pub checkpoint: String,
    /// The hashes of the complete subtrees over the events before `from`, in order.
    pub before: Vec<Hash>,
    /// The same over the events from `to` up to the checkpoint.
    pub after: Vec<Hash>,
    /// The signed statement that the events before its size were cut off by retention.
    pub cut: Option<String>,
    pub keys: KeyHistory,
}

/// The names that belong to the commitments in an event; those that were erased are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Name>,
}

/// A name and the salt with which it was committed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// Hexadecimal.
    pub salt: String,
    pub text: String,
}

impl Name {
    pub fn new(salt: &[u8; SALT], text: impl Into<String>) -> Self {
        Self { salt: hex::encode(salt), text: text.into() }
    }

    /// What an event holds of it; `None` when the salt is none.
    pub fn commitment(&self) -> Option<Hash> {
        let mut salt = [0; SALT];
        hex::decode_to_slice(&self.salt, &mut salt).ok()?;
        Some(commitment(&salt, &self.text))
    }
}

/// Writes the lines and hashes them for the last one.
#[derive(Clone)]
pub struct Writer {
    hash: Hasher,
    origin: String,
    from: u64,
    to: u64,
}

impl Writer {
    /// Begins with the first line.
    ///
    /// # Errors
    /// None in practice, as for the other lines: all of them can be written.
    pub fn begin(header: &Header, out: &mut Vec<u8>) -> Result<Self, NotJson> {
        #[derive(Serialize)]
        struct Line<'a> {
            audit: &'a Header,
        }
        let mut writer =
            Self { hash: Hasher::default(), origin: header.origin.clone(), from: header.from, to: header.to };
        writer.line(&canonical::to_vec(&Line { audit: header })?, out);
        Ok(writer)
    }

    /// An event; `stored` is the hash that the log holds for it.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn event(
        &mut self,
        event: &AuditEvent<'_>,
        stored: &Hash,
        names: &Names,
        out: &mut Vec<u8>,
    ) -> Result<(), NotJson> {
        let mut line = br#"{"event":"#.to_vec();
        line.extend_from_slice(&event.leaf_bytes()?);
        line.extend_from_slice(format!(r#","leaf":"{stored}""#).as_bytes());
        if *names != Names::default() {
            line.extend_from_slice(br#","names":"#);
            line.extend(canonical::to_vec(names)?);
        }
        line.push(b'}');
        self.line(&line, out);
        Ok(())
    }

    /// The checkpoint that was made after the events so far.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn checkpoint(&mut self, note: &str, out: &mut Vec<u8>) -> Result<(), NotJson> {
        self.line(&note_line("checkpoint", note)?, out);
        Ok(())
    }

    /// The last line.
    ///
    /// # Errors
    /// [`NoteError`] when the log has a name that cannot be signed.
    pub fn end(mut self, signer: &Signer, out: &mut Vec<u8>) -> Result<(), NoteError> {
        let note = signer.sign(&end_text(&self.origin, self.from, self.to, &self.hash.clone().finish()))?;
        self.line(&note_line("end", &note.to_string()).map_err(|_| NoteError::Form)?, out);
        Ok(())
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        for bytes in [line, b"\n"] {
            self.hash.update(bytes);
            out.extend_from_slice(bytes);
        }
    }
}

fn note_line(kind: &str, note: &str) -> Result<Vec<u8>, NotJson> {
    canonical::to_vec(&serde_json::json!({ kind: note }))
}

fn end_text(origin: &str, from: u64, to: u64, hash: &Hash) -> String {
    format!("{FORMAT}\n{origin}\n{from}\n{to}\n{hash}\n")
}

/// What retention says when it cuts: all events before a checkpoint are gone, and how many there had been since the cut before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub origin: String,
    /// The number of the first event that is kept.
    pub size: u64,
    /// The root of the tree over the events before it.
    pub root: Hash,
    /// The number of the first event that this cut took.
    pub since: u64,
    /// When, by the database's clock (RFC 3339).
    pub time: String,
}

impl Cut {
    /// # Errors
    /// [`NoteError::Form`] when a part of it is of several lines.
    pub fn sign(&self, signer: &Signer) -> Result<Note, NoteError> {
        signer.sign(&self.to_string())
    }

    /// # Errors
    /// [`NoteError::Form`] when the text is something else.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let lines: Vec<&str> = text.split('\n').collect();
        let [CUT, origin, size, root, since, time, ""] = lines.as_slice() else { return Err(NoteError::Form) };
        let number = |text: &str| text.parse().ok().filter(|number: &u64| number.to_string() == text);
        Ok(Self {
            origin: (*origin).to_owned(),
            size: number(size).ok_or(NoteError::Form)?,
            root: root.parse().map_err(|_| NoteError::Form)?,
            since: number(since).ok_or(NoteError::Form)?,
            time: (*time).to_owned(),
        })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{CUT}\n{}\n{}\n{}\n{}\n{}", self.origin, self.size, self.root, self.since, self.time)
    }
}

/// Numbers of 64 bits as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::borrow::Cow;

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
