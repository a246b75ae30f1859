//! Amazon S3, and what speaks its protocol at `AWS_ENDPOINT_URL`.

use super::{ATTEMPTS, Bucket, CHUNK, Chunks, Content, Creation, Store, StoreError, TIMEOUT, expect, finish};
use async_trait::async_trait;
use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::StreamExt;
use std::{ops::Range, path::Path, time::Duration};
use tokio::{fs::File, io::AsyncReadExt};

/// Smaller files go in one request; of larger ones this much is held in memory at once.
const PART: u64 = 8 * 1024 * 1024;
/// More parts than this the service does not take.
const MOST_PARTS: u64 = 10_000;
/// A part may take long on a slow line.
const PART_TIMEOUT: Duration = Duration::from_secs(300);
const CONTENT_TYPE: &str = "application/zip";

pub(super) struct S3 {
    client: Client,
    bucket: Bucket,
}

impl S3 {
    pub(super) async fn open(bucket: Bucket) -> Self {
        let limits = TimeoutConfig::builder().connect_timeout(TIMEOUT).operation_attempt_timeout(PART_TIMEOUT).build();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(limits)
            .load()
            .await;
        // servers that are not Amazon's are seldom reached by a name per bucket
        let path_style = shared.endpoint_url().is_some() || bucket.name.contains('.');
        let config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(path_style).build();
        Self { client: Client::from_conf(config), bucket }
    }

    async fn whole(&self, key: &str, file: &Path, content: &Content) -> Result<Creation, StoreError> {
        let bytes = tokio::fs::read(file).await?;
        let (sha256, size) = (digest(&SHA256, &bytes), bytes.len() as u64);
        expect(content, size, content.sha256)?;
        if sha256.as_ref() != content.sha256 {
            return Err(StoreError::WrongChecksum { detail: "the file changed while it was read".to_owned() });
        }
        let request = self.client.put_object().bucket(&self.bucket.name).key(self.bucket.object(key));
        let sent = request
            .if_none_match("*")
            .content_type(CONTENT_TYPE)
            .checksum_sha256(STANDARD.encode(sha256.as_ref()))
            .body(ByteStream::from(bytes))
            .send()
            .await;
        created(sent.map(|_| ()))
    }

    /// Nothing is visible before the last request, which names every part by its checksum.
    async fn in_parts(&self, key: &str, file: &Path, content: &Content) -> Result<Creation, StoreError> {
        let object = self.bucket.object(key);
        let begun = self.client.create_multipart_upload().bucket(&self.bucket.name).key(&object);
        let begun = begun
            .content_type(CONTENT_TYPE)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_type(ChecksumType::Composite)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let upload = begun.upload_id.ok_or_else(|| reply("it names no upload"))?;
        let sent = async {
            let parts = self.parts(&object, &upload, file, content).await?;
            let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
            let request = self.client.complete_multipart_upload().bucket(&self.bucket.name).key(&object);
            let sent = request.upload_id(&upload).if_none_match("*").multipart_upload(parts).send().await;
            created(sent.map(|_| ()))
        }
        .await;
        if !matches!(sent, Ok(Creation::New)) {
            // what cannot be taken back now is invisible, and the bucket's rule for unfinished uploads ends it
            let request = self.client.abort_multipart_upload().bucket(&self.bucket.name).key(&object);
            let _ = request.upload_id(&upload).send().await;
        }
        sent
    }

    async fn parts(
        &self,
        object: &str,
        upload: &str,
        file: &Path,
        content: &Content,
    ) -> Result<Vec<CompletedPart>, StoreError> {
        let part_size = PART.max(content.size.div_ceil(MOST_PARTS));
        let mut file = File::open(file).await?;
        let (mut all, mut size, mut parts) = (Context::new(&SHA256), 0, Vec::new());
        loop {
            let mut bytes = Vec::with_capacity(usize::try_from(part_size).unwrap_or(CHUNK));
            (&mut file).take(part_size).read_to_end(&mut bytes).await?;
            if bytes.is_empty() {
                break;
            }
            all.update(&bytes);
            size += bytes.len() as u64;
            let number = i32::try_from(parts.len() + 1).map_err(|_| reply("the file has too many parts"))?;
            let checksum = STANDARD.encode(digest(&SHA256, &bytes));
            let request = self.client.upload_part().bucket(&self.bucket.name).key(object).upload_id(upload);
            let request = request.part_number(number).checksum_algorithm(ChecksumAlgorithm::Sha256);
            let request = request.checksum_sha256(&checksum).body(ByteStream::from(bytes));
            let sent = request.send().await.map_err(|error| failed(&error))?;
            let done = CompletedPart::builder().part_number(number).checksum_sha256(checksum);
            parts.push(done.set_e_tag(sent.e_tag).build());
        }
        expect(content, size, finish(all))?;
        Ok(parts)
    }
}

