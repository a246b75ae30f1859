//! Reading a JSON body without forgiving: no member twice, no deep nesting, and no word of the content in the refusal.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{ApiError, Code};

/// Deepest nesting of objects and arrays that a body may have.
pub const MAX_DEPTH: usize = 64;

/// Most members of one object or items of one array.
pub const MAX_MEMBERS: usize = 10_000;

const TOO_MANY: &str = "an object or array has too many members";
const REPEATED: &str = "a member is given twice";
const TOO_DEEP: &str = "the nesting is too deep";

/// Reads the whole of `bytes` as one JSON value.
///
/// # Errors
/// 400 `malformed_json` with line and column for what is not JSON, for a repeated member and for nesting beyond
/// [`MAX_DEPTH`] or more members than [`MAX_MEMBERS`].
pub fn read(bytes: &[u8]) -> Result<Value, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| ApiError::new(Code::MalformedJson, describe(&error)))
}

/// serde_json's own text names positions and token kinds, but for other errors it may quote: only the two texts that were
/// put there by [`Strict`] are told apart.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = [REPEATED, TOO_DEEP, TOO_MANY].into_iter().find(|own| text.starts_with(own));
    let what = what.unwrap_or(if error.is_eof() { "it ends too early" } else { "the syntax is wrong" });
    format!("The body cannot be read as JSON: {what} (line {}, column {}).", error.line(), error.column())
}

struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth < MAX_DEPTH { Ok(self.depth + 1) } else { Err(E::custom(TOO_DEEP)) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict { depth })? {
            if array.len() == MAX_MEMBERS {
                return Err(A::Error::custom(TOO_MANY));
            }
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict { depth })?;
            if object.len() == MAX_MEMBERS {
                return Err(A::Error::custom(TOO_MANY));
            }
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom(REPEATED));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn malformed_bodies_say_where_but_not_what() {
        for (body, expected) in [
            (r#"{"password": "hunter2""#, "it ends too early (line 1, column 22)"),
            ("{\n  \"a\": hunter2}", "the syntax is wrong (line 2, column"),
            (r#"{"hunter2": 1, "hunter2": 2}"#, REPEATED),
            (r#"{"a": {"hunter2": 1, "hunter2": 2}}"#, REPEATED),
            (r#"{"a": 1} hunter2"#, "the syntax is wrong"),
            ("hunter2", "the syntax is wrong"),
            ("1e999", "the syntax is wrong"),
            ("", "it ends too early"),
        ] {
            let error = read(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), Code::MalformedJson);
            assert!(error.detail().contains(expected), "{body}: {}", error.detail());
            assert!(!error.detail().contains("hunter2"), "{}", error.detail());
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(read(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err().detail().contains(TOO_DEEP));
        assert!(read(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn arrays_and_objects_have_an_end() {
        let array = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert!(read(array(MAX_MEMBERS).as_bytes()).is_ok());
        assert!(read(array(MAX_MEMBERS + 1).as_bytes()).unwrap_err().detail().contains(TOO_MANY));
        let members = |count| (0..count).map(|name| format!("\"{name}\":0")).collect::<Vec<_>>().join(",");
        assert!(read(format!("{{{}}}", members(MAX_MEMBERS)).as_bytes()).is_ok());
        assert!(read(format!("{{{}}}", members(MAX_MEMBERS + 1)).as_bytes()).unwrap_err().detail().contains(TOO_MANY));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }

        #[test]
        fn what_serde_reads_is_read_the_same(text in r#"\{"a": (1|-2|0\.5|null|true|"x"|\[1,"y"\]|\{"b":\{\}\})\}"#) {
            let expected: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read(text.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn values_are_kept() {
        let value = json!({"a": [1, -1, 18_446_744_073_709_551_615_u64, 0.25, "é", null, true, {}]});
        assert_eq!(read(value.to_string().as_bytes()).unwrap(), value);
    }
}
