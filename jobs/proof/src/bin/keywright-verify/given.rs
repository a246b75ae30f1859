//! What the verifier is given beside the file that it checks.

use keywright_proof::{
    export::ConsistencyProof,
    keys,
    note::{Note, Verifier},
    verdict::Fault,
};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// None of these files is larger.
const MOST: u64 = 4 << 20;

/// The keys that are written here, or in the files that are named here.
pub fn keys(given: &[String]) -> Result<Vec<Verifier>, Fault> {
    let mut all = Vec::new();
    for given in given {
        if let Ok(key) = given.parse() {
            all.push(key);
            continue;
        }
        let read = keys::read(&text(Path::new(given))?);
        all.extend(
            read.ok_or_else(|| Fault::usage(format!("there is no public key of the form NAME+ID+KEY in {given}")))?,
        );
    }
    Ok(all)
}

/// A checkpoint that was kept.
pub fn checkpoint(path: &Path) -> Result<(String, Note), Fault> {
    let note = text(path)?.parse();
    let note = note.map_err(|error| Fault::usage(format!("{} is no checkpoint: {error}", path.display())))?;
    Ok((path.display().to_string(), note))
}

/// A proof as the API tells it.
pub fn proof(path: &Path) -> Result<ConsistencyProof, Fault> {
    let proof = serde_json::from_str(&text(path)?);
    proof.map_err(|error| Fault::usage(format!("{} is no proof of consistency: {error}", path.display())))
}

/// The file to check; `-` is what comes in.
pub fn open(path: &Path) -> Result<Box<dyn Read>, Fault> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Fault::usage(format!("{} is a folder", path.display())));
    }
    Ok(Box::new(file))
}

fn text(path: &Path) -> Result<String, Fault> {
    let mut text = String::new();
    let read = open(path)?.take(MOST).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &io::Error) -> Fault {
    Fault::usage(format!("{} cannot be read: {error}", path.display()))
}
