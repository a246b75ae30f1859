//! Stores of whole files: evidence packages, and what else must outlive the database's word about it.
//!
//! An object is created once, whole, under a name of its own, and never replaced: [`Objects::create`] either leaves the object
//! with exactly these bytes or leaves nothing that a reader could see.

mod gcs;
mod local;
mod s3;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use url::Url;

/// How long one request may take that carries no file.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is sent while the service is away or busy.
const ATTEMPTS: u32 = 4;
/// What is read from a file at once.
const CHUNK: usize = 256 * 1024;

/// Where objects are kept, by the name that the operator gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// A directory of this machine.
    #[default]
    Local,
    S3(Bucket),
    Gcs(Bucket),
}

/// A bucket, and what the names of our objects in it begin with: empty, or ending in a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub name: String,
    pub prefix: String,
}

/// The text is not the name of a store.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("is not the name of a store; write local, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")]
pub struct WrongPlace;

/// The size and the SHA-256 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub sha256: [u8; 32],
}

/// What an object's bytes come as.
pub type Chunks = BoxStream<'static, Result<Bytes, StoreError>>;

/// Why a store did not do what it was asked. The text never holds a secret nor the service's raw reply.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "the evidence store did not answer ({detail}); what was under way left nothing visible, and may be tried again"
    )]
    Unavailable { detail: String },
    #[error("the evidence store refuses this process ({detail}); allow its identity to create and read objects there")]
    Denied { detail: String },
    #[error(
        "there are no credentials for the evidence store ({detail}); give them as the provider's official tools read them"
    )]
    NoCredentials { detail: String },
    #[error(
        "the evidence store's bucket or directory is not there ({detail}); make it, or correct KEYWRIGHT_EVIDENCE_STORE"
    )]
    NoPlace { detail: String },
    #[error("the object {key} is not in the evidence store; somebody removed it there")]
    Missing { key: String },
    #[error(
        "the evidence store already has an object {key} with other bytes; it was left as it is. Move it away and try again"
    )]
    Conflict { key: String },
    #[error(
        "the bytes that arrived are not those that were sent ({detail}); nothing was left visible, and it may be tried again"
    )]
    WrongChecksum { detail: String },
    #[error("the evidence store's answer is not understood ({detail})")]
    Reply { detail: String },
    #[error("the file could not be read or written: {0}")]
    File(#[from] io::Error),
}

impl StoreError {
    /// Whether the same may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::WrongChecksum { .. } | Self::Reply { .. } | Self::File(_))
    }
}

/// What became of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Creation {
    New,
    /// There is an object of this name; it was left as it is.
    Exists,
}

/// One kind of store. Names are made by us: lower-case letters, digits, `-`, `.` and `/`.
#[async_trait]
trait Store: Send + Sync {
    /// Makes the object visible whole, unless one of this name exists.
    async fn create(&self, key: &str, file: &Path, content: &Content) -> Result<Creation, StoreError>;

    /// These bytes of the object; the range is not empty.
    async fn read(&self, key: &str, range: Range<u64>) -> Result<Chunks, StoreError>;

    /// An address that lets whoever has it read the object for so long; `None` where a store has no addresses.
    async fn signed_url(&self, key: &str, file_name: &str, life: Duration) -> Result<Option<String>, StoreError>;
}

/// The store of this process.
#[derive(Clone)]
pub struct Objects {
    identity: String,
    store: Arc<dyn Store>,
}

impl Objects {
    /// Opens the store; `folder` is the directory of [`Place::Local`], which is made when it is not there. A bucket is not
    /// looked at before it is used.
    ///
    /// # Errors
    /// When the directory cannot be made or written, or there are no credentials.
    pub async fn open(place: &Place, folder: &Path, gcp_endpoint: Option<Url>) -> Result<Self, StoreError> {
        Ok(match place {
            Place::Local => {
                let local = local::Local::open(folder.to_owned()).await?;
                Self { identity: local.identity().to_owned(), store: Arc::new(local) }
            }
            Place::S3(bucket) => {
                Self { identity: place.to_string(), store: Arc::new(s3::S3::open(bucket.clone()).await) }
            }
            Place::Gcs(bucket) => {
                let store = gcs::Gcs::open(bucket.clone(), gcp_endpoint).await?;
                Self { identity: place.to_string(), store: Arc::new(store) }
            }
        })
    }

