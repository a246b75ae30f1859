//! What was asked for, as one short text: two requests have the same exactly when they ask for the same.
//!
//! A body in JSON counts by its value: white space, the order of members, escapes and the spelling of numbers (`1`, `1.0`, `1e0`)
//! do not matter. A member that is `null` is not the same as one that is absent. Any other body counts by its bytes.
//!
//! It is kept for a day, and bodies may hold passwords: without the instance's key nobody can try which body it stands for.

use crate::strict::Sent;
use aws_lc_rs::hmac;
use serde_json::{Number, Value};
use url::form_urlencoded;

/// Numbers up to here are exact as 64-bit floats (RFC 8785, 3.2.2.3).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The same in all API processes of an instance.
#[derive(Clone)]
pub struct FingerprintKey(hmac::Key);

impl FingerprintKey {
    /// `secret` is key material of any length, 32 bytes as a rule.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

/// Names what a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of a query and a body.
    pub fn of(key: &FingerprintKey, query: Option<&str>, sent: &Sent) -> Self {
        let mut pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        // among equal names the order is the client's
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let mut text = String::new();
        let (kind, body): (&[u8], &[u8]) = match sent {
            Sent::Nothing => (b"nothing", b""),
            Sent::Json(value) => {
                write(value, &mut text);
                (b"json", text.as_bytes())
            }
            Sent::Bytes(bytes) => (b"bytes", bytes),
        };
        let name = super::name(&[query.as_bytes(), kind, body]);
        Self(hex::encode(hmac::sign(&key.0, name.as_bytes())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends the one spelling of `value`.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(number) => out.push_str(&spelling(number)),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, member) in members {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(member, out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

fn spelling(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => (float as i64).to_string(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> FingerprintKey {
        FingerprintKey::new(b"test")
    }

    #[test]
    fn another_key_gives_another_name() {
        let of = |secret: &[u8]| Fingerprint::of(&FingerprintKey::new(secret), Some("a=1"), &Sent::Nothing);
        assert_eq!(of(b"one"), of(b"one"));
        assert_ne!(of(b"one"), of(b"two"));
    }

    fn of(body: &str) -> Fingerprint {
        Fingerprint::of(&key(), None, &Sent::Json(serde_json::from_str(body).unwrap()))
    }

    #[test]
    fn the_same_value_is_the_same_request() {
        for (one, other) in [
            (r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#, r#"{"b":{"d":null,"c":[1,2]},"a":1}"#),
            (r#"{"a": 1}"#, r#"{"a": 1.0}"#),
            (r#"{"a": 100}"#, r#"{"a": 1e2}"#),
            (r#"{"a": 0}"#, r#"{"a": -0.0}"#),
            (r#"{"a": 0.5}"#, r#"{"a": 5e-1}"#),
            (r#""\u00e9/""#, r#""é\/""#),
        ] {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn other_values_are_other_requests() {
        let bodies = [
            "null",
            "{}",
            "[]",
            r#""""#,
            "0",
            "1",
            r#""1""#,
            "true",
            r#"{"a":null}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[12]}"#,
            r#"{"a":[[1],2]}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":"{\"b\":1}"}"#,
            r#"{"a":"","b":""}"#,
            "9007199254740993",
            "9007199254740992.0",
            "1.5",
            "1e300",
        ];
        for (n, one) in bodies.iter().enumerate() {
            for other in bodies.iter().skip(n + 1) {
                assert_ne!(of(one), of(other), "{one} {other}");
            }
        }
        let nothing = Fingerprint::of(&key(), None, &Sent::Nothing);
        assert_ne!(nothing, of("null"));
        assert_ne!(nothing, Fingerprint::of(&key(), None, &Sent::Bytes(Vec::new())));
        assert_ne!(of("1"), Fingerprint::of(&key(), None, &Sent::Bytes(b"1".to_vec())));
    }

    #[test]
    fn the_query_counts_but_not_the_order_of_its_names() {
        let of = |query| Fingerprint::of(&key(), Some(query), &Sent::Nothing);
        assert_eq!(of("a=1&b=2"), of("b=2&a=1"));
        assert_eq!(of(""), Fingerprint::of(&key(), None, &Sent::Nothing));
        assert_ne!(of("a=1"), of("a=2"));
        assert_ne!(of("a=1&a=2"), of("a=2&a=1"));
    }

    proptest! {
        #[test]
        fn any_integer_is_its_own(number in any::<i64>()) {
            prop_assert_eq!(of(&number.to_string()), of(&format!(" {number} ")));
            prop_assert_ne!(of(&number.to_string()), of(&number.wrapping_add(1).to_string()));
        }
    }
}
