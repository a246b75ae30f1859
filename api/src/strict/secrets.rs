//! Where answers hold what is shown once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::resolve;

/// The members on the way to a secret; an empty one stands for every item of a list.
pub type Place = Vec<String>;

/// By status, the secrets in the answers of an operation: strings of the format `password`.
pub fn find(document: &Value, operation: &Value) -> anyhow::Result<BTreeMap<u16, Vec<Place>>> {
    let responses = operation.get("responses").and_then(Value::as_object).into_iter().flatten();
    responses
        .map(|(status, response)| {
            let mut found = Vec::new();
            for media in
                response.get("content").and_then(Value::as_object).into_iter().flat_map(|content| content.values())
            {
                if let Some(schema) = media.get("schema") {
                    collect(document, schema, &mut Vec::new(), &mut found);
                }
            }
            Ok((status.parse()?, found))
        })
        .collect()
}

fn collect(document: &Value, schema: &Value, path: &mut Place, found: &mut Vec<Place>) {
    // deeper than any answer goes: ends recursive schemas
    const MAX_DEPTH: usize = 16;
    let schema = resolve(document, schema);
    if schema.get("format").and_then(Value::as_str) == Some("password") {
        found.push(path.clone());
    }
    if path.len() == MAX_DEPTH {
        return;
    }
    let items = schema.get("items").map(|items| (String::new(), items));
    let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (step, schema) in members.map(|(name, schema)| (name.clone(), schema)).chain(items) {
        path.push(step);
        collect(document, schema, path, found);
        path.pop();
    }
    for choice in ["allOf", "oneOf", "anyOf"].iter().filter_map(|choice| schema.get(choice)?.as_array()).flatten() {
        collect(document, choice, path, found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::strict::{Match, Operations};

    #[test]
    fn secrets_are_found_wherever_a_schema_has_them() {
        let document = json!({
            "paths": {"/api/keys": {"post": {"operationId": "make", "responses": {
                "201": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Key"}}}},
                "400": {"content": {"application/problem+json": {"schema": {"type": "object"}}}},
            }}}},
            "components": {"schemas": {
                "Key": {"type": "object", "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "secret": {"type": "string", "format": "password", "nullable": true},
                    "parts": {"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/Part"}]}},
                }},
                "Part": {"type": "object", "properties": {
                    "value": {"type": "string", "format": "password"},
                    "whole": {"$ref": "#/components/schemas/Key"},
                }},
            }},
        });
        let operations = Operations::compile(&document, &[], false).unwrap();
        let Match::Operation(make, _) = operations.find("POST", "/api/keys") else { panic!("no operation") };
        let paths: Vec<String> = make.secrets(201).iter().map(|path| path.join("/")).collect();
        assert!(
            ["secret", "parts//value", "parts//whole/secret"].iter().all(|path| paths.contains(&(*path).to_owned()))
        );
        assert!(make.secrets(400).is_empty() && make.secrets(202).is_empty());
    }
}
