//! Canonical JSON (RFC 8785): the one sequence of bytes that stands for a value.
//!
//! RFC 8785 knows numbers as doubles, and so loses integers beyond 2^53. What is hashed therefore has no such numbers and no
//! fractions: [`plain`] makes text of them.

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

/// The largest integer that every reader of JSON keeps exactly (RFC 7493, 2.2).
const EXACT: u64 = (1 << 53) - 1;

/// A value cannot be written as JSON, for instance a map whose keys are not text.
#[derive(Debug, Error)]
#[error("a value cannot be written as canonical JSON: {0}")]
pub struct NotJson(#[from] serde_json::Error);

/// The canonical bytes of a value.
///
/// # Errors
/// [`NotJson`].
pub fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, NotJson> {
    Ok(serde_json_canonicalizer::to_vec(value)?)
}

/// The same value with text in the place of every number that is not an integer of at most 53 bits.
#[must_use]
pub fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let exact =
                number.as_u64().map(|n| n <= EXACT).or_else(|| number.as_i64().map(|n| n.unsigned_abs() <= EXACT));
            if exact.unwrap_or(false) { Value::Number(number) } else { Value::String(number.to_string()) }
        }
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(name, value)| (name, plain(value))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(json: &str) -> String {
        String::from_utf8(to_vec(&serde_json::from_str::<Value>(json).unwrap()).unwrap()).unwrap()
    }

    /// RFC 8785, 3.2.2, 3.2.3 and appendix B.
    #[test]
    fn examples_of_the_rfc() {
        let given = r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        let wanted = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
            \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(text(given), wanted);
        let given = r#"{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}"#;
        let order: Vec<usize> = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
            .iter()
            .map(|name| text(given).find(name).unwrap())
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        for (bits, wanted) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x4143_4dad_33c9_0000, "2530138.5703125"),
        ] {
            let value = f64::from_bits(bits);
            let got = String::from_utf8(to_vec(&value).unwrap()).unwrap();
            if bits == 0x4143_4dad_33c9_0000 {
                assert_eq!(got.parse::<f64>().unwrap().to_bits(), bits);
            } else {
                assert_eq!(got, wanted, "{bits:x}");
            }
        }
    }

    #[test]
    fn numbers_that_doubles_lose_become_text() {
        let value = json!({"a": [9_007_199_254_740_991_u64, 9_007_199_254_740_992_u64, -9_007_199_254_740_993_i64, 1.5, u64::MAX]});
        let wanted = json!({"a": [9_007_199_254_740_991_u64, "9007199254740992", "-9007199254740993", "1.5", "18446744073709551615"]});
        assert_eq!(plain(value), wanted);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// What was hashed can be read and written again without a change.
        #[test]
        fn plain_values_survive(value in values()) {
            let plain = plain(value);
            let bytes = to_vec(&plain).unwrap();
            let back: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&back, &plain);
            prop_assert_eq!(to_vec(&back).unwrap(), bytes);
        }
    }
}
