//! Where a browser goes after it came in: only to this server, whatever a link said.

use crate::error::ApiError;
use url::Url;

/// Where it goes when the link said nothing.
pub const DEFAULT: &str = "/docs";
/// Most bytes of a path: it travels in a cookie.
pub const MAX: usize = 1024;

/// The path, if it is one of this server.
///
/// # Errors
/// 400 with the pointer of the parameter.
pub fn checked(next: Option<&str>) -> Result<String, ApiError> {
    let next = next.unwrap_or(DEFAULT);
    if is_path_of_ours(next) {
        return Ok(next.to_owned());
    }
    let message = "Must be a path of this server with a query, if any: it begins with one slash and has neither backslashes nor \
                   spaces, and other letters than those of ASCII are percent-encoded.";
    Err(ApiError::invalid("/query/next", "format", message))
}

fn is_path_of_ours(next: &str) -> bool {
    // browsers drop tabs and line ends, and take backslashes for slashes
    let plain = next.len() <= MAX && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !plain || !next.starts_with('/') || next.starts_with("//") {
        return false;
    }
    let ours = Url::parse("https://keywright.invalid/a/b").ok();
    ours.is_some_and(|ours| {
        // a path with dots in it may become one that begins with two slashes, which the next reader takes for a host
        ours.join(next).is_ok_and(|url| url.origin() == ours.origin() && !url.path().starts_with("//"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_server_are_gone_to() {
        for good in
            ["/", "/docs", "/api/jobs?kind=discovery.scan&limit=5#x", "/a%2f%2fb", "/a//b", "/@evil.example", "/:8080"]
        {
            assert_eq!(checked(Some(good)).unwrap(), good);
        }
        for wrong in [
            "",
            "docs",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\nLocation: x",
            " /docs",
            "/do cs",
            "/.//evil.example",
            "/..//evil.example",
            "/%2e//evil.example",
            "https://evil.example/",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "@evil.example",
            "/caf\u{e9}",
            "/\u{2028}",
            "/a\u{0}",
        ] {
            assert!(checked(Some(wrong)).is_err(), "{wrong:?}");
        }
        assert!(checked(Some(&format!("/{}", "a".repeat(MAX)))).is_err());
    }
}
