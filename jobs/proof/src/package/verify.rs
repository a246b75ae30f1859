//! Checking a package from its signature down to its rows.

use super::{
    EVENTS, FORMAT, File, JOBS, MANIFEST, Manifest, Population, SIGNATURE,
    archive::{Archive, changed},
    rows,
};
use crate::{
    export,
    note::{Note, Verifier},
    verdict::Fault,
};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fmt,
    io::{BufRead, BufReader, Read, Seek},
};

const BUFFER: usize = 1 << 18;

/// What the verifier was given beside the package.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Keys that are trusted.
    pub keys: Vec<Verifier>,
    /// Checkpoints of the audit log that were kept elsewhere, each with the name of where.
    pub checkpoints: Vec<(String, Note)>,
    pub proofs: Vec<export::ConsistencyProof>,
}

/// What was checked and found valid.
#[derive(Clone, Debug)]
pub struct Report {
    pub manifest: Manifest,
    /// The key that signed it.
    pub key: Verifier,
    pub rows: u64,
    /// The audit log's events, where the package has them.
    pub events: Option<export::Report>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { package, organisation, exported_at, period, files, populations, .. } = &self.manifest;
        writeln!(f, "package      {package}")?;
        writeln!(f, "organisation {organisation}")?;
        writeln!(f, "period       {} to {}, exported at {exported_at}", period.from, period.to)?;
        writeln!(f, "signed by    {}", self.key)?;
        writeln!(f, "files        {}, each as it was signed, and no other", files.len())?;
        writeln!(f, "populations  {}, {} rows in order, each the same in CSV and JSONL", populations.len(), self.rows)?;
        writeln!(f, "samples      drawn again by the seed {}", self.manifest.sample.seed)?;
        match &self.events {
            None => writeln!(f, "audit log    not in the package"),
            Some(events) => write!(f, "{events}"),
        }
    }
}

/// Verifies a package; `open` opens the file anew, each time from its beginning.
///
/// # Errors
/// The first fault.
pub fn verify<R: Read + Seek>(mut open: impl FnMut() -> Result<R, Fault>, inputs: &Inputs) -> Result<Report, Fault> {
    let mut archive = Archive::open(open()?)?;
    let (manifest, key) = signed(&mut archive, inputs)?;
    archive.holds_exactly(&manifest.files)?;
    let mut again = || Archive::open(open()?);
    for file in &manifest.files {
        if !archive.is_as_listed(file)? {
            return Err(where_changed(&mut again, &mut archive, &manifest, file));
        }
    }
    let listed = |path: &str| {
        let file = manifest.files.iter().find(|file| file.path == path).cloned();
        let what = "the manifest tells of the file and does not list it";
        file.ok_or_else(|| Fault::tampered("manifest_contradicts_itself", what).in_file(path))
    };
    for population in &manifest.populations {
        rows::check(&mut again, population, &manifest.sample, &listed)?;
    }
    let events = match listed(EVENTS) {
        Ok(file) => Some(logged(&mut archive, &file, &manifest, inputs)?),
        Err(_) => None,
    };
    let rows = manifest.populations.iter().map(|population| population.rows).sum();
    Ok(Report { manifest, key, rows, events })
}

/// The manifest, which one of the given keys has signed.
fn signed<R: Read + Seek>(archive: &mut Archive<R>, inputs: &Inputs) -> Result<(Manifest, Verifier), Fault> {
    let missing = |path: &str| {
        let what = "it is missing, and without it nothing proves what the package is";
        Fault::incomplete("not_signed", what).in_file(path)
    };
    let text = archive.small(MANIFEST)?.ok_or_else(|| missing(MANIFEST))?;
    let signature = archive.small(SIGNATURE)?.ok_or_else(|| missing(SIGNATURE))?;
    let by = |key: &&Verifier| UnparsedPublicKey::new(&ED25519, key.public()).verify(&text, &signature).is_ok();
    let manifest: Option<Manifest> = serde_json::from_slice(&text).ok();
    let Some(key) = inputs.keys.iter().find(by) else {
        let named = manifest.and_then(|manifest| manifest.signed_by.parse::<Verifier>().ok());
        // only what such a key did sign says anything; what was merely changed may name any key
        let signed = |key: &Verifier| UnparsedPublicKey::new(&ED25519, key.public()).verify(&text, &signature).is_ok();
        if let Some(named) = named.filter(signed) {
            let what = format!("it is signed by {named}, which is none of the given keys");
            return Err(Fault::tampered("other_key", what).in_file(SIGNATURE));
        }
        let what = "the signature is not one over this manifest: the manifest or the signature was changed";
        return Err(Fault::tampered("signature_wrong", what).in_file(MANIFEST));
    };
    let manifest = manifest.filter(|manifest| manifest.format == FORMAT);
    let manifest = manifest.ok_or_else(|| {
        Fault::incomplete(
            "unknown_form",
            format!("this verifier reads packages of the form {FORMAT}; take a newer one"),
        )
        .in_file(MANIFEST)
    })?;
    Ok((manifest, key.clone()))
}

