//! Merge patches (RFC 7396): what one JSON document has that another has not.

use serde_json::{Map, Value};

/// What makes `to` of `from`, or `None` when they are the same.
pub fn diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return Some(to.clone()) };
    let mut patch = Map::new();
    for (name, now) in to {
        if let Some(change) = diff(from.get(name).unwrap_or(&Value::Null), now) {
            patch.insert(name.clone(), change);
        }
    }
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// `target` after the patch: members that the patch says are null are gone.
pub fn apply(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut members = match target {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, change) in patch {
        if change.is_null() {
            members.remove(name);
        } else {
            let before = members.remove(name).unwrap_or(Value::Null);
            members.insert(name.clone(), apply(before, change));
        }
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_was_added_changed_and_taken_away_is_the_patch() {
        let from = json!({"name": "a", "expires": null, "attributes": {"type": "x", "old": 1}, "list": [1]});
        let to = json!({"name": "a", "expires": "2030", "attributes": {"type": "y"}, "list": [1, 2]});
        let patch = diff(&from, &to).unwrap();
        assert_eq!(patch, json!({"expires": "2030", "attributes": {"type": "y", "old": null}, "list": [1, 2]}));
        assert_eq!(apply(from, &patch), to);
        assert_eq!(diff(&to, &to), None);
    }

    /// Documents without null members, which no patch can tell from absent ones.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_to_the_other(from in document(), to in document()) {
            let reached = diff(&from, &to).map_or(from.clone(), |patch| apply(from, &patch));
            prop_assert_eq!(reached, to);
        }
    }
}
