//! What a verification comes to: valid, or the first fault and where it is.

use std::fmt;

/// What a fault means. The number is the exit code of `keywright-verify`, which is 0 when all is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is there contradicts what was signed.
    Tampered = 1,
    /// What is there may be genuine, but what would prove it is missing.
    Incomplete = 2,
    /// It was called in a wrong way, or a file cannot be read.
    Usage = 3,
}

/// The first thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// A stable word for what is wrong, for instance `event_changed`.
    pub code: &'static str,
    /// The file, when there are several.
    pub file: Option<String>,
    /// The line of the file, from 1 on.
    pub row: Option<u64>,
    /// The event's number.
    pub event: Option<u64>,
    /// What happened and what it means, for people.
    pub what: String,
}

impl Fault {
    pub fn tampered(code: &'static str, what: impl Into<String>) -> Self {
        Self { kind: Kind::Tampered, code, file: None, row: None, event: None, what: what.into() }
    }

    pub fn incomplete(code: &'static str, what: impl Into<String>) -> Self {
        Self { kind: Kind::Incomplete, ..Self::tampered(code, what) }
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::tampered("usage", what) }
    }

    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    #[must_use]
    pub fn at_row(self, row: u64) -> Self {
        Self { row: Some(self.row.unwrap_or(row)), ..self }
    }

    #[must_use]
    pub fn at_event(self, event: u64) -> Self {
        Self { event: Some(event), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            Kind::Tampered => "TAMPERED",
            Kind::Incomplete => "INCOMPLETE",
            Kind::Usage => "USAGE",
        };
        write!(f, "{word} {}", self.code)?;
        self.file.iter().try_for_each(|file| write!(f, " in {file}"))?;
        self.row.iter().try_for_each(|row| write!(f, ", row {row}"))?;
        self.event.iter().try_for_each(|event| write!(f, ", event {event}"))?;
        write!(f, ": {}", self.what)
    }
}
