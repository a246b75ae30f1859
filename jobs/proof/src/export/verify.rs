//! Verifying an export line by line, in constant memory.

use super::{Cut, FORMAT, Header, Name, Names, Report, end_text, note_line};
use crate::{
    checkpoint::Checkpoint,
    hash::{Hash, Hasher},
    log::{LogCheck, rewritten},
    note::{Note, NoteError, Verifier},
    tree::{self, Frontier},
    verdict::Fault,
};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    fmt,
    io::{BufRead, Read},
};

/// No line of an export is longer.
const LONGEST_LINE: u64 = 64 << 20;
/// Clocks, and commits that are under way when an export begins: a checkpoint that is this much older must be known to it.
const SLACK_SECONDS: i64 = 60;

/// What the verifier was given beside the file.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Keys that are trusted; those for which they vouch are trusted too.
    pub keys: Vec<Verifier>,
    /// Checkpoints that were kept elsewhere, each with the name of where.
    pub checkpoints: Vec<(String, Note)>,
    /// Proofs that a kept checkpoint belongs to the log although the events up to it are not in the file.
    pub proofs: Vec<ConsistencyProof>,
    /// A file that does not hold the whole log is what was asked for.
    pub part: bool,
}

/// What `GET /api/audit/proof?from=&to=` tells; further fields do not matter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConsistencyProof {
    pub from: u64,
    pub to: u64,
    pub hashes: Vec<Hash>,
}

/// A line of any kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default)]
    audit: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(default)]
    leaf: Option<Hash>,
    #[serde(default)]
    names: Option<Names>,
    #[serde(default)]
    checkpoint: Option<String>,
    #[serde(default)]
    end: Option<String>,
}

/// What the verifier must know of an event; the rest is covered by its hash.
#[derive(Deserialize)]
struct Known<'a> {
    #[serde(borrow)]
    seq: Cow<'a, str>,
    actor: Somebody,
    subject: Somebody,
}

#[derive(Deserialize)]
struct Somebody {
    name: Option<Hash>,
}

/// Verifies an export.
///
/// # Errors
/// The first fault.
pub fn verify(mut reader: impl BufRead, inputs: &Inputs) -> Result<Report, Fault> {
    let mut hash = Hasher::default();
    let mut line = Vec::new();
    if !next_line(&mut reader, &mut line, 1)? {
        return Err(Fault::incomplete("empty", "the file is empty"));
    }
    let header = header(&line).map_err(|fault| fault.at_row(1))?;
    hash.update(&line);
    let mut check = Check::begin(header, inputs).map_err(|fault| fault.at_row(1))?;
    let mut row = 1;
    loop {
        row += 1;
        if !next_line(&mut reader, &mut line, row)? {
            let what = format!(
                "the file ends before its last line, after {} of {} events: it was cut off, or not loaded whole",
                check.log.next() - check.header.from,
                check.header.to - check.header.from
            );
            return Err(Fault::incomplete("cut_short", what).at_row(row - 1));
        }
        if let Some(end) = check.line(&line).map_err(|fault| fault.at_row(row))? {
            check.end(&end, &line, hash.finish()).map_err(|fault| fault.at_row(row))?;
            break;
        }
        hash.update(&line);
    }
    if next_line(&mut reader, &mut line, row + 1)? {
        return Err(Fault::tampered("row_added", "there are lines after the last one").at_row(row + 1));
    }
    check.report(inputs)
}

/// Reads a line with its newline; `false` at the end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>, row: u64) -> Result<bool, Fault> {
    line.clear();
    let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', line);
    let read = read.map_err(|error| Fault::usage(format!("the file cannot be read: {error}")).at_row(row))?;
    if read == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') {
        let what = "the file ends in the middle of a line: it was cut off, or not loaded whole";
        return Err(Fault::incomplete("cut_short", what).at_row(row));
    }
    Ok(true)
}

fn not_a_line(error: impl fmt::Display) -> Fault {
    Fault::tampered("row_unreadable", format!("the row is none that an export has: {error}"))
}

fn header(line: &[u8]) -> Result<Header, Fault> {
    let parsed: Line = serde_json::from_slice(line).map_err(not_a_line)?;
    let Some(audit) = parsed.audit else {
        return Err(Fault::tampered("header_missing", "the first row is not that of an audit export"));
    };
    let header: Header = serde_json::from_str(audit.get()).map_err(not_a_line)?;
    if header.format != FORMAT {
        let what = format!("the file is of the form {}; this program knows {FORMAT}", header.format);
        return Err(Fault::incomplete("format_unknown", what));
    }
    if header.from > header.to {
        return Err(Fault::tampered("header_changed", "the file is said to end before it begins"));
    }
    Ok(header)
}

fn signed(note: &str, keys: &[Verifier], what: &str) -> Result<(String, Verifier), Fault> {
    let note: Note = note.parse().map_err(|error| unsigned(error, what))?;
    note.verify(keys).map(|(text, key)| (text.to_owned(), key.clone())).map_err(|error| unsigned(error, what))
}

