//! Members that are absent, `null` or unknown: what the types mean, said by the schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{members, operations};

/// Members of answers that are left out when they have no value, instead of being sent as `null`: (schema, member).
const OMITTED: &[(&str, &str)] = &[];

pub(super) fn make_exact(document: &mut Value) {
    let asked = reachable(document, |operation| operation.get("requestBody").into_iter().collect());
    let answered = reachable(document, |operation| operation.get("responses").into_iter().collect());
    for (name, schema) in members(document.pointer_mut("/components/schemas")) {
        let Some(schema) = schema.as_object_mut() else { continue };
        if !schema.contains_key("properties") {
            continue;
        }
        if answered.contains(name) {
            let omitted: Vec<&str> = OMITTED.iter().filter(|(of, _)| of == name).map(|(_, member)| *member).collect();
            let required = !asked.contains(name);
            always_sent(schema, required, &omitted);
        }
        if asked.contains(name) {
            schema.entry("additionalProperties").or_insert(Value::Bool(false));
        }
    }
}

/// The component schemas that the chosen parts of the operations lead to.
fn reachable(document: &Value, parts: impl Fn(&Value) -> Vec<&Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, _, operation) in operations(document) {
        for part in parts(operation) {
            follow(document, part, &mut found);
        }
    }
    found
}

fn follow(document: &Value, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref")
                && let Some(name) = reference.strip_prefix("#/components/schemas/")
                && found.insert(name.to_owned())
                && let Some(schema) = document.pointer("/components/schemas").and_then(|schemas| schemas.get(name))
            {
                follow(document, schema, found);
            }
            object.values().for_each(|member| follow(document, member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| follow(document, item, found)),
        _ => {}
    }
}

/// Optional members of an answer are sent as `null`. Where requests use the schema too they stay optional.
fn always_sent(schema: &mut Map<String, Value>, require: bool, omitted: &[&str]) {
    let mut required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut added = Vec::new();
    for (name, member) in members(schema.get_mut("properties")) {
        let write_only = member.get("writeOnly") == Some(&Value::Bool(true));
        if write_only || omitted.contains(&name.as_str()) || required.iter().any(|required| required == name) {
            continue;
        }
        if member.get("default").is_none_or(Value::is_null) {
            nullable(member);
        }
        added.push(Value::from(name.as_str()));
    }
    if require && !added.is_empty() {
        required.extend(added);
        schema.insert("required".to_owned(), Value::Array(required));
    }
}

/// A reference cannot have siblings in 3.0: it is wrapped.
fn nullable(schema: &mut Value) {
    if let Some(reference) = schema.get("$ref").cloned() {
        *schema = json!({ "allOf": [{ "$ref": reference }], "nullable": true });
    } else if let Some(object) = schema.as_object_mut()
        && !object.is_empty()
    {
        object.insert("nullable".to_owned(), Value::Bool(true));
    }
}
