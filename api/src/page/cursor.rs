//! Cursors: the sort values of the last row seen, opaque and tamper-evident.
//!
//! `base64url(HMAC-SHA256(key, list ‖ 0 ‖ payload)[..16] ‖ payload)`: the tag covers the list (path, filters, sort), so a
//! cursor is only good for the list that it came from.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sea_orm::Value;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ApiError;

const TAG_LEN: usize = 16;

/// One sort value of a row. Timestamps are written with microseconds, as both databases keep them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Key {
    #[serde(rename = "n")]
    Null,
    #[serde(rename = "s")]
    Text(String),
    #[serde(rename = "i")]
    Integer(i64),
    #[serde(rename = "t")]
    Timestamp(DateTime<Utc>),
    #[serde(rename = "u")]
    Uuid(Uuid),
}

impl Key {
    /// The value to compare a column with; `None` is SQL's NULL, which compares with nothing.
    pub(super) fn to_value(&self) -> Option<Value> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone().into()),
            Self::Integer(number) => Some((*number).into()),
            Self::Timestamp(instant) => Some((*instant).into()),
            Self::Uuid(id) => Some((*id).into()),
        }
    }
}

impl<T: Into<Self>> From<Option<T>> for Key {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<DateTime<Utc>> for Key {
    fn from(instant: DateTime<Utc>) -> Self {
        Self::Timestamp(instant)
    }
}

impl From<Uuid> for Key {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

/// What cursors are signed with: derived from the instance's master key, the same in all its API processes.
#[derive(Clone)]
pub struct CursorKey(hmac::Key);

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey(…)")
    }
}

impl CursorKey {
    /// `secret` is key material of any length, 32 bytes as a rule.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The cursor that stands after the row with these sort values in `list`.
    ///
    /// # Errors
    /// Never for the values that [`Key`] can hold.
    pub(super) fn seal(&self, list: &str, keys: &[Key]) -> Result<String, ApiError> {
        let payload = serde_json::to_vec(keys).map_err(ApiError::internal)?;
        let tag = hmac::sign(&self.0, &message(list, &payload));
        let mut token: Vec<u8> = tag.as_ref().iter().take(TAG_LEN).copied().collect();
        token.extend(payload);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// The sort values in a cursor of `list`.
    ///
    /// # Errors
    /// 400 when it was altered, belongs to another list, or was made by another version for other sort keys.
    pub(super) fn open(&self, list: &str, cursor: &str, arity: usize) -> Result<Vec<Key>, ApiError> {
        let refused = || {
            ApiError::invalid(
                "/query/cursor",
                "cursor",
                "The cursor was altered, or belongs to a list with other filters or another sort. Start at the first page.",
            )
        };
        let token = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (tag, payload) = token.split_at_checked(TAG_LEN).ok_or_else(refused)?;
        let expected = hmac::sign(&self.0, &message(list, payload));
        let expected = expected.as_ref().get(..TAG_LEN).ok_or_else(refused)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag).map_err(|_| refused())?;
        let keys: Vec<Key> = serde_json::from_slice(payload).map_err(|_| refused())?;
        if keys.len() == arity { Ok(keys) } else { Err(refused()) }
    }
}

fn message(list: &str, payload: &[u8]) -> Vec<u8> {
    [list.as_bytes(), &[0], payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            Just(Key::Null),
            any::<String>().prop_map(Key::Text),
            any::<i64>().prop_map(Key::Integer),
            (0_i64..4_000_000_000_000_000).prop_map(|us| Key::Timestamp(DateTime::from_timestamp_micros(us).unwrap())),
            any::<u128>().prop_map(|id| Key::Uuid(Uuid::from_u128(id))),
        ]
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(keys in proptest::collection::vec(key(), 1..4), list in ".*") {
            let signer = CursorKey::new(b"one");
            let cursor = signer.seal(&list, &keys).unwrap();
            prop_assert_eq!(signer.open(&list, &cursor, keys.len()).unwrap(), keys.clone());
            prop_assert!(signer.open(&list, &cursor, keys.len() + 1).is_err());
            let other_list = format!("{list}x");
            prop_assert!(signer.open(&other_list, &cursor, keys.len()).is_err());
            prop_assert!(CursorKey::new(b"two").open(&list, &cursor, keys.len()).is_err());
        }

        #[test]
        fn any_flipped_bit_is_noticed(keys in proptest::collection::vec(key(), 1..3), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let signer = CursorKey::new(b"one");
            let mut token = URL_SAFE_NO_PAD.decode(signer.seal("list", &keys).unwrap()).unwrap();
            let at = at.index(token.len());
            token[at] ^= 1 << bit;
            prop_assert!(signer.open("list", &URL_SAFE_NO_PAD.encode(token), keys.len()).is_err());
        }

        #[test]
        fn garbage_is_refused(cursor in ".*") {
            prop_assert!(CursorKey::new(b"one").open("list", &cursor, 1).is_err());
        }
    }
}
