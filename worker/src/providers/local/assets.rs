//! From what a file or an endpoint holds to what the inventory is told. Pure.

use super::{
    certificate::Reading,
    contents::{Contents, Held, KeyNotice},
    files::Protection,
};
use chrono::{DateTime, Utc};
use keywright_jobs::domain::inventory::{AssetType, Observed};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    os::unix::ffi::OsStrExt,
    path::Path,
};

pub const FILE_CERTIFICATE: &str = "local.file.certificate";
pub const FILE_KEY: &str = "local.file.key";
pub const TLS_CERTIFICATE: &str = "local.tls.certificate";

/// Bytes of a path that are used in an identifier as they are.
const IDENTITY_LIMIT: usize = 1_000;

/// A file as a place where assets are.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The path for people; bytes that are no UTF-8 are replaced.
    pub shown: String,
    /// The path for identifiers: the same as `shown` for ordinary paths, and never the same for two paths.
    identity: String,
    vault: String,
    name: String,
    protection: Protection,
    modified_at: Option<DateTime<Utc>>,
}

impl Place {
    pub fn new(path: &Path, protection: Protection, modified_at: Option<DateTime<Utc>>) -> Self {
        Self {
            shown: path.to_string_lossy().into_owned(),
            identity: identity(path),
            vault: path.parent().map(|parent| parent.to_string_lossy().into_owned()).unwrap_or_default(),
            name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            protection,
            modified_at,
        }
    }

    fn attributes(&self) -> Map<String, Value> {
        let Protection { mode, uid, gid } = self.protection;
        let mut attributes = Map::new();
        attributes.insert("path".into(), json!(self.shown));
        attributes.insert("file".into(), json!({"mode": format!("{mode:04o}"), "uid": uid, "gid": gid}));
        attributes
    }
}

/// A text that is different for different paths, even if they are no UTF-8 or too long for an index.
fn identity(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let text = match path.to_str() {
        Some(text) => text.to_owned(),
        None => bytes.escape_ascii().to_string(),
    };
    if text.len() <= IDENTITY_LIMIT {
        return text;
    }
    format!("{}~{}", super::text::shortened(&text, IDENTITY_LIMIT), super::certificate::fingerprint(bytes))
}

/// The certificates of a file, in its order.
pub fn certificates(place: &Place, contents: &Contents) -> Vec<Observed> {
    let is_bundle = contents.certificates.len() > 1;
    let subjects: HashSet<&[u8]> =
        contents.certificates.iter().map(|held| held.reading.subject_der.as_slice()).collect();
    let observe = |held: &Held| {
        let reading = &held.reading;
        let mut attributes = place.attributes();
        attributes.extend(reading.attributes.clone());
        let mut name = place.name.clone();
        if is_bundle {
            let short = reading.short_name.as_deref().or_else(|| reading.fingerprint.get(..16)).unwrap_or_default();
            name = format!("{name} ({short})");
            attributes.insert("issuerInSameFile".into(), json!(subjects.contains(reading.issuer_der.as_slice())));
        }
        if held.occurrences > 1 {
            attributes.insert("occurrences".into(), json!(held.occurrences));
        }
        let identity = format!("{}#{}", place.identity, reading.fingerprint);
        certificate(FILE_CERTIFICATE, place.vault.clone(), name, identity, reading, attributes)
    };
    contents.certificates.iter().map(observe).collect()
}

/// One certificate at one place.
pub fn certificate(
    kind: &str,
    vault: String,
    name: String,
    external_id: String,
    reading: &Reading,
    attributes: Map<String, Value>,
) -> Observed {
    Observed {
        certificate: Some(reading.facts.clone()),
        expires_at: reading.not_after,
        not_before: reading.not_before,
        ..bare(AssetType::Certificate, kind, vault, name, external_id, attributes)
    }
}

/// The private keys that were noticed in a file, numbered in its order.
pub fn keys(place: &Place, contents: &Contents) -> Vec<Observed> {
    let count = contents.keys.len();
    let observe = |(number, key): (usize, &KeyNotice)| {
        let mut attributes = place.attributes();
        attributes.insert("format".into(), json!(key.format));
        attributes.insert("algorithm".into(), json!(key.algorithm));
        attributes.insert("encrypted".into(), json!(key.encrypted));
        attributes.insert("groupReadable".into(), json!(place.protection.mode & 0o040 != 0));
        attributes.insert("worldReadable".into(), json!(place.protection.mode & 0o004 != 0));
        let number = number + 1;
        let name = if count > 1 { format!("{} (key {number})", place.name) } else { place.name.clone() };
        let identity = format!("{}#key-{number}", place.identity);
        Observed {
            last_changed_at: place.modified_at,
            ..bare(AssetType::Key, FILE_KEY, place.vault.clone(), name, identity, attributes)
        }
    };
    contents.keys.iter().enumerate().map(observe).collect()
}

fn bare(
    asset_type: AssetType,
    kind: &str,
    vault: String,
    name: String,
    external_id: String,
    attributes: Map<String, Value>,
) -> Observed {
    Observed {
        asset_type,
        kind: kind.to_owned(),
        vault,
        name,
        external_id,
        enabled: None,
        created_at: None,
        expires_at: None,
        not_before: None,
        last_rotated_at: None,
        last_accessed_at: None,
        last_changed_at: None,
        tags: BTreeMap::new(),
        certificate: None,
        attributes,
        relations: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn different_paths_have_different_identities() {
        let long = ["1", "2"].map(|end| format!("/{}{end}", "x".repeat(4_000)));
        let paths = [
            Path::new("/a/b"),
            Path::new(OsStr::from_bytes(b"/a/\xff")),
            Path::new(OsStr::from_bytes(b"/a/\xfe")),
            Path::new(&long[0]),
            Path::new(&long[1]),
        ];
        let identities: HashSet<String> = paths.iter().map(|path| identity(path)).collect();
        assert_eq!(identities.len(), paths.len());
        assert!(identities.iter().all(|identity| identity.len() < IDENTITY_LIMIT + 80));
        assert!(identities.contains("/a/b"));
    }
}
