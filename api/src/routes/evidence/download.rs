//! Sending a file of the evidence store: whole or a range of it, or the address at which it can be had.

use super::EvidenceApi;
use crate::{
    answer::any_match,
    auth::Principal,
    context,
    error::{ApiError, Code},
};
use futures::TryStreamExt;
use keywright_entities::evidence_package;
use keywright_jobs::audit::{Event, EventType};
use poem::{
    Body, Request,
    http::{HeaderValue, header},
    web::headers::{HeaderMapExt, Range as RangeHeader},
};
use poem_openapi::{ApiResponse, payload::Binary};
use std::{
    io,
    ops::{Bound, Range},
};

/// A file of a package.
pub struct File {
    key: String,
    pub name: String,
    size: u64,
    /// In hex: the validator too.
    sha256: String,
}

impl File {
    /// The package itself; `None` while it is not built.
    pub fn package(row: &evidence_package::Model) -> Option<Self> {
        row.built_at?;
        Self::of(row.object_key.as_ref()?, row.size?, row.sha256.as_ref()?, format!("evidence-{}.zip", row.id))
    }

    /// The report alone.
    pub fn report(row: &evidence_package::Model) -> Option<Self> {
        row.built_at?;
        let name = format!("evidence-{}.pdf", row.id);
        Self::of(row.report_key.as_ref()?, row.report_size?, row.report_sha256.as_ref()?, name)
    }

    fn of(key: &str, size: i64, sha256: &str, name: String) -> Option<Self> {
        Some(Self { key: key.to_owned(), name, size: u64::try_from(size).ok()?, sha256: sha256.to_owned() })
    }

    pub fn etag(&self) -> String {
        format!("\"{}\"", self.sha256)
    }

    pub fn disposition(&self) -> String {
        format!("attachment; filename=\"{}\"", self.name)
    }
}

/// A file, or a part of it.
#[derive(ApiResponse)]
pub enum Download {
    /// The whole file.
    #[oai(status = 200, content_type = "application/zip")]
    Whole(
        Binary<Body>,
        /// Names its bytes.
        #[oai(header = "ETag")]
        String,
        /// In bytes.
        #[oai(header = "Content-Length")]
        u64,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
        /// `bytes`.
        #[oai(header = "Accept-Ranges")]
        String,
    ),
    /// The range that was asked for.
    #[oai(status = 206, content_type = "application/zip")]
    Part(
        Binary<Body>,
        /// Names the bytes of the whole file.
        #[oai(header = "ETag")]
        String,
        /// Of the range, in bytes.
        #[oai(header = "Content-Length")]
        u64,
        /// Which range of how many bytes.
        #[oai(header = "Content-Range")]
        String,
        /// A name for it.
        #[oai(header = "Content-Disposition")]
        String,
    ),
    /// Where the file can be had without further credentials, for a few minutes.
    #[oai(status = 302)]
    Elsewhere(
        /// The address. Whoever has it can read the file.
        #[oai(header = "Location")]
        String,
        /// `no-store`.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// The client has this file already.
    #[oai(status = 304)]
    NotModified(
        /// Names its bytes.
        #[oai(header = "ETag")]
        String,
    ),
}

/// A request for a file.
pub struct Asked<'a> {
    pub api: &'a EvidenceApi,
    pub caller: &'a Principal,
    pub request: &'a Request,
}

