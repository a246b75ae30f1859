//! A page in a form that both databases keep, made ready outside the transaction.
//!
//! Providers say anything: texts with U+0000, which PostgreSQL cannot hold; names longer than an index takes; years beyond 9999,
//! which text does not sort. Each of these is changed as little as it takes, so that the asset is there rather than an error.

use crate::{
    domain::{
        inventory::{Observed, Page, Warning},
        merge_patch,
    },
    job::JobError,
};
use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use keywright_entities::clock::micros;
use serde_json::{Map, Value as Json};
use std::{borrow::Cow, collections::BTreeMap};

/// Bytes of a text that is in an index: with the other columns it stays below the 2,704 that PostgreSQL takes.
const INDEXED: usize = 2048;
/// Seconds since 1970 of the first instant of year 0 and of the last second of year 9999.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// What is published at once: a page of a listing, or a part of one.
pub struct Prepared {
    /// By external id: a provider that names one thing twice on a page means one thing.
    pub assets: BTreeMap<String, Entry>,
    pub warnings: Vec<Warning>,
    /// Told once in all of the listing, by code and path.
    pub once: Vec<Warning>,
    pub reached: Reached,
}

/// How far a listing is when this has been published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Within the page: if the listing is interrupted here, the page is listed again.
    PartOfPage,
    /// The page's end, and where the next one begins.
    Page(Option<String>),
}

/// One asset as it will be kept.
pub struct Entry {
    pub observed: Observed,
    pub content: Json,
    pub hash: String,
    /// Only where the kind has details.
    pub listed: Option<Listed>,
}

/// Where an entry's details stand.
pub struct Listed {
    /// Over the list entry alone; `None` where not all that belongs to it could be read, so that it is asked for again.
    pub hash: Option<String>,
    /// What details make of the list entry.
    pub details: Option<Json>,
    /// They were read just now, all of them.
    pub detailed: bool,
    /// The external id is the provider's own: it was not cut to fit.
    pub by_own_id: bool,
}

pub fn prepare(page: Page, with_details: bool) -> Result<Prepared, JobError> {
    let mut assets = BTreeMap::new();
    for observed in page.assets {
        let own_id = observed.external_id.clone();
        let mut entry = Entry::of(fitting(observed)?)?;
        if with_details {
            let by_own_id = own_id == entry.observed.external_id;
            entry.listed = Some(Listed { hash: Some(entry.hash.clone()), details: None, detailed: false, by_own_id });
        }
        assets.entry(entry.observed.external_id.clone()).or_insert(entry);
    }
    let warnings = page.warnings.into_iter().map(plain).collect();
    Ok(Prepared { assets, warnings, once: Vec::new(), reached: Reached::Page(page.next) })
}

/// A warning in a form that both databases keep.
pub fn plain(warning: Warning) -> Warning {
    Warning {
        path: without_nul(&warning.path).into_owned(),
        code: without_nul(&warning.code).into_owned(),
        detail: without_nul(&warning.detail).into_owned(),
    }
}

impl Entry {
    fn of(observed: Observed) -> Result<Self, JobError> {
        let content = serde_json::to_value(&observed).map_err(unwritable)?;
        let hash = content_hash(&content);
        Ok(Self { observed, content, hash, listed: None })
    }

    /// The list entry as a closer look completed it. What could not be read is taken from `before`, the details known so far.
    pub fn completed(self, detailed: Observed, before: Option<&Json>, all_read: bool) -> Result<Self, JobError> {
        let detailed = Observed { external_id: self.observed.external_id.clone(), ..detailed };
        let read = serde_json::to_value(fitting(detailed)?).map_err(unwritable)?;
        let mut patch = merge_patch::diff(&self.content, &read);
        if let (false, Some(before)) = (all_read, before) {
            let known = merge_patch::apply(self.content.clone(), before);
            let merged = match &patch {
                Some(patch) => merge_patch::apply(known, patch),
                None => known,
            };
            patch = merge_patch::diff(&self.content, &merged);
        }
        let entry = self.with(patch, all_read)?;
        Ok(if all_read { entry } else { entry.unread() })
    }

    /// The list entry with these details, which were read earlier and are good still.
    pub fn with_known(self, details: Option<Json>) -> Result<Self, JobError> {
        self.with(details, false)
    }

    /// The same, where something should have been read and could not be.
    pub fn with_old(self, details: Option<Json>) -> Result<Self, JobError> {
        Ok(self.with(details, false)?.unread())
    }

    fn unread(mut self) -> Self {
        if let Some(listed) = &mut self.listed {
            listed.hash = None;
        }
        self
    }