/// The row of a changed file, where its twin is as it was signed.
fn where_changed<R: Read + Seek>(
    again: &mut dyn FnMut() -> Result<Archive<R>, Fault>,
    archive: &mut Archive<R>,
    manifest: &Manifest,
    file: &File,
) -> Fault {
    let fault = changed(&file.path);
    let of = |population: &&Population| population.csv == file.path || population.jsonl == file.path;
    let Some(population) = manifest.populations.iter().find(of) else { return fault };
    let listed = |path: &str| manifest.files.iter().find(|file| file.path == path);
    let twin = if population.csv == file.path { &population.jsonl } else { &population.csv };
    let Some(twin) = listed(twin).filter(|twin| archive.is_as_listed(twin).unwrap_or(false)) else { return fault };
    let mut row = || -> Result<Option<u64>, Fault> {
        let mut other = again()?;
        // what is longer than announced is compared to its end
        let whole = File { size: u64::MAX, ..file.clone() };
        let (changed, twin) = (archive.read(&whole)?, other.read(twin)?);
        let compared = if population.csv == file.path {
            rows::compare(changed, twin, population, None)
        } else {
            rows::compare(twin, changed, population, None)
        };
        Ok(compared.err().and_then(|fault| fault.row))
    };
    match row() {
        Ok(Some(row)) => fault.at_row(row),
        _ => fault,
    }
}

/// Checks the events, and that every job that ended is among them.
fn logged<R: Read + Seek>(
    archive: &mut Archive<R>,
    file: &File,
    manifest: &Manifest,
    inputs: &Inputs,
) -> Result<export::Report, Fault> {
    let here = export::Inputs {
        keys: inputs.keys.clone(),
        checkpoints: inputs.checkpoints.clone(),
        proofs: inputs.proofs.clone(),
        part: true,
    };
    let reader = BufReader::with_capacity(BUFFER, archive.read(file)?);
    let report = export::verify(reader, &here).map_err(|fault| fault.in_file(EVENTS))?;
    let jobs = manifest.populations.iter().find(|population| population.population == JOBS);
    let jobs = jobs.and_then(|jobs| manifest.files.iter().find(|file| file.path == jobs.jsonl));
    if let Some(jobs) = jobs {
        let mut ended = ended(archive, jobs)?;
        told(archive, file, &mut ended)?;
        if let Some(job) = ended.first() {
            let what = format!("the job {job} ended, and no event tells of it: it was never logged");
            return Err(Fault::tampered("event_never_logged", what).in_file(EVENTS));
        }
    }
    Ok(report)
}

#[derive(Deserialize)]
struct Ended {
    id: String,
}

fn ended<R: Read + Seek>(archive: &mut Archive<R>, jobs: &File) -> Result<BTreeSet<String>, Fault> {
    let lines = BufReader::with_capacity(BUFFER, archive.read(jobs)?).lines();
    let id = |line: std::io::Result<String>| {
        let row = line.ok().and_then(|line| serde_json::from_str::<Ended>(&line).ok());
        row.map(|row| row.id).ok_or_else(|| changed(&jobs.path))
    };
    lines.map(id).collect()
}

/// Takes the jobs away whose end the events tell.
fn told<R: Read + Seek>(archive: &mut Archive<R>, events: &File, ended: &mut BTreeSet<String>) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Line {
        event: Option<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        event_type: String,
        subject: Subject,
    }
    #[derive(Deserialize)]
    struct Subject {
        id: Option<String>,
    }
    let lines = BufReader::with_capacity(BUFFER, archive.read(events)?).lines();
    for line in lines {
        let line = line.map_err(|_| changed(&events.path))?;
        let Ok(Line { event: Some(event) }) = serde_json::from_str(&line) else { continue };
        if matches!(event.event_type.as_str(), "job.ended" | "job.canceled")
            && let Some(id) = event.subject.id
        {
            ended.remove(&id);
        }
    }
    Ok(())
}
