//! A directory of this machine, or one that several machines mount.

use super::{CHUNK, Chunks, Content, Creation, Store, StoreError, expect, file_chunks, finish};
use async_trait::async_trait;
use aws_lc_rs::{
    digest::{Context, SHA256},
    rand::{SecureRandom, SystemRandom},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

/// Tells one directory from another of the same path on another machine.
const MARKER: &str = ".keywright-evidence-store";
/// What is being written has such a name, which no reader asks for.
const PARTIAL: &str = ".partial";

pub(super) struct Local {
    folder: PathBuf,
    identity: String,
}

impl Local {
    pub(super) async fn open(folder: PathBuf) -> Result<Self, StoreError> {
        tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&folder).map_err(|error| no_place(&folder, &error))?;
            let identity = marker(&folder).map_err(|error| no_place(&folder, &error))?;
            Ok(Self { folder, identity })
        })
        .await
        .map_err(|_| io::Error::other("the directory could not be looked at"))?
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }
}

/// The directory's own name for itself, made by whoever comes first. It appears whole or not at all.
fn marker(folder: &Path) -> io::Result<String> {
    let path = folder.join(MARKER);
    for _ in 0..2 {
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(format!("local:{}", text.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let name = random_name()?;
        let draft = folder.join(format!("{MARKER}.{name}"));
        durable(&draft, |file| writeln!(file, "{name}"))?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(folder)?,
        }
    }
    Err(io::Error::other("the marker file comes and goes"))
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    Ok(hex::encode(bytes))
}

/// Makes a file that is on the disk when this returns.
fn durable<T>(path: &Path, write: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = write(&mut file)?;
    file.sync_all()?;
    Ok(written)
}

/// A name is there after a crash only when its directory was synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn no_place(folder: &Path, error: &io::Error) -> StoreError {
    StoreError::NoPlace { detail: format!("{}: {error}", folder.display()) }
}

/// Copies the file, and tells what it held.
fn copy(from: &Path, to: &mut File) -> io::Result<(u64, [u8; 32])> {
    let mut source = File::open(from)?;
    let (mut context, mut size) = (Context::new(&SHA256), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = source.read(&mut chunk)?;
        let Some(read) = chunk.get(..read).filter(|read| !read.is_empty()) else { break };
        context.update(read);
        to.write_all(read)?;
        size += read.len() as u64;
    }
    Ok((size, finish(context)))
}

/// A link appears whole or not at all and never replaces anything, which a rename would.
fn create(path: &Path, file: &Path, content: &Content) -> Result<Creation, StoreError> {
    if path.try_exists()? {
        return Ok(Creation::Exists);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}{PARTIAL}", random_name()?));
    let partial = PathBuf::from(partial);
    let made = durable(&partial, |to| copy(file, to)).map_err(StoreError::from).and_then(|(size, sha256)| {
        expect(content, size, sha256)?;
        match fs::hard_link(&partial, path) {
            Ok(()) => Ok(Creation::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Creation::Exists),
            Err(error) => Err(error.into()),
        }
    });
    let removed = fs::remove_file(&partial);
    let made = made?;
    removed?;
    sync_folder(folder)?;
    Ok(made)
}

#[async_trait]
impl Store for Local {
    async fn create(&self, key: &str, file: &Path, content: &Content) -> Result<Creation, StoreError> {
        if !self.folder.try_exists()? {
            return Err(no_place(&self.folder, &io::ErrorKind::NotFound.into()));
        }
        let (path, file, content) = (self.path(key), file.to_owned(), *content);
        let created = tokio::task::spawn_blocking(move || create(&path, &file, &content)).await;
        created.map_err(|_| io::Error::other("the copy was cut off"))?
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Chunks, StoreError> {
        match tokio::fs::File::open(self.path(key)).await {
            Ok(file) => Ok(file_chunks(file, range)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing { key: key.to_owned() }),
            Err(error) => Err(error.into()),
        }
    }

    async fn signed_url(&self, _: &str, _: &str, _: Duration) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
}
