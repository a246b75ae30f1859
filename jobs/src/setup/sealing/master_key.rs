//! Where the key-encryption key comes from.

use super::envelope::{KeyEncryptionKey, SealError};
use crate::setup::{
    config::MasterKeySource,
    database::Database,
    ids::{self, NoRandomness},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use keywright_entities::{clock, wrapped_key};
use keywright_stores::kms::{Kms, KmsError};
use sea_orm::{DbBackend, DbErr, EntityTrait, Set, sea_query::OnConflict};
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
        "PostgreSQL needs KEYWRIGHT_MASTER_KEY, KEYWRIGHT_MASTER_KEY_FILE or KEYWRIGHT_MASTER_KEY_KMS, because processes on \
         several machines must share one key; make one with `openssl rand -base64 32`"
    )]
    Demanded,
    #[error("the key-encryption key is not 32 bytes in base64; make one with `openssl rand -base64 32`")]
    Form,
    #[error("the key-encryption key file {path} cannot be read or made: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the key-encryption key file {path} may be read by others; run `chmod 600 {path}`")]
    Exposed { path: PathBuf },
    #[error("{kms} does not give the key-encryption key: {reason}")]
    Kms { kms: String, reason: KmsError },
    #[error(
        "this database has no key-encryption key that {kms} has wrapped; it was sealed with another one. To change to this one, \
         give the other as KEYWRIGHT_MASTER_KEY_PREVIOUS and run `keywright-api rewrap`"
    )]
    NotWrapped { kms: String },
    #[error("{kms} unwrapped another key-encryption key than was wrapped; nothing was changed")]
    Unwrapped { kms: String },
    #[error("KEYWRIGHT_MASTER_KEY_PREVIOUS: {0}")]
    Previous(Box<Self>),
    #[error("the wrapped key-encryption key cannot be read or written: {0}")]
    Database(#[from] DbErr),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl MasterKeyError {
    pub(super) fn previous(self) -> Self {
        Self::Previous(Box::new(self))
    }

    /// Whether starting again without a change of the configuration is of no use.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Kms { reason, .. } => !reason.is_transient(),
            Self::Previous(error) => error.is_configuration(),
            Self::Database(_) | Self::NoRandomness(_) | Self::Seal(_) => false,
            Self::Demanded
            | Self::Form
            | Self::File { .. }
            | Self::Exposed { .. }
            | Self::NotWrapped { .. }
            | Self::Unwrapped { .. } => true,
        }
    }
}

impl MasterKeySource {
    /// Reads the key, or makes it where that is possible and `may_make` allows it.
    ///
    /// # Errors
    /// [`MasterKeyError`] says what to do.
    pub async fn load(&self, db: &Database, may_make: bool) -> Result<KeyEncryptionKey, MasterKeyError> {
        match self {
            Self::Given(text) => parse(text.expose_secret()),
            Self::File(path) => read(path),
            Self::Kms(kms) => unwrap(db, kms, may_make).await,
            Self::Local(path) => local(path, db.backend(), may_make),
        }
    }
}

pub(super) fn local(path: &Path, backend: DbBackend, may_make: bool) -> Result<KeyEncryptionKey, MasterKeyError> {
    if backend != DbBackend::Sqlite {
        return Err(MasterKeyError::Demanded);
    }
    if may_make && !path.exists() {
        make(path)?;
    }
    check_mode(path)?;
    read(path)
}

/// Has the service unwrap the key that is in the database: one call for the life of the process.
async fn unwrap(db: &Database, kms: &Kms, may_make: bool) -> Result<KeyEncryptionKey, MasterKeyError> {
    let name = kms.to_string();
    let row = match wrapped_key::by_kms(db.reader(), &name).await? {
        Some(row) => row,
        None if may_make => wrap_new(db, kms).await?,
        None => return Err(MasterKeyError::NotWrapped { kms: name }),
    };
    let bytes = kms.unwrap(&row.wrapped).await.map_err(|reason| MasterKeyError::Kms { kms: name.clone(), reason })?;
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| MasterKeyError::Unwrapped { kms: name.clone() })?;
    let key = KeyEncryptionKey::new(bytes)?;
    if key.id() == row.kek_id { Ok(key) } else { Err(MasterKeyError::Unwrapped { kms: name }) }
}

/// Makes a key and keeps it wrapped, unless another process was faster; returns the one that counts.
async fn wrap_new(db: &Database, kms: &Kms) -> Result<wrapped_key::Model, MasterKeyError> {
    let name = kms.to_string();
    let key = Zeroizing::new(ids::random::<32>()?);
    let wrapped = kms.wrap(key.as_slice()).await;
    let wrapped = wrapped.map_err(|reason| MasterKeyError::Kms { kms: name.clone(), reason })?;
    let write = db.begin().await?;
    let row = wrapped_key::ActiveModel {
        kms: Set(name.clone()),
        kek_id: Set(KeyEncryptionKey::new(&key)?.id().to_owned()),
        wrapped: Set(wrapped),
        created_at: Set(clock::micros(clock::now(&*write).await?)),
    };
    wrapped_key::Entity::insert(row)
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(&*write)
        .await?;
    write.commit().await?;
    let missing = || DbErr::RecordNotFound("the wrapped key was written but is not there".to_owned());
    Ok(wrapped_key::by_kms(db.reader(), &name).await?.ok_or_else(missing)?)
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
