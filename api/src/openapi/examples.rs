//! Every operation has examples: those that the types declare, and values made from the schemas where they declare none.

use serde_json::{Map, Value, json};

use super::{each_operation, members};
use crate::strict::resolve;

/// Deeper than any answer goes: ends recursive schemas.
const MAX_DEPTH: usize = 8;

pub(super) fn add(document: &mut Value) {
    let schemas = json!({ "components": { "schemas": document.pointer("/components/schemas") } });
    each_operation(document, |_, _, operation| {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            // an optional parameter with an example would be sent by "try it out"
            if parameter.get("required") == Some(&Value::Bool(true)) {
                add_to(&schemas, parameter);
            }
        }
        for (_, media) in members(operation.get_mut("requestBody").and_then(|body| body.get_mut("content"))) {
            add_to(&schemas, media);
        }
        for (_, response) in members(operation.get_mut("responses")) {
            for (_, media) in members(response.get_mut("content")) {
                add_to(&schemas, media);
            }
        }
    });
}

fn add_to(document: &Value, holder: &mut Value) {
    let Some(holder) = holder.as_object_mut() else { return };
    if !holder.contains_key("example")
        && let Some(schema) = holder.get("schema")
    {
        let example = example(document, schema, 0);
        holder.insert("example".to_owned(), example);
    }
}

fn example(document: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(declared) = schema.get("example") {
        return declared.clone();
    }
    let resolved = resolve(document, schema);
    for keyword in ["example", "default"] {
        if let Some(declared) = resolved.get(keyword).filter(|declared| !declared.is_null()) {
            return declared.clone();
        }
    }
    if let Some(first) = resolved.get("enum").and_then(|options| options.get(0)) {
        return first.clone();
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(first) = resolved.get(choice).and_then(|choices| choices.get(0)) {
            return example(document, first, depth + 1);
        }
    }
    match resolved.get("type").and_then(Value::as_str) {
        Some("object") => object(document, resolved, depth),
        Some("array") => match resolved.get("items") {
            Some(items) if depth < MAX_DEPTH => json!([example(document, items, depth + 1)]),
            _ => json!([]),
        },
        Some("integer") => {
            resolved.get("minimum").and_then(Value::as_f64).map_or(json!(1), |min| json!(min.max(1.0).ceil() as i64))
        }
        Some("number") => json!(1.5),
        Some("boolean") => json!(true),
        Some("string") => json!(text(resolved.get("format").and_then(Value::as_str))),
        _ => Value::Null,
    }
}

fn object(document: &Value, schema: &Value, depth: usize) -> Value {
    let mut out = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (name, member) in properties {
        let value = if depth < MAX_DEPTH { example(document, member, depth + 1) } else { Value::Null };
        out.insert(name.clone(), value);
    }
    Value::Object(out)
}

fn text(format: Option<&str>) -> &'static str {
    match format {
        Some("uuid") => "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a11",
        Some("date-time") => "2026-05-20T10:30:00+00:00",
        Some("date") => "2026-05-20",
        Some("password") => "correct horse battery staple",
        _ => "example",
    }
}