    fn with(self, details: Option<Json>, detailed: bool) -> Result<Self, JobError> {
        let Some(listed) = self.listed else { return Ok(self) };
        // always from the patch, so that what was read now and what is kept of it make the same content
        let mut entry = match &details {
            Some(patch) => {
                let content = merge_patch::apply(self.content, patch);
                Self::of(serde_json::from_value(content).map_err(unwritable)?)?
            }
            None => Self { listed: None, ..self },
        };
        entry.listed = Some(Listed { details, detailed, ..listed });
        Ok(entry)
    }
}

fn unwritable(error: serde_json::Error) -> JobError {
    JobError::fail("asset_unwritable", error)
}

fn fitting(observed: Observed) -> Result<Observed, JobError> {
    let json = serde_json::to_value(&observed).map_err(unwritable)?;
    let mut observed =
        if has_nul(&json) { serde_json::from_value(replace_nul(json)).map_err(unwritable)? } else { observed };
    for time in [
        &mut observed.created_at,
        &mut observed.expires_at,
        &mut observed.not_before,
        &mut observed.last_rotated_at,
        &mut observed.last_accessed_at,
        &mut observed.last_changed_at,
    ] {
        *time = time.map(within_four_digits);
    }
    for text in [&mut observed.external_id, &mut observed.vault] {
        if let Cow::Owned(short) = identifying(text) {
            *text = short;
        }
    }
    Ok(observed)
}

fn within_four_digits(time: DateTime<Utc>) -> DateTime<Utc> {
    let second = time.timestamp().clamp(FIRST_SECOND, LAST_SECOND);
    if second == time.timestamp() { micros(time) } else { DateTime::from_timestamp(second, 0).unwrap_or(time) }
}

/// A text that an index holds and that still tells one thing from another.
pub(super) fn identifying(text: &str) -> Cow<'_, str> {
    if text.len() <= INDEXED {
        return Cow::Borrowed(text);
    }
    let hash = hex::encode(digest(&SHA256, text.as_bytes()));
    let end = format!("…sha256:{hash}");
    Cow::Owned(beginning(text, INDEXED - end.len()).to_owned() + &end)
}

/// What an index for sorting and for searching words holds of a text.
pub(super) fn sortable(text: &str) -> &str {
    beginning(text, INDEXED)
}

fn beginning(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn has_nul(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(items) => items.iter().any(has_nul),
        Json::Object(members) => members.iter().any(|(name, member)| name.contains('\0') || has_nul(member)),
        _ => false,
    }
}

fn replace_nul(value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(without_nul(&text).into_owned()),
        Json::Array(items) => items.into_iter().map(replace_nul).collect(),
        Json::Object(members) => {
            let members =
                members.into_iter().map(|(name, member)| (without_nul(&name).into_owned(), replace_nul(member)));
            Json::Object(members.collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// SHA-256 over what the provider says; that something was used, and by what, is no change of it.
fn content_hash(content: &Json) -> String {
    let mut content = content.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("last_accessed_at");
        if let Some(attributes) = fields.get_mut("attributes").and_then(Json::as_object_mut) {
            attributes.remove("lastUse");
        }
    }
    hex::encode(digest(&SHA256, content.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_identifiers_are_cut_between_characters_and_stay_distinct() {
        let long = |last: &str| "ä".repeat(5000) + last;
        let (one, two) = (identifying(&long("1")).into_owned(), identifying(&long("2")).into_owned());
        assert!(one.len() <= INDEXED && one != two && one.starts_with("ää"), "{one}");
        let fits = "x".repeat(INDEXED);
        assert_eq!(identifying(&fits), fits);
        assert!(sortable(&long("")).len() <= INDEXED);
    }

    #[test]
    fn years_have_four_digits() {
        for (time, kept) in [
            (DateTime::<Utc>::MAX_UTC, "9999-12-31T23:59:59+00:00"),
            (DateTime::<Utc>::MIN_UTC, "0000-01-01T00:00:00+00:00"),
            ("9999-12-31T23:59:59.999999Z".parse().unwrap(), "9999-12-31T23:59:59.999999+00:00"),
            ("0000-01-01T00:00:00Z".parse().unwrap(), "0000-01-01T00:00:00+00:00"),
        ] {
            assert_eq!(within_four_digits(time).to_rfc3339(), kept);
        }
    }

    #[test]
    fn no_nul_is_left_anywhere() {
        let value = json!({"a\0": ["x\0y", {"b": "\0"}], "c": 1});
        assert!(has_nul(&value) && !has_nul(&json!({"a": ["b"]})));
        assert_eq!(replace_nul(value), json!({"a\u{fffd}": ["x\u{fffd}y", {"b": "\u{fffd}"}], "c": 1}));
    }
}
