//! The two scopes that walk files: certificates, and the private keys beside them.
//!
//! Both read the same files. What could not be read is told by the certificate scope alone, so that each thing is told once;
//! a subscription that has one of the scopes has the other too.

use super::{
    assets::{self, Place},
    contents::{self, Contents, Wanted},
    files::{self, Opened, Protection, Refusal},
    settings::Settings,
    text::printable,
    walk::{Position, Step, Walk, is_rehashed},
};
use chrono::{DateTime, Utc};
use keywright_jobs::{
    domain::inventory::{Page, Warning},
    provider::ProviderError,
};
use std::{
    collections::BTreeMap,
    fs::Metadata,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

/// What bounds one page and one file.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Places visited per page.
    pub places: usize,
    /// Assets and warnings after which a page ends; the last file may go over it.
    pub entries: usize,
    /// Bytes of a file that is read.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { places: 500, entries: 500, file_bytes: 16 * 1024 * 1024 }
    }
}

/// Bytes from which it is judged whether a file with an unrelated name is worth reading.
const START_BYTES: u64 = 4_096;

/// Endings of names whose files are told about even when there is no certificate in them.
const CERTIFICATE_ENDINGS: [&str; 8] = ["pem", "crt", "cer", "cert", "der", "p12", "pfx", "key"];

/// One of the scopes over files.
pub struct FileScope {
    settings: Settings,
    wanted: Wanted,
    limits: Limits,
    /// The walk behind the page that was handed out last. Without it, a page token still leads to the same place: another
    /// worker, or this one after a restart, walks there again without opening files.
    parked: Arc<Mutex<Option<(String, Walk)>>>,
}

impl FileScope {
    pub fn new(settings: Settings, wanted: Wanted, limits: Limits) -> Self {
        Self { settings, wanted, limits, parked: Arc::default() }
    }

    /// One page of the walk.
    ///
    /// # Errors
    /// [`ProviderError::PageExpired`] for a token that is not ours.
    pub async fn list(&self, token: Option<&str>) -> Result<Page, ProviderError> {
        let walk = self.resume(token)?;
        let (settings, wanted, limits) = (self.settings.clone(), self.wanted, self.limits);
        let reading = tokio::task::spawn_blocking(move || read_page(walk, &settings, wanted, limits));
        let (mut page, rest) = reading.await.map_err(|error| ProviderError::Rejected {
            code: "internal".to_owned(),
            detail: format!("reading the files ended abnormally: {error}"),
        })?;
        if let Some((position, walk)) = rest {
            let token = position.to_token();
            page.next = Some(token.clone());
            *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some((token, walk));
        }
        Ok(page)
    }

    fn resume(&self, token: Option<&str>) -> Result<Walk, ProviderError> {
        let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (token, parked) {
            (None, _) => Ok(Walk::new(self.settings.paths.clone(), None)),
            (Some(token), Some((parked, walk))) if token == parked => Ok(walk),
            (Some(token), _) => {
                let position = Position::from_token(token).ok_or(ProviderError::PageExpired)?;
                Ok(Walk::new(self.settings.paths.clone(), Some(position)))
            }
        }
    }
}

/// Reads until the page is full; also gives where the walk goes on, unless it is over.
fn read_page(mut walk: Walk, settings: &Settings, wanted: Wanted, limits: Limits) -> (Page, Option<(Position, Walk)>) {
    let mut builder = Builder { settings, wanted, limits, page: Page::default(), skipped: BTreeMap::new() };
    let mut last = None;
    for _ in 0..limits.places {
        let Some(step) = walk.next() else { return (builder.finish(), None) };
        builder.take(&step);
        last = Some(step.position);
        if builder.page.assets.len() + builder.page.warnings.len() >= limits.entries {
            break;
        }
    }
    (builder.finish(), last.map(|position| (position, walk)))
}

struct Builder<'a> {
    settings: &'a Settings,
    wanted: Wanted,
    limits: Limits,
    page: Page,
    /// Files that are none of our business, counted by directory.
    skipped: BTreeMap<PathBuf, usize>,
}

/// A file that was read.
struct Read {
    metadata: Metadata,
    contents: Contents,
}

impl Builder<'_> {
    fn take(&mut self, step: &Step) {
        let path = &step.position.path;
        let must_tell = step.named || is_named_like_a_certificate(path);
        let read = match &step.outcome {
            Ok(()) => self.read(path, must_tell),
            Err(refusal) => Err(refusal.clone()),
        };
        match read {
            Ok(Some(read)) => self.tell(path, &read),
            Ok(None) => self.skip(path),
            // a special or closed file with an unrelated name is as little our business as its neighbours
            Err(refusal) if step.outcome.is_ok() && !must_tell && refusal.code != "too_large" => self.skip(path),
            Err(refusal) => self.warn(path, refusal.code, refusal.detail),
        }
    }

    /// What `path` holds; `None` when that is neither a certificate nor a key, and nobody said that it would be.
    fn read(&self, path: &Path, must_tell: bool) -> Result<Option<Read>, Refusal> {
        let mut opened: Opened = files::open(path)?;
        let metadata = opened.metadata.clone();
        if !must_tell && !contents::is_promising(opened.start(START_BYTES)?) {
            return Ok(None);
        }
        let bytes = opened.whole(self.limits.file_bytes)?;
        if bytes.is_empty() {
            return Err(Refusal::new("empty_file", "the file is empty"));
        }
        let contents = contents::read(&bytes, self.wanted, || self.settings.password(path));
        let found_nothing = contents.certificates.is_empty() && contents.keys.is_empty();
        let is_unrelated = found_nothing && contents.notes.iter().all(|note| note.code == "not_a_certificate");
        Ok((must_tell || !is_unrelated).then_some(Read { metadata, contents }))
    }

    fn tell(&mut self, path: &Path, read: &Read) {
        let place = Place::new(path, Protection::from(&read.metadata), modified_at(&read.metadata));
        match self.wanted {
            Wanted::Certificates => self.page.assets.extend(assets::certificates(&place, &read.contents)),
            Wanted::Keys => self.page.assets.extend(assets::keys(&place, &read.contents)),
        }
        if path.to_str().is_none() {
            self.warn(path, "non_utf8_path", "the path is not UTF-8 and is shown with replacement characters");
        }
        for note in &read.contents.notes {
            self.warn(path, note.code, note.detail.clone());
        }
    }

    fn skip(&mut self, path: &Path) {
        let directory = path.parent().unwrap_or(path).to_owned();
        *self.skipped.entry(directory).or_default() += 1;
    }

    fn warn(&mut self, path: &Path, code: &str, detail: impl Into<String>) {
        if self.wanted == Wanted::Certificates {
            self.page.warnings.push(Warning::new(printable(&path.to_string_lossy()), code, detail));
        }
    }

    fn finish(mut self) -> Page {
        for (directory, count) in std::mem::take(&mut self.skipped) {
            let files = if count == 1 { "file" } else { "files" };
            let detail =
                format!("{count} {files} in this directory: neither certificate nor key, or closed to the worker");
            self.warn(&directory, "unrelated_files", detail);
        }
        self.page
    }
}

fn is_named_like_a_certificate(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| CERTIFICATE_ENDINGS.contains(&ending.as_str()))
        || path.file_name().is_some_and(is_rehashed)
}

fn modified_at(metadata: &Metadata) -> Option<DateTime<Utc>> {
    let since_1970 = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    DateTime::from_timestamp(i64::try_from(since_1970.as_secs()).ok()?, 0)
}

#[cfg(test)]
mod tests;
