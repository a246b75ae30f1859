//! The public keys of an instance, and how an old one vouches for the one that takes its place.
//!
//! A key that was stolen vouches for nobody: when it is replaced alone, the chain ends, and auditors take the new key from the
//! operator as they took the first.

use crate::note::{Note, NoteError, Signer, Verifier};
use serde::{Deserialize, Serialize};

const VOUCHER: &str = "keywright.key/1";

/// The keys, oldest first: what `GET /api/evidence/keys` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyHistory {
    pub keys: Vec<KeyEntry>,
}

/// A key, and since when and until when it signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEntry {
    /// `NAME+ID+KEY` (C2SP signed-note).
    pub verifier_key: String,
    /// RFC 3339.
    pub created_at: String,
    /// When another key took its place; `null` for the one that signs.
    pub retired_at: Option<String>,
    /// The note in which the key before it vouches for it; `null` for the first, and for one that replaced a stolen key.
    pub voucher: Option<String>,
}

/// What an old key signs to vouch for a new one.
///
/// # Errors
/// [`NoteError`] when the time is of several lines.
pub fn vouch(old: &Signer, new: &Verifier, created_at: &str) -> Result<Note, NoteError> {
    old.sign(&voucher(&new.to_string(), created_at))
}

fn voucher(verifier_key: &str, created_at: &str) -> String {
    format!("{VOUCHER}\n{verifier_key}\n{created_at}\n")
}

impl KeyHistory {
    /// The given keys and those for which they vouch, directly or through others. The order of the entries does not matter.
    pub fn trusted(&self, given: &[Verifier]) -> Vec<Verifier> {
        let mut trusted = given.to_vec();
        loop {
            let before = trusted.len();
            for entry in &self.keys {
                let Some(key) = entry.key().filter(|key| !trusted.contains(key)) else { continue };
                if entry.vouched_by(&trusted) {
                    trusted.push(key);
                }
            }
            if trusted.len() == before {
                return trusted;
            }
        }
    }

    /// All of them, for whoever has this history itself from a place that they trust.
    pub fn verifiers(&self) -> Vec<Verifier> {
        self.keys.iter().filter_map(KeyEntry::key).collect()
    }
}

impl KeyEntry {
    pub fn key(&self) -> Option<Verifier> {
        self.verifier_key.parse().ok()
    }

    fn vouched_by(&self, trusted: &[Verifier]) -> bool {
        let note = self.voucher.as_ref().and_then(|note| note.parse::<Note>().ok());
        let text = voucher(&self.verifier_key, &self.created_at);
        note.is_some_and(|note| note.verify(trusted).is_ok_and(|(signed, _)| signed == text))
    }
}

/// Reads what was given as public key: a history as JSON, or verifier keys, one a line; `#` begins a remark.
pub fn read(text: &str) -> Option<Vec<Verifier>> {
    if text.trim_start().starts_with('{') {
        let history: KeyHistory = serde_json::from_str(text).ok()?;
        let keys = history.verifiers();
        return (keys.len() == history.keys.len() && !keys.is_empty()).then_some(keys);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<Verifier> = lines.map(str::parse).collect::<Result<_, _>>().ok()?;
    (!keys.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::tests::signer;

    fn entry(number: u8, by: Option<u8>) -> KeyEntry {
        let (key, at) = (signer(number).verifier().clone(), format!("2026-11-{number:02}T00:00:00+00:00"));
        let voucher = by.map(|by| vouch(&signer(by), &key, &at).unwrap().to_string());
        KeyEntry { verifier_key: key.to_string(), created_at: at, retired_at: None, voucher }
    }

    #[test]
    fn trust_goes_from_old_to_new_and_stops_where_nobody_vouches() {
        let history = KeyHistory { keys: vec![entry(3, Some(2)), entry(1, None), entry(2, Some(1)), entry(4, None)] };
        let trusted = |number: u8| {
            let mut numbers: Vec<u8> = (1..=4)
                .filter(|other| {
                    history.trusted(&[signer(number).verifier().clone()]).contains(signer(*other).verifier())
                })
                .collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!([trusted(1), trusted(2), trusted(3), trusted(4)], [vec![1, 2, 3], vec![2, 3], vec![3], vec![4]]);
        let mut moved = history.clone();
        moved.keys[0].created_at = "2020-01-01T00:00:00+00:00".to_owned();
        assert_eq!(moved.trusted(&[signer(1).verifier().clone()]).len(), 2, "the voucher is for another time");
    }

    #[test]
    fn keys_are_given_as_lines_or_as_history() {
        let (one, two) = (signer(1).verifier().clone(), signer(2).verifier().clone());
        assert_eq!(read(&format!("# ours\n{one}\n\n{two}\n")), Some(vec![one.clone(), two.clone()]));
        let history = KeyHistory { keys: vec![entry(1, None), entry(2, Some(1))] };
        assert_eq!(read(&serde_json::to_string(&history).unwrap()), Some(vec![one, two]));
        assert_eq!((read(""), read("nonsense"), read("{}"), read("{\"keys\": []}")), (None, None, None, None));
    }
}
