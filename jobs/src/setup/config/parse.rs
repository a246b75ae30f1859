//! Understanding the texts of settings: each error says what is wrong and what to write.

use super::values::{LogFormat, MasterKeySource};
use crate::kinds;
use base64::{Engine, engine::general_purpose::STANDARD};
use keywright_stores::kms::WrongName;
use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr};
use tracing_subscriber::EnvFilter;
use url::Url;

pub(super) fn to<T>(field: &mut T, value: T) -> Result<(), String> {
    *field = value;
    Ok(())
}

pub(super) fn parsed<T: FromStr>(text: &str, what: &str, example: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not {what}; write for example {example}"))
}

pub(super) fn number<T: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let wrong = || format!("`{text}` is not a whole number from {} to {}", range.start(), range.end());
    text.parse().ok().filter(|n| range.contains(n)).ok_or_else(wrong)
}

pub(super) fn limit(text: &str) -> Result<Option<u32>, String> {
    number(text, 0..=1_000_000_000).map(|n| Some(n).filter(|n| *n > 0))
}

/// `KIND=NUMBER`, separated by commas.
pub(super) fn by_kind(text: &str, range: RangeInclusive<u32>) -> Result<BTreeMap<String, u32>, String> {
    let mut numbers = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (kind, given) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is not a kind with a number; write for example discovery.scope=8"))?;
        let kind = kind.trim();
        if !kinds::KINDS.contains(&kind) {
            return Err(format!("`{kind}` is no kind of job; the kinds are {}", kinds::KINDS.join(", ")));
        }
        if numbers.insert(kind.to_owned(), number(given.trim(), range.clone())?).is_some() {
            return Err(format!("names {kind} twice; give it one number"));
        }
    }
    Ok(numbers)
}

pub(super) fn shown_by_kind(numbers: &BTreeMap<String, u32>) -> Option<String> {
    let parts: Vec<String> = numbers.iter().map(|(kind, number)| format!("{kind}={number}")).collect();
    Some(parts.join(",")).filter(|text| !text.is_empty())
}

pub(super) fn list<T>(text: &str, item: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    items.map(item).collect()
}

pub(super) fn label(text: &str) -> Result<String, String> {
    let good = text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a label: letters, digits, `-`, `_` and `.` only"))
    }
}

/// A name in one line.
pub(super) fn organisation(text: &str) -> Result<String, String> {
    if text.chars().count() > 200 || text.contains(char::is_control) {
        return Err("is not a name: at most 200 characters in one line".to_owned());
    }
    Ok(text.to_owned())
}

/// Understands the value of `KEYWRIGHT_MASTER_KEY_PREVIOUS`. The error does not repeat the text.
pub(super) fn previous_key(text: &str) -> Result<MasterKeySource, String> {
    if let Some(path) = text.strip_prefix("file:") {
        return Ok(MasterKeySource::File(PathBuf::from(path)));
    }
    if text.contains("-kms:") {
        return text.parse().map(MasterKeySource::Kms).map_err(|wrong: WrongName| wrong.to_string());
    }
    master_key(text).map(|key| MasterKeySource::Given(key.into())).map_err(|_| {
        "is neither 32 bytes in base64 nor file:/PATH nor the name of a key as for KEYWRIGHT_MASTER_KEY_KMS".to_owned()
    })
}

/// Checks the key's form; the bytes themselves are decoded where they are used, to keep copies few.
pub(super) fn master_key(text: &str) -> Result<String, String> {
    match STANDARD.decode(text).map(zeroize::Zeroizing::new) {
        Ok(bytes) if bytes.len() == 32 => Ok(text.to_owned()),
        _ => Err("is not 32 bytes in base64; make one with `openssl rand -base64 32`".to_owned()),
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(wrong) => {
            Err(format!("`{text}` is not a log filter ({wrong}); write for example info,keywright_jobs=debug"))
        }
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is neither text nor json")),
    }
}

/// The text is not repeated: an address may carry a password, which is refused.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        Some(url) if url.username().is_empty() && url.password().is_none() => Ok(url),
        _ => Err("is not an http:// or https:// address without user and password".to_owned()),
    }
}

pub(super) fn joined(items: &[impl Display]) -> Option<String> {
    Some(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")).filter(|text| !text.is_empty())
}