fn unsigned(error: NoteError, what: &str) -> Fault {
    match error {
        NoteError::Form => Fault::tampered("signature_unreadable", format!("{what} is not a signed note")),
        NoteError::Signature => Fault::tampered("signature_wrong", format!("{what}: {error}")),
        NoteError::NoKnownKey => Fault::tampered(
            "other_key",
            format!("{what} is signed, but neither by the given key nor by one for which it vouches"),
        ),
    }
}

struct Check {
    header: Header,
    keys: Vec<Verifier>,
    log: LogCheck,
    top: Checkpoint,
    key: Verifier,
    cut: Option<Cut>,
    checkpoints: u64,
    erased: u64,
    /// The last name that was found to belong to its commitment.
    named: Option<(Hash, Name)>,
}

impl Check {
    fn begin(header: Header, inputs: &Inputs) -> Result<Self, Fault> {
        let keys = header.keys.trusted(&inputs.keys);
        let (text, key) = signed(&header.checkpoint, &keys, "the checkpoint of the file")?;
        let changed = |what: &str| Fault::tampered("header_changed", what);
        let top = Checkpoint::parse(&text).map_err(|_| changed("the checkpoint of the file is none"))?;
        if top.origin != header.origin || top.size < header.to {
            return Err(changed("the checkpoint of the file is not of this log, or of fewer events than the file has"));
        }
        let frontier = Frontier::of(header.from, &header.before)
            .ok_or_else(|| changed("there are not as many hashes of earlier events as there must be"))?;
        let cut = match &header.cut {
            Some(note) => {
                let (text, _) = signed(note, &keys, "the statement on what retention cut")?;
                let cut = Cut::parse(&text).map_err(|_| changed("the statement on what retention cut is none"))?;
                if cut.origin != header.origin {
                    return Err(changed("the statement on what retention cut is of another log"));
                }
                Some(cut)
            }
            None => None,
        };
        if cut.as_ref().is_some_and(|cut| cut.size == header.from && cut.root != frontier.root()) {
            return Err(changed(
                "what lies before the first event is not what the statement on what retention cut says",
            ));
        }
        let mut log = LogCheck::begin(frontier);
        for (source, note) in &inputs.checkpoints {
            let kept = kept(source, note, &keys, &header)?;
            let (older, newer) = if kept.size <= top.size { (&kept, &top) } else { (&top, &kept) };
            let proof = inputs.proofs.iter().find(|proof| (proof.from, proof.to) == (older.size, newer.size));
            if let Some(proof) = proof {
                if !tree::verify_consistency(older.size, newer.size, &older.root, &newer.root, &proof.hashes) {
                    return Err(rewritten(&kept, source));
                }
                continue;
            }
            // every log begins with nothing
            if kept.size == 0 && kept.root == tree::empty() {
                continue;
            }
            if kept.size > top.size {
                return Err(shrunk(&kept, source, &top, &header));
            }
            log.keep(kept, source)?;
        }
        Ok(Self { header, keys, log, top, key, cut, checkpoints: 0, erased: 0, named: None })
    }

    /// Takes a line; gives the note of the last one.
    fn line(&mut self, line: &[u8]) -> Result<Option<String>, Fault> {
        let parsed: Line = serde_json::from_slice(line).map_err(not_a_line)?;
        match parsed {
            Line { audit: None, event: Some(event), leaf: Some(leaf), names, checkpoint: None, end: None } => {
                self.event(event.get(), &leaf, names.unwrap_or_default())?;
                Ok(None)
            }
            Line { audit: None, event: None, leaf: None, names: None, checkpoint: Some(note), end: None } => {
                self.checkpoint(&note)?;
                Ok(None)
            }
            Line { audit: None, event: None, leaf: None, names: None, checkpoint: None, end: Some(note) } => {
                Ok(Some(note))
            }
            _ => Err(not_a_line("it is of several kinds or of none")),
        }
    }

    fn event(&mut self, event: &str, leaf: &Hash, names: Names) -> Result<(), Fault> {
        let known: Known = serde_json::from_str(event).map_err(not_a_line)?;
        let seq: u64 = known.seq.parse().map_err(not_a_line)?;
        if seq >= self.header.to && seq == self.log.next() {
            return Err(Fault::tampered("row_added", "the file has more events than its first row says").at_event(seq));
        }
        self.log.event(seq, event.as_bytes(), Some(leaf))?;
        for (committed, name) in [(known.actor.name, names.actor), (known.subject.name, names.subject)] {
            match (committed, name) {
                (None, None) => {}
                (Some(_), None) => self.erased += 1,
                (Some(committed), Some(name)) => self.name(committed, name).map_err(|fault| fault.at_event(seq))?,
                (None, Some(_)) => return Err(name_changed().at_event(seq)),
            }
        }
        Ok(())
    }

    fn name(&mut self, committed: Hash, name: Name) -> Result<(), Fault> {
        if self.named.as_ref().is_some_and(|named| named.0 == committed && named.1 == name) {
            return Ok(());
        }
        if name.commitment() != Some(committed) {
            return Err(name_changed());
        }
        self.named = Some((committed, name));
        Ok(())
    }

