//! What a client is told of its limits: the structured fields of the IETF's draft, and the older names that many clients read.

use std::fmt::Write as _;
use std::time::Duration;

use poem::http::{HeaderMap, HeaderName, HeaderValue};

use super::{Rule, Standing};

/// Windows of other processes may end this much later than we know.
const SLACK: Duration = Duration::from_millis(250);

/// Whole seconds after which all windows that are used up have ended.
#[must_use]
pub fn retry_after(standings: &[Standing]) -> u32 {
    let used_up = standings.iter().filter(|standing| standing.remaining == 0);
    used_up.map(seconds).max().unwrap_or(1).max(1)
}

/// Writes the headers. Where there are two windows, `RateLimit` and `X-RateLimit-…` tell of the one that ends the client's
/// requests first.
pub fn set(headers: &mut HeaderMap, standings: &[Standing]) {
    let Some(tightest) = standings.iter().min_by_key(|one| (one.remaining, std::cmp::Reverse(one.left))) else {
        return;
    };
    let rules = standings.iter().map(|standing| standing.rule);
    let fields = [
        ("ratelimit-policy", policy(rules)),
        ("ratelimit", format!("\"{}\";r={};t={}", tightest.rule.name, tightest.remaining, seconds(tightest))),
        ("x-ratelimit-limit", tightest.rule.limit.to_string()),
        ("x-ratelimit-remaining", tightest.remaining.to_string()),
        ("x-ratelimit-reset", tightest.resets_at.to_string()),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn policy(rules: impl Iterator<Item = Rule>) -> String {
    let mut policy = String::new();
    for rule in rules {
        let comma = if policy.is_empty() { "" } else { ", " };
        let _ = write!(policy, "{comma}\"{}\";q={};w={}", rule.name, rule.limit, rule.span.as_secs());
    }
    policy
}

/// Whole seconds until the window ends, at most its length.
fn seconds(standing: &Standing) -> u32 {
    let left = (standing.left + SLACK).min(standing.rule.span);
    let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(name: &'static str, limit: u32, span: u64, remaining: u32, left: u64) -> Standing {
        let rule = Rule { name, limit, span: Duration::from_secs(span) };
        Standing { rule, remaining, left: Duration::from_millis(left), resets_at: 1_700_000_000 }
    }

    fn written(standings: &[Standing]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        set(&mut headers, standings);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn headers_tell_of_the_tightest_window() {
        let minute = standing("minute", 60, 60, 59, 41_100);
        let mut fields = written(&[minute, standing("hour", 1000, 3600, 999, 3_600_000)]);
        fields.sort();
        let expected = [
            ("ratelimit", "\"minute\";r=59;t=42"),
            ("ratelimit-policy", "\"minute\";q=60;w=60, \"hour\";q=1000;w=3600"),
            ("x-ratelimit-limit", "60"),
            ("x-ratelimit-remaining", "59"),
            ("x-ratelimit-reset", "1700000000"),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let hour = written(&[minute, standing("hour", 1000, 3600, 3, 1_000)]);
        assert!(hour.contains(&("ratelimit".to_owned(), "\"hour\";r=3;t=2".to_owned())), "{hour:?}");
        assert!(written(&[]).is_empty());
    }

    #[test]
    fn one_waits_for_every_window_that_is_used_up() {
        let minute = standing("minute", 60, 60, 0, 10_000);
        assert_eq!(retry_after(&[minute, standing("hour", 1000, 3600, 0, 1_800_900)]), 1802);
        assert_eq!(retry_after(&[minute, standing("hour", 1000, 3600, 5, 1_800_900)]), 11);
        assert_eq!(retry_after(&[standing("minute", 60, 60, 0, 60_000)]), 60);
    }
}
