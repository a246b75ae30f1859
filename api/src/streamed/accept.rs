//! Which of the shapes of a list a client asks for (RFC 9110, 12.5.1).

use poem::http::{HeaderMap, header};

/// A list as a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Ndjson,
    Csv,
}

impl Format {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// The stream that is preferred to a page; a page where nothing is said, and among equals what is named before what is not.
pub(super) fn wanted(headers: &HeaderMap) -> Option<Format> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut best: Option<(f32, bool, Option<Format>)> = None;
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let (named, format) = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" => (true, Some(Format::Ndjson)),
            "text/csv" => (true, Some(Format::Csv)),
            "application/json" => (true, None),
            "*/*" | "application/*" => (false, None),
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if quality > 0.0 && best.is_none_or(|(than, was_named, _)| (quality, named) > (than, was_named)) {
            best = Some((quality, named, format));
        }
    }
    best.and_then(|(_, _, format)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_shape_is_answered_with() {
        for (accept, expected) in [
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("text/csv", Some(Format::Csv)),
            ("Text/CSV; charset=utf-8", Some(Format::Csv)),
            ("*/*, text/csv", Some(Format::Csv)),
            ("text/csv;q=0.5, application/json", None),
            ("application/json;q=0.5, application/x-ndjson;q=0.6", Some(Format::Ndjson)),
            ("text/csv;q=0", None),
            ("text/csv;q=x, */*;q=0.1", None),
            ("text/html, application/xhtml+xml, */*;q=0.8", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(wanted(&headers), expected, "{accept}");
        }
        assert_eq!(wanted(&HeaderMap::new()), None);
    }
}