impl Asked<'_> {
    /// Answers with the file, and tells the audit log.
    ///
    /// # Errors
    /// 409 `evidence_store_not_shared`, 416 for a range outside of the file, 503 when the store does not answer.
    pub async fn file(&self, row: &evidence_package::Model, file: File) -> Result<Download, ApiError> {
        let sent = |name| self.request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let same = sent(header::IF_RANGE).is_none_or(|have| have == file.etag());
        let range = if same { self.range(file.size)? } else { None };
        self.answer(row, file, range).await
    }

    /// The same, whatever range was asked for.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub async fn whole(&self, row: &evidence_package::Model, file: File) -> Result<Download, ApiError> {
        self.answer(row, file, None).await
    }

    async fn answer(
        &self,
        row: &evidence_package::Model,
        file: File,
        range: Option<Range<u64>>,
    ) -> Result<Download, ApiError> {
        let etag = file.etag();
        let sent = |name| self.request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if sent(header::IF_NONE_MATCH).is_some_and(|have| any_match(have, &etag)) {
            return Ok(Download::NotModified(etag));
        }
        let objects = self.shared(row).await?;
        if let Some(life) = self.api.setup.signed_urls
            && let Some(address) = objects.signed_url(&file.key, &file.name, life).await?
        {
            self.told(row, &file, "signed_url").await?;
            return Ok(Download::Elsewhere(address, "no-store".to_owned()));
        }
        let wanted = range.clone().unwrap_or(0..file.size);
        let chunks = objects.read(&file.key, wanted.clone()).await?;
        self.told(row, &file, "sent").await?;
        let body = Binary(Body::from_bytes_stream(chunks.map_err(io::Error::other)));
        let (length, disposition) = (wanted.end - wanted.start, file.disposition());
        Ok(match range {
            None => Download::Whole(body, etag, length, disposition, "bytes".to_owned()),
            Some(range) => {
                let which = format!("bytes {}-{}/{}", range.start, range.end - 1, file.size);
                Download::Part(body, etag, length, which, disposition)
            }
        })
    }

    /// The one range that was asked for; several at once are answered with the whole (RFC 9110, 14.2).
    fn range(&self, size: u64) -> Result<Option<Range<u64>>, ApiError> {
        let Some(header) = self.request.headers().typed_get::<RangeHeader>() else { return Ok(None) };
        let text = self.request.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text.contains(',') {
            return Ok(None);
        }
        let within = |(start, end): (Bound<u64>, Bound<u64>)| {
            let start = match start {
                Bound::Included(start) => start,
                Bound::Excluded(start) => start.saturating_add(1),
                Bound::Unbounded => 0,
            };
            let end = match end {
                Bound::Included(end) => end.saturating_add(1).min(size),
                Bound::Excluded(end) => end.min(size),
                Bound::Unbounded => size,
            };
            (start < end).then_some(start..end)
        };
        match header.satisfiable_ranges(size).next().and_then(within) {
            Some(range) => Ok(Some(range)),
            None => {
                let whole = HeaderValue::from_str(&format!("bytes */{size}")).map_err(ApiError::internal)?;
                let detail = format!("The file has {size} bytes, and none of them is in this range.");
                Err(ApiError::new(Code::RangeNotSatisfiable, detail).with_header(header::CONTENT_RANGE, whole))
            }
        }
    }

    async fn shared(
        &self,
        row: &evidence_package::Model,
    ) -> Result<&keywright_jobs::evidence::objects::Objects, ApiError> {
        let objects = self.api.setup.store.objects().await?;
        if objects.identity() == row.store {
            return Ok(objects);
        }
        let detail = "The package lies in another evidence store than the one of this process. Give all processes the same \
                      KEYWRIGHT_EVIDENCE_STORE, and where it is local the same KEYWRIGHT_DATA_DIR.";
        Err(ApiError::new(Code::EvidenceStoreNotShared, detail))
    }

    async fn told(&self, row: &evidence_package::Model, file: &File, how: &str) -> Result<(), ApiError> {
        let write = self.api.database.begin().await?;
        Event::new(EventType::EvidenceDownloaded, self.caller.actor(), "evidence")
            .subject(row.id)
            .request(context::request_id())
            .detail("file", file.name.as_str())
            .detail("sha256", file.sha256.as_str())
            .detail("how", how)
            .write(&*write)
            .await?;
        Ok(write.commit().await?)
    }
}
