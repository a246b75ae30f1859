//! Heads of requests: no longer than anybody needs.

use poem::{Request, http::header::AUTHORIZATION};

use crate::error::{ApiError, Code};

/// Most bytes of a path with its query.
pub const MAX_URI: usize = 8 << 10;
/// Most bytes of all header names and values but the credentials': whatever comes as a token is told that it is none.
pub const MAX_HEADER_BYTES: usize = 16 << 10;
/// Most headers.
pub const MAX_HEADERS: usize = 100;

/// # Errors
/// 414 `uri_too_long`, 431 `headers_too_large`.
pub fn check(request: &Request) -> Result<(), ApiError> {
    let uri = request.uri();
    let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > MAX_URI {
        let detail = format!("A path with its query has at most {MAX_URI} bytes.");
        return Err(ApiError::new(Code::UriTooLong, detail));
    }
    let headers = request.headers();
    let counted = headers.iter().filter(|(name, _)| *name != AUTHORIZATION);
    let bytes: usize = counted.map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let detail = format!("A request has at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together.");
        return Err(ApiError::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}
