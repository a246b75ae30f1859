//! Checkpoints (C2SP tlog-checkpoint): how large a log is and what its root is, signed.

use crate::{
    hash::Hash,
    note::{Note, NoteError, Signer, Verifier},
};
use std::fmt;

/// The line that tells when the checkpoint was made begins so.
const TIME: &str = "time ";

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, which no other log has.
    pub origin: String,
    /// How many leaves the tree has.
    pub size: u64,
    pub root: Hash,
    /// When it was made, by the clock of whoever signed (RFC 3339).
    pub time: Option<String>,
}

impl Checkpoint {
    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`NoteError::Form`] when it is not a checkpoint.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.strip_suffix('\n').ok_or(NoteError::Form)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::Form);
        };
        let number: u64 = size.parse().map_err(|_| NoteError::Form)?;
        // one spelling: no sign, no leading zeros
        if origin.is_empty() || number.to_string() != size {
            return Err(NoteError::Form);
        }
        let more: Vec<&str> = lines.collect();
        if more.iter().any(|line| line.is_empty()) {
            return Err(NoteError::Form);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size: number,
            root: root.parse().map_err(|_| NoteError::Form)?,
            time: more.iter().find_map(|line| line.strip_prefix(TIME)).map(str::to_owned),
        })
    }

    /// Reads and verifies a checkpoint; tells which key has signed it.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn verify<'a>(
        note: &Note,
        keys: impl IntoIterator<Item = &'a Verifier>,
    ) -> Result<(Self, &'a Verifier), NoteError> {
        let (text, key) = note.verify(keys)?;
        Ok((Self::parse(text)?, key))
    }

    /// # Errors
    /// [`NoteError::Form`] when the origin or the time is of several lines.
    pub fn sign(&self, signer: &Signer) -> Result<Note, NoteError> {
        let text = self.to_string();
        if Self::parse(&text)? != *self {
            return Err(NoteError::Form);
        }
        signer.sign(&text)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)?;
        self.time.iter().try_for_each(|time| writeln!(f, "{TIME}{time}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::tests::signer;

    #[test]
    fn is_read_as_it_was_written() {
        let mut checkpoint =
            Checkpoint { origin: "keywright/x".to_owned(), size: 20_852_163, root: Hash::of(b"x"), time: None };
        for time in [None, Some("2026-11-24T20:00:00.000001+00:00".to_owned())] {
            checkpoint.time = time;
            let note = checkpoint.sign(&signer(1)).unwrap();
            let read: Note = note.to_string().parse().unwrap();
            assert_eq!(Checkpoint::verify(&read, [signer(1).verifier()]).unwrap().0, checkpoint);
        }
        checkpoint.origin = "two\nlines".to_owned();
        assert!(checkpoint.sign(&signer(1)).is_err());
    }

    #[test]
    fn has_one_spelling() {
        let root = Hash::of(b"x");
        for wrong in [
            format!("o\n01\n{root}\n"),
            format!("o\n+1\n{root}\n"),
            format!("o\n-1\n{root}\n"),
            format!("\n1\n{root}\n"),
            format!("o\n1\n{root}"),
            "o\n1\nroot\n".to_owned(),
            format!("o\n1\n{root}\n\nmore\n"),
            "o\n1\n".to_owned(),
        ] {
            assert_eq!(Checkpoint::parse(&wrong), Err(NoteError::Form), "{wrong:?}");
        }
        assert_eq!(Checkpoint::parse(&format!("o\n1\n{root}\nother extension\n")).unwrap().time, None);
    }
}