    /// One among the events. Of a key that is not known it is only compared: what it covers lies under the file's own checkpoint.
    fn checkpoint(&mut self, note: &str) -> Result<(), Fault> {
        let text = match signed(note, &self.keys, "a checkpoint") {
            Ok((text, _)) => text,
            Err(fault) if fault.code == "other_key" => {
                note.parse::<Note>().map(|note| note.unverified().to_owned()).map_err(not_a_line)?
            }
            Err(fault) => return Err(fault),
        };
        let checkpoint = Checkpoint::parse(&text).map_err(not_a_line)?;
        if checkpoint.origin != self.header.origin {
            return Err(Fault::tampered("other_log", format!("a checkpoint is of another log, {}", checkpoint.origin)));
        }
        self.log.checkpoint(&checkpoint)?;
        self.checkpoints += 1;
        Ok(())
    }

    fn end(&mut self, note: &str, line: &[u8], hash: Hash) -> Result<(), Fault> {
        let (from, to, next) = (self.header.from, self.header.to, self.log.next());
        if next != to {
            let what = format!("the file should hold the events up to {}, and ends after {next} events", to - 1);
            return Err(Fault::tampered("event_missing", what).at_event(next));
        }
        self.log.skip(&tree::cover(to, self.top.size), &self.header.after)?;
        self.log.checkpoint(&self.top)?;
        let (text, _) = signed(note, &self.keys, "the end of the file")?;
        if text != end_text(&self.header.origin, from, to, &hash) {
            let what =
                "the rows are not byte by byte those that were exported, though the events and names are genuine";
            return Err(Fault::tampered("bytes_changed", what));
        }
        if note_line("end", note).map_err(not_a_line)?.as_slice() != line.trim_ascii_end() || !line.ends_with(b"}\n") {
            return Err(Fault::tampered("bytes_changed", "the last row is not written as it was exported"));
        }
        Ok(())
    }

    fn report(self, inputs: &Inputs) -> Result<Report, Fault> {
        let (from, to) = (self.header.from, self.header.to);
        if let Some((kept, source)) = self.log.not_compared().next() {
            let what = format!(
                "the checkpoint in {source} is of {} events, which are not in the file one by one; give the proof that \
                 GET /api/audit/proof?from={}&to={} tells",
                kept.size, kept.size, self.top.size
            );
            return Err(Fault::incomplete("checkpoint_not_compared", what));
        }
        let from_the_beginning = from == 0 || self.cut.as_ref().is_some_and(|cut| cut.size == from);
        let whole = from_the_beginning && to == self.top.size;
        if !whole && !inputs.part {
            let what = format!(
                "the file holds the events from {from} to before {to} of a log that has {}: what is there is genuine; say --part if a \
                 part is what was asked for",
                self.top.size
            );
            return Err(Fault::incomplete("part_of_the_log", what));
        }
        Ok(Report {
            origin: self.header.origin,
            from,
            to,
            checkpoint: self.top,
            key: self.key,
            checkpoints: self.checkpoints,
            kept: inputs.checkpoints.len(),
            erased_names: self.erased,
            cut: self.cut,
        })
    }
}

fn name_changed() -> Fault {
    Fault::tampered("name_changed", "a name is not the one with which the event was logged")
}

fn kept(source: &str, note: &Note, keys: &[Verifier], header: &Header) -> Result<Checkpoint, Fault> {
    let (kept, _) = Checkpoint::verify(note, keys).map_err(|error| match error {
        NoteError::NoKnownKey => {
            let what = format!("the checkpoint in {source} is signed by a key that is not known; give that key too");
            Fault::incomplete("other_key", what)
        }
        error => unsigned(error, &format!("the checkpoint in {source}")),
    })?;
    if kept.origin != header.origin {
        let what = format!("the checkpoint in {source} is of the log {}, the file of another one", kept.origin);
        return Err(Fault::tampered("other_log", what));
    }
    Ok(kept)
}

/// The kept checkpoint has more events than the file's. When it was there before the export began, events are gone.
fn shrunk(kept: &Checkpoint, source: &str, top: &Checkpoint, header: &Header) -> Fault {
    let seconds = |time: &str| DateTime::parse_from_rfc3339(time).ok().map(|time| time.timestamp());
    let older = kept.time.as_deref().and_then(seconds).zip(seconds(&header.exported_at));
    if older.is_some_and(|(kept, exported)| kept + SLACK_SECONDS <= exported) {
        let what = format!(
            "the log had {} events at the checkpoint in {source}, and {} when it was exported later: events were cut off its end",
            kept.size, top.size
        );
        return Fault::tampered("log_shrunk", what);
    }
    let what = format!(
        "the checkpoint in {source} is of {} events and newer than the file, whose last is of {}: export anew, or give the proof \
         that GET /api/audit/proof?from={}&to={} tells",
        kept.size, top.size, top.size, kept.size
    );
    Fault::incomplete("file_is_older", what)
}