    /// What tells this store from others: two processes with the same text reach the same objects.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Puts the file there as an object. One of the same name with the same bytes, which an earlier try made, is as good.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is one with other bytes; after any error no reader sees a part of it.
    pub async fn create(&self, key: &str, file: &Path, content: &Content) -> Result<(), StoreError> {
        if self.store.create(key, file, content).await? == Creation::New {
            return Ok(());
        }
        if self.held(key, content.size).await? == *content {
            return Ok(());
        }
        Err(StoreError::Conflict { key: key.to_owned() })
    }

    /// The bytes of the object within `range`.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when somebody removed it; also in the stream when it breaks midway.
    pub async fn read(&self, key: &str, range: Range<u64>) -> Result<Chunks, StoreError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        self.store.read(key, range).await
    }

    /// An address that lets whoever has it read the object for so long; `None` where a store has no addresses.
    ///
    /// # Errors
    /// [`StoreError::NoCredentials`] when what this process has cannot sign.
    pub async fn signed_url(&self, key: &str, file_name: &str, life: Duration) -> Result<Option<String>, StoreError> {
        self.store.signed_url(key, file_name, life).await
    }

    /// What an object holds that should have this size; of a longer one, only that it is longer. Nothing is believed that a service
    /// says of an object: it is read.
    async fn held(&self, key: &str, size: u64) -> Result<Content, StoreError> {
        let (mut context, mut read) = (Context::new(&SHA256), 0);
        let mut chunks = self.read(key, 0..size.saturating_add(1)).await?;
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => {
                    context.update(&chunk);
                    read += chunk.len() as u64;
                }
                // as far as it goes
                Err(StoreError::File(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Content { size: read, sha256: finish(context) })
    }
}

fn finish(context: Context) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    sha256
}

/// A file that is not what was announced is never made visible.
fn expect(content: &Content, size: u64, sha256: [u8; 32]) -> Result<(), StoreError> {
    if (size, sha256) == (content.size, content.sha256) {
        return Ok(());
    }
    Err(StoreError::WrongChecksum { detail: "the file changed while it was read".to_owned() })
}

impl FromStr for Place {
    type Err = WrongPlace;

    fn from_str(text: &str) -> Result<Self, WrongPlace> {
        if text == "local" {
            return Ok(Self::Local);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WrongPlace)?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let dns = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        let named = (3..=222).contains(&name.len()) && name.bytes().all(dns) && !name.contains("..");
        let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/=".contains(&b));
        let walks = prefix.split('/').any(|part| part == "." || part == "..");
        if !named || !plain || walks || prefix.len() > 512 || prefix.contains("//") || prefix.starts_with('/') {
            return Err(WrongPlace);
        }
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let bucket = Bucket { name: name.to_owned(), prefix };
        match scheme {
            "s3" => Ok(Self::S3(bucket)),
            "gs" => Ok(Self::Gcs(bucket)),
            _ => Err(WrongPlace),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::S3(bucket) => write!(f, "s3://{}/{}", bucket.name, bucket.prefix),
            Self::Gcs(bucket) => write!(f, "gs://{}/{}", bucket.name, bucket.prefix),
        }
    }
}

impl Bucket {
    fn object(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// Reads a part of a file in chunks.
fn file_chunks(mut file: tokio::fs::File, range: Range<u64>) -> Chunks {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let (start, mut left) = (range.start, range.end.saturating_sub(range.start));
    let (send, receive) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        let mut begun = file.seek(io::SeekFrom::Start(start)).await.map(|_| ());
        while left > 0 {
            let next = match std::mem::replace(&mut begun, Ok(())) {
                Ok(()) => {
                    let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
                    file.read(&mut chunk).await.map(|read| {
                        chunk.truncate(read);
                        Bytes::from(chunk)
                    })
                }
                Err(error) => Err(error),
            };
            let next = match next {
                Ok(chunk) if chunk.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let last = next.is_err();
            left = left.saturating_sub(next.as_ref().map_or(0, |chunk| chunk.len() as u64));
            // whoever was reading may have gone
            if send.send(next.map_err(StoreError::from)).await.is_err() || last {
                return;
            }
        }
    });
    futures::stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) }).boxed()
}

/// The directory of the local store below the data directory.
pub fn local_folder(data: &Path) -> PathBuf {
    data.join("evidence")
}

#[cfg(test)]
mod tests;
