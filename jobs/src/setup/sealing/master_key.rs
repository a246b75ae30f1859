//! Where the key-encryption key comes from.

use super::envelope::{KeyEncryptionKey, SealError};
use crate::setup::{
    config::MasterKeySource,
    ids::{self, NoRandomness},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use sea_orm::DbBackend;
use secrecy::ExposeSecret;
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};
use thiserror::Error;
use zeroize::Zeroizing;

/// Why there is no key-encryption key.
#[derive(Debug, Error)]
pub enum MasterKeyError {
    #[error(
        "PostgreSQL needs KEYWRIGHT_MASTER_KEY or KEYWRIGHT_MASTER_KEY_FILE, because processes on several machines must \
         share one key; make one with `openssl rand -base64 32`"
    )]
    Demanded,
    #[error("the key-encryption key is not 32 bytes in base64; make one with `openssl rand -base64 32`")]
    Form,
    #[error("the key-encryption key file {path} cannot be read or made: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the key-encryption key file {path} may be read by others; run `chmod 600 {path}`")]
    Exposed { path: PathBuf },
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKeySource {
    /// Reads the key, or makes it where that is allowed.
    ///
    /// # Errors
    /// [`MasterKeyError`] says what to do.
    pub fn load(&self, backend: DbBackend) -> Result<KeyEncryptionKey, MasterKeyError> {
        match self {
            Self::Given(text) => parse(text.expose_secret()),
            Self::File(path) => read(path),
            Self::Local(_) if backend != DbBackend::Sqlite => Err(MasterKeyError::Demanded),
            Self::Local(path) => {
                if !path.exists() {
                    make(path)?;
                }
                check_mode(path)?;
                read(path)
            }
        }
    }
}

fn parse(text: &str) -> Result<KeyEncryptionKey, MasterKeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| MasterKeyError::Form)?);
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| MasterKeyError::Form)?;
    Ok(KeyEncryptionKey::new(bytes)?)
}

fn read(path: &Path) -> Result<KeyEncryptionKey, MasterKeyError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|source| failed(path, source))?);
    parse(&text)
}

/// Makes the file whole or not at all, and never over an existing one: two processes may start at once.
fn make(path: &Path) -> Result<(), MasterKeyError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| failed(path, source))?;
    let draft = folder.join(format!(".master.key.{}", ids::new()));
    let made = write_new(&draft).map_err(|source| failed(path, source));
    let linked = made.and_then(|()| match fs::hard_link(&draft, path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(failed(path, source)),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&draft).map_err(|source| failed(&draft, source));
    linked.and(removed)
}

fn write_new(path: &Path) -> io::Result<()> {
    let key = Zeroizing::new(ids::random::<32>().map_err(io::Error::other)?);
    let text = Zeroizing::new(STANDARD.encode(key.as_slice()) + "\n");
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), MasterKeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|source| failed(path, source))?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(MasterKeyError::Exposed { path: path.to_owned() }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), MasterKeyError> {
    Ok(())
}

fn failed(path: &Path, source: io::Error) -> MasterKeyError {
    MasterKeyError::File { path: path.to_owned(), source }
}