#[async_trait]
impl Store for S3 {
    async fn create(&self, key: &str, file: &Path, content: &Content) -> Result<Creation, StoreError> {
        if content.size <= PART {
            self.whole(key, file, content).await
        } else {
            self.in_parts(key, file, content).await
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Chunks, StoreError> {
        let request = self.client.get_object().bucket(&self.bucket.name).key(self.bucket.object(key));
        let range = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let answer = request.range(range).send().await.map_err(|error| missing(key, failed(&error)))?;
        let chunks = futures::stream::unfold(answer.body, |mut body| async move {
            let next = body.next().await?;
            Some((next.map_err(|_| away("the transfer broke off")), body))
        });
        Ok(chunks.map(|chunk: Result<Bytes, _>| chunk).boxed())
    }

    async fn signed_url(&self, key: &str, file_name: &str, life: Duration) -> Result<Option<String>, StoreError> {
        let request = self.client.get_object().bucket(&self.bucket.name).key(self.bucket.object(key));
        let life = PresigningConfig::expires_in(life).map_err(|_| reply("its addresses do not live so long"))?;
        let named = request.response_content_disposition(format!("attachment; filename=\"{file_name}\""));
        let signed = named.presigned(life).await.map_err(|error| failed(&error))?;
        Ok(Some(signed.uri().to_owned()))
    }
}

/// Of a name that is taken, or being taken by somebody else's request, nothing was changed.
fn created<E: ProvideErrorMetadata, R>(sent: Result<(), SdkError<E, R>>) -> Result<Creation, StoreError> {
    match sent {
        Ok(()) => Ok(Creation::New),
        Err(SdkError::ServiceError(failure)) if failure.err().code() == Some("PreconditionFailed") => {
            Ok(Creation::Exists)
        }
        Err(error) => Err(failed(&error)),
    }
}

fn missing(key: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Missing { .. } => StoreError::Missing { key: key.to_owned() },
        other => other,
    }
}

fn reply(detail: &str) -> StoreError {
    StoreError::Reply { detail: detail.to_owned() }
}

fn away(detail: &str) -> StoreError {
    StoreError::Unavailable { detail: detail.to_owned() }
}

/// Reads the code of a reply and drops its words.
fn failed<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> StoreError {
    match error {
        SdkError::TimeoutError(_) => away("no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() || failure.is_io() => away("it cannot be reached"),
        // what is neither sent nor answered lacked what it is signed with
        SdkError::DispatchFailure(_) => {
            StoreError::NoCredentials { detail: "none was found, or it was refused".to_owned() }
        }
        SdkError::ServiceError(failure) => answered(failure.err().code().unwrap_or("unnamed")),
        SdkError::ResponseError(_) => reply("it is not an answer of S3"),
        _ => reply("the request could not be built; check the region and the bucket's name"),
    }
}

fn answered(code: &str) -> StoreError {
    let detail = code.chars().take(64).collect();
    match code {
        "AccessDenied" | "AllAccessDisabled" => StoreError::Denied { detail },
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" => {
            StoreError::NoCredentials { detail }
        }
        "NoSuchBucket" | "PermanentRedirect" | "InvalidBucketName" => StoreError::NoPlace { detail },
        "NoSuchKey" | "NotFound" => StoreError::Missing { key: String::new() },
        "BadDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch" | "InvalidPart" => {
            StoreError::WrongChecksum { detail }
        }
        _ => StoreError::Unavailable { detail },
    }
}
