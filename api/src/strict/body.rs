//! Bodies: of a media type that the operation takes, not too long, and as their schema says.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper::body::Bytes;
use jsonschema::Validator;
use poem::http::HeaderValue;
use poem::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use poem::{Body as HttpBody, Request};
use serde_json::{Map, Value};
use tokio::time::timeout;
use url::form_urlencoded;

use super::operations::{Body, Kind};
use super::{FORM, MAX_BODY, json, report};
use crate::error::{ApiError, Code, FieldError};
use crate::server::Crowded;

/// A body that is too large is read up to here before the refusal: 4 MiB.
const DRAINED: usize = 4 << 20;

/// How long a body may take where no server has said so.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the body of this request may take. In the request's data.
#[derive(Clone, Copy, Debug)]
pub struct BodyPatience(pub Duration);

/// A body as it was read.
#[derive(Debug)]
pub enum Sent {
    Nothing,
    Json(Value),
    /// Of another media type than JSON.
    Bytes(Vec<u8>),
}

/// Reads and checks the body of `request`, hands it on, and tells what it was.
///
/// # Errors
/// 415, 413, 408, or 400 with everything that is wrong.
pub async fn check(request: &mut Request, expected: &Body) -> Result<Sent, ApiError> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        // a client that is still sending would see its connection reset and miss the answer (RFC 9112, 9.6)
        if length.is_some_and(|length| length <= DRAINED) {
            let _ = timeout(patience(request), drain(request.take_body().into_bytes_stream())).await;
        }
        return Err(ApiError::payload_too_large(MAX_BODY));
    }
    let may_have_body = length.is_some_and(|length| length > 0) || request.headers().contains_key(TRANSFER_ENCODING);
    let media_type = media_type(request);
    let validator = match &media_type {
        Some(media_type) => expected.media.get(media_type).ok_or_else(|| unsupported(expected))?.as_ref(),
        // no type and no body is an absent body, about which `required` decides
        None if may_have_body => return Err(unsupported(expected)),
        None => None,
    };
    let bytes = read(request).await?;
    // a form without fields has no bytes
    if bytes.is_empty() && media_type.as_deref() != Some(FORM) {
        if expected.required {
            return Err(ApiError::new(Code::MalformedJson, "This operation needs a body."));
        }
        // without its content type too: poem would go on to read an empty body as JSON
        request.headers_mut().remove(CONTENT_TYPE);
        return Ok(Sent::Nothing);
    }
    if media_type.is_none() {
        return Err(unsupported(expected));
    }
    let sent = match validator {
        Some(validator) if media_type.as_deref() == Some(FORM) => {
            refuse(check_form(&bytes, validator, &expected.kinds))?;
            Sent::Bytes(bytes.to_vec())
        }
        Some(validator) => {
            let value = json::read(&bytes)?;
            let mut problems = report::with_nul(&value, "");
            let mut others = report::problems(validator, &value, "");
            // patterns refuse what has a NUL too, with a word that says less
            others.retain(|other| problems.iter().all(|problem| problem.pointer != other.pointer));
            problems.append(&mut others);
            refuse(problems)?;
            Sent::Json(value)
        }
        None => Sent::Bytes(bytes.to_vec()),
    };
    request.set_body(HttpBody::from_bytes(bytes));
    Ok(sent)
}

fn patience(request: &Request) -> Duration {
    request.data::<BodyPatience>().map_or(PATIENCE, |given| given.0)
}

async fn read(request: &mut Request) -> Result<Bytes, ApiError> {
    let patience = patience(request);
    // the rest of the body is not waited for, so nothing can follow on this connection
    timeout(patience, gather(request)).await.unwrap_or_else(|_| {
        let detail = format!("The body did not come within {} s.", patience.as_secs());
        Err(ApiError::new(Code::RequestTimeout, detail).with_header(CONNECTION, HeaderValue::from_static("close")))
    })
}

async fn gather(request: &mut Request) -> Result<Bytes, ApiError> {
    let crowded = request.data::<Crowded>().cloned();
    let mut parts = request.take_body().into_bytes_stream();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        let part =
            part.map_err(|_| ApiError::new(Code::MalformedJson, "The body ended before its announced length."))?;
        if crowded.as_ref().is_some_and(Crowded::is_true) {
            drop((bytes, part));
            drain(parts).await;
            return Err(ApiError::crowded());
        }
        if bytes.len() + part.len() > MAX_BODY {
            return Err(ApiError::payload_too_large(MAX_BODY));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

/// Reads what nobody wants, as far as [`DRAINED`].
async fn drain<E>(mut parts: impl Stream<Item = Result<Bytes, E>> + Unpin) {
    let mut came = 0;
    while let Some(Ok(part)) = parts.next().await {
        came += part.len();
        if came > DRAINED {
            return;
        }
    }
}

/// The media type of the body without its parameters, in lower case.
fn media_type(request: &Request) -> Option<String> {
    let value = request.headers().get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn unsupported(expected: &Body) -> ApiError {
    let accepted: Vec<_> = expected.media.keys().map(String::as_str).collect();
    ApiError::new(Code::UnsupportedMediaType, format!("Send the body as {}.", accepted.join(" or ")))
}

fn check_form(bytes: &[u8], validator: &Validator, kinds: &BTreeMap<String, Kind>) -> Vec<FieldError> {
    let mut object = Map::new();
    let mut problems = Vec::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        let value = kinds.get(name.as_ref()).copied().unwrap_or(Kind::Text).read(&value);
        if object.insert(name.to_string(), value).is_some() {
            problems.push(FieldError::new(report::child("", &name), "repeated", "This field is given more than once."));
        }
    }
    let object = Value::Object(object);
    problems.extend(report::with_nul(&object, ""));
    problems.extend(report::problems(validator, &object, ""));
    problems
}

/// Refuses a body with these problems, if there are any.
///
/// # Errors
/// 400 that names them all.
pub fn refuse(problems: Vec<FieldError>) -> Result<(), ApiError> {
    if problems.is_empty() {
        return Ok(());
    }
    if problems.iter().any(|problem| problem.code != "unknown_field") {
        return Err(ApiError::validation(problems));
    }
    let names: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    let detail = format!("The body has fields that do not exist: {}.", names.join(", "));
    Err(ApiError::new(Code::UnknownField, detail).with_errors(problems))
}
