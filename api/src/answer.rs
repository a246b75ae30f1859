//! The successful answers that operations share. Refusals are [`crate::error::ApiError`].

use crate::error::ApiError;
use poem_openapi::ApiResponse;
use poem_openapi::payload::Json;
use poem_openapi::types::{ToJSON, Type};

use crate::idempotency::Creation;

/// 201 with the object that was made.
#[derive(Debug)]
pub struct Created<T: Type + ToJSON>(shape::Created<T>);

impl<T: Type + ToJSON> Created<T> {
    /// `location` is the path of the new object.
    pub fn at(location: impl Into<String>, body: T) -> Self {
        Self(shape::Created::Created(Json(body), location.into(), None))
    }

    /// The same with a strong `ETag` made of `version`.
    pub fn versioned(location: impl Into<String>, version: i64, body: T) -> Self {
        Self(shape::Created::Created(Json(body), location.into(), Some(etag(version))))
    }
}

impl<T: Type + ToJSON> Creation for Created<T> {
    type Shape = shape::Created<T>;

    fn into_shape(self) -> Self::Shape {
        self.0
    }
}

/// 202 with the job that was started or joined; 200 when it was done within the client's `Prefer: wait`.
#[derive(Debug)]
pub struct Accepted<T: Type + ToJSON>(shape::Accepted<T>);

impl<T: Type + ToJSON> Accepted<T> {
    /// Under way. `joined` says that the job was already there; `wait` is the wait in seconds that was honoured in vain.
    pub fn job(location: impl Into<String>, body: T, joined: bool, wait: Option<u32>) -> Self {
        let joined = joined.then_some(true);
        Self(shape::Accepted::Accepted(Json(body), location.into(), 2, joined, wait.map(preference)))
    }

    /// Done within `wait` seconds.
    pub fn done(location: impl Into<String>, body: T, joined: bool, wait: u32) -> Self {
        Self(shape::Accepted::Done(Json(body), location.into(), joined.then_some(true), Some(preference(wait))))
    }

    /// As the answer of an operation that ignores `Idempotency-Key`: its job must be durable.
    pub fn joinable(self) -> Joinable<T> {
        self.0
    }
}

/// [`Accepted`] where asking again joins what is under way, so that no key is needed.
pub type Joinable<T> = shape::Accepted<T>;

impl<T: Type + ToJSON> Creation for Accepted<T> {
    type Shape = shape::Accepted<T>;

    fn into_shape(self) -> Self::Shape {
        self.0
    }
}

/// What creating answers look like; only what [`crate::idempotency::Making`] committed is sent.
mod shape {
    use poem_openapi::ApiResponse;
    use poem_openapi::payload::Json;
    use poem_openapi::types::{ToJSON, Type};

    #[derive(Debug, ApiResponse)]
    pub enum Created<T: Type + ToJSON> {
        /// Made.
        #[oai(status = 201)]
        Created(
            Json<T>,
            /// The path of the new object.
            #[oai(header = "Location")]
            String,
            /// The version, for `If-Match`.
            #[oai(header = "ETag")]
            Option<String>,
        ),
    }

    #[derive(Debug, ApiResponse)]
    pub enum Accepted<T: Type + ToJSON> {
        /// Under way: poll `Location`.
        #[oai(status = 202)]
        Accepted(
            Json<T>,
            /// The path of the job.
            #[oai(header = "Location")]
            String,
            /// Seconds after which a first poll makes sense.
            #[oai(header = "Retry-After")]
            u32,
            /// `true` when the request joined a job that was already under way.
            #[oai(header = "Keywright-Deduplicated")]
            Option<bool>,
            /// The part of `Prefer` that was honoured (RFC 7240).
            #[oai(header = "Preference-Applied")]
            Option<String>,
        ),
        /// Done within the wait that was asked for.
        #[oai(status = 200)]
        Done(
            Json<T>,
            /// The path of the job.
            #[oai(header = "Location")]
            String,
            /// `true` when the request joined a job that was already under way.
            #[oai(header = "Keywright-Deduplicated")]
            Option<bool>,
            /// The part of `Prefer` that was honoured (RFC 7240).
            #[oai(header = "Preference-Applied")]
            Option<String>,
        ),
    }
}

/// 202 with the job that is under way.
#[derive(Debug, ApiResponse)]
pub enum UnderWay<T: Type + ToJSON> {
    /// Under way: poll `Location`.
    #[oai(status = 202)]
    UnderWay(
        Json<T>,
        /// The path of the job.
        #[oai(header = "Location")]
        String,
        /// Seconds after which a first poll makes sense.
        #[oai(header = "Retry-After")]
        u32,
    ),
}

impl<T: Type + ToJSON> UnderWay<T> {
    pub fn job(location: impl Into<String>, body: T) -> Self {
        Self::UnderWay(Json(body), location.into(), 2)
    }
}

/// 200 with the object and its version.
#[derive(Debug, ApiResponse)]
pub enum Current<T: Type + ToJSON> {
    /// The object as it is now.
    #[oai(status = 200)]
    Current(
        Json<T>,
        /// The version, for `If-Match`.
        #[oai(header = "ETag")]
        String,
    ),
}

impl<T: Type + ToJSON> Current<T> {
    pub fn at_version(version: i64, body: T) -> Self {
        Self::Current(Json(body), etag(version))
    }
}

fn preference(seconds: u32) -> String {
    format!("wait={seconds}")
}

/// 204: done, and there is nothing to say.
#[derive(Debug, Clone, Copy, ApiResponse)]
pub enum NoContent {
    /// Done.
    #[oai(status = 204)]
    NoContent,
}

/// 200 with the object and its version, or 304 when the client has that version already.
#[derive(Debug, ApiResponse)]
pub enum Found<T: Type + ToJSON> {
    /// The object.
    #[oai(status = 200)]
    Found(
        Json<T>,
        /// The version, for `If-Match` and `If-None-Match`.
        #[oai(header = "ETag")]
        String,
    ),
    /// The client has this version already.
    #[oai(status = 304)]
    NotModified(
        /// The version.
        #[oai(header = "ETag")]
        String,
    ),
}

impl<T: Type + ToJSON> Found<T> {
    /// Answers 304 when `if_none_match` names `version` (RFC 9110, 13.1.2).
    pub fn at_version(version: i64, if_none_match: Option<&str>, body: T) -> Self {
        let tag = etag(version);
        if if_none_match.is_some_and(|header| any_match(header, &tag)) {
            Self::NotModified(tag)
        } else {
            Self::Found(Json(body), tag)
        }
    }
}

/// The strong validator of a version: its decimal number in quotes.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// Whether an `If-Match` or `If-None-Match` header names `tag` (weak comparison; `*` names everything).
#[must_use]
pub fn any_match(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag)
}

/// Lets a change through whose `If-Match`, if there is one, names the present version.
///
/// # Errors
/// 412 `precondition_failed`.
pub fn expect_version(if_match: Option<&str>, version: i64) -> Result<(), ApiError> {
    match if_match {
        Some(header) if !any_match(header, &etag(version)) => Err(ApiError::precondition_failed()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_compare() {
        assert!(any_match("\"17\"", &etag(17)));
        assert!(any_match("\"1\", W/\"17\"", &etag(17)));
        assert!(any_match("*", &etag(17)));
        assert!(!any_match("\"171\"", &etag(17)));
    }
}
