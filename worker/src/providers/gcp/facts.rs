//! From the words of Google's replies to the inventory's.

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Map, Value};

/// RFC 3339 with at most nanoseconds; kept are microseconds, as the database does. What is no date is absent.
pub(super) fn instant(text: Option<&str>) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text?).ok()?.to_utc().trunc_subsecs(6))
}

/// Of what was told, what says something: no null, no empty text, list or object.
pub(super) fn attributes<const N: usize>(told: [(&str, Value); N]) -> Map<String, Value> {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    told.into_iter().filter(|(_, value)| says(value)).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The name's parts behind these words, e.g. `["acme", "db"]` of `projects/acme/secrets/db` behind `["projects", "secrets"]`.
///
/// A name becomes part of an address, so it must not be able to lead elsewhere.
pub(super) fn parts<'a, const N: usize>(name: &'a str, words: [&str; N]) -> Option<[&'a str; N]> {
    let mut segments = name.split('/');
    let mut parts = [""; N];
    for (part, word) in parts.iter_mut().zip(words) {
        if segments.next()? != word {
            return None;
        }
        *part = segments.next().filter(|segment| is_plain(segment))?;
    }
    segments.next().is_none().then_some(parts)
}

fn is_plain(segment: &str) -> bool {
    let letters = segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b));
    letters && segment.bytes().any(|b| b.is_ascii_alphanumeric()) && segment.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_every_age_survive_and_others_are_absent() {
        let text = |text| instant(Some(text)).map(|instant| instant.to_rfc3339());
        assert_eq!(text("2024-02-29T23:59:59.123456789Z").as_deref(), Some("2024-02-29T23:59:59.123456+00:00"));
        assert_eq!(text("9999-12-31T23:59:59Z").as_deref(), Some("9999-12-31T23:59:59+00:00"));
        assert_eq!(text("1969-07-20T20:17:40Z").as_deref(), Some("1969-07-20T20:17:40+00:00"));
        assert_eq!((text("yesterday"), text(""), instant(None)), (None, None, None));
    }

    #[test]
    fn a_name_is_its_words_and_plain_parts() {
        assert_eq!(parts("projects/1/secrets/db", ["projects", "secrets"]), Some(["1", "db"]));
        assert_eq!(parts("projects/example.com:acme", ["projects"]), Some(["example.com:acme"]));
        for bad in
            ["projects/1/secrets/..", "projects/1/secrets/", "projects/1/secrets/a/versions/1", "secrets/1/projects/a"]
        {
            assert_eq!(parts(bad, ["projects", "secrets"]), None, "{bad}");
        }
        for bad in ["projects/1/secrets/a%2Fb", "projects/1/secrets/a?x", "projects/1/secrets/a b", "projects/1"] {
            assert_eq!(parts(bad, ["projects", "secrets"]), None, "{bad}");
        }
    }
}
