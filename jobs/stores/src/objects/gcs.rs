//! Google Cloud Storage, by Google's own client.

use super::{ATTEMPTS, Bucket, Chunks, Content, Creation, Store, StoreError, expect, finish};
use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use futures::StreamExt;
use google_cloud_auth::credentials::{Builder as CredentialsBuilder, Credentials};
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_storage::{
    Error, builder::storage::SignedUrlBuilder, client::Storage, model_ext::ReadRange, retry_policy::RetryableErrors,
};
use std::{ops::Range, path::Path, time::Duration};
use tokio::{fs::File, io::AsyncReadExt};
use url::Url;

/// May read and create objects, and nothing outside the service.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const CONTENT_TYPE: &str = "application/zip";
/// Every file goes in one request, streamed, and a repeated one begins anew: parts could be resumed, but no server that we can test
/// with takes them from this client.
const ONE_REQUEST: usize = usize::MAX;
/// A request is not repeated after so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Gcs {
    client: Storage,
    bucket: Bucket,
    endpoint: Option<String>,
}

impl Gcs {
    pub(super) async fn open(bucket: Bucket, endpoint: Option<Url>) -> Result<Self, StoreError> {
        let credentials = CredentialsBuilder::default().with_scopes([SCOPE]).build();
        let credentials = credentials.map_err(|_| no_credentials("none was found, or it is of an unknown kind"))?;
        let endpoint = endpoint.map(|url| url.as_str().trim_end_matches('/').to_owned());
        let client = client(credentials, endpoint.as_deref()).await?;
        Ok(Self { client, bucket, endpoint })
    }

    fn bucket(&self) -> String {
        format!("projects/_/buckets/{}", self.bucket.name)
    }
}

async fn client(credentials: Credentials, endpoint: Option<&str>) -> Result<Storage, StoreError> {
    let policy = RetryableErrors.with_attempt_limit(ATTEMPTS).with_time_limit(PATIENCE);
    let builder = Storage::builder().with_credentials(credentials).with_retry_policy(policy);
    let builder = builder.with_resumable_upload_threshold(ONE_REQUEST);
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    builder.build().await.map_err(|_| no_credentials("its client could not be made"))
}

/// What the service is to compare what arrives with; a file that is not what was announced is not sent.
async fn crc32c(file: &Path, content: &Content) -> Result<u32, StoreError> {
    let mut file = File::open(file).await?;
    let (mut context, mut crc, mut size) = (Context::new(&SHA256), 0, 0);
    let mut chunk = vec![0; super::CHUNK];
    loop {
        let read = file.read(&mut chunk).await?;
        let Some(read) = chunk.get(..read).filter(|read| !read.is_empty()) else { break };
        context.update(read);
        crc = crc32c::crc32c_append(crc, read);
        size += read.len() as u64;
    }
    expect(content, size, finish(context))?;
    Ok(crc)
}

#[async_trait]
impl Store for Gcs {
    async fn create(&self, key: &str, file: &Path, content: &Content) -> Result<Creation, StoreError> {
        let crc = crc32c(file, content).await?;
        let file = File::open(file).await?;
        let write = self.client.write_object(self.bucket(), self.bucket.object(key), file);
        // with this condition a request may be repeated: it creates once
        let sent = write
            .set_if_generation_match(0)
            .with_idempotency(true)
            .set_content_type(CONTENT_TYPE)
            .with_known_crc32c(crc)
            .send_unbuffered()
            .await;
        match sent {
            Ok(object) if u64::try_from(object.size).ok() == Some(content.size) => Ok(Creation::New),
            Ok(_) => Err(StoreError::WrongChecksum { detail: "the object has another size".to_owned() }),
            Err(error) if error.http_status_code() == Some(412) => Ok(Creation::Exists),
            Err(error) => Err(no_bucket(failed(&error))),
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Chunks, StoreError> {
        let range = ReadRange::segment(range.start, range.end.saturating_sub(range.start));
        let read = self.client.read_object(self.bucket(), self.bucket.object(key)).set_read_range(range);
        let answer = read.send().await.map_err(|error| missing(key, failed(&error)))?;
        let chunks = futures::stream::unfold(answer, |mut answer| async move {
            let next = answer.next().await?;
            Some((next.map_err(|error| failed(&error)), answer))
        });
        Ok(chunks.boxed())
    }

    async fn signed_url(&self, key: &str, file_name: &str, life: Duration) -> Result<Option<String>, StoreError> {
        let signer = CredentialsBuilder::default().build_signer();
        let signer = signer.map_err(|_| no_credentials("what this process has cannot sign"))?;
        let builder = SignedUrlBuilder::for_object(self.bucket(), self.bucket.object(key)).with_expiration(life);
        let named = format!("attachment; filename=\"{file_name}\"");
        let builder = builder.with_query_param("response-content-disposition", named);
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        let signed = builder.sign_with(&signer).await;
        signed.map(Some).map_err(|_| no_credentials("what this process has cannot sign"))
    }
}

fn missing(key: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Missing { .. } => StoreError::Missing { key: key.to_owned() },
        other => other,
    }
}

/// What creates finds everything but its bucket.
fn no_bucket(error: StoreError) -> StoreError {
    match error {
        StoreError::Missing { .. } => StoreError::NoPlace { detail: "404".to_owned() },
        other => other,
    }
}

fn no_credentials(detail: &str) -> StoreError {
    StoreError::NoCredentials { detail: detail.to_owned() }
}

fn failed(error: &Error) -> StoreError {
    if let Some(status) = error.http_status_code() {
        let detail = status.to_string();
        return match status {
            401 => StoreError::NoCredentials { detail },
            403 => StoreError::Denied { detail },
            404 => StoreError::Missing { key: String::new() },
            400 => StoreError::WrongChecksum { detail },
            status if (402..500).contains(&status) && ![408, 429].contains(&status) => StoreError::Reply { detail },
            _ => StoreError::Unavailable { detail },
        };
    }
    if error.is_authentication() {
        return no_credentials("they were refused, or could not be renewed");
    }
    if error.is_deserialization() || error.is_serialization() {
        return StoreError::WrongChecksum { detail: "what it stored differs from what was sent".to_owned() };
    }
    StoreError::Unavailable { detail: "it cannot be reached".to_owned() }
}
