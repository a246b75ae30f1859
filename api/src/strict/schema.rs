//! From the schemas of OpenAPI 3.0 to JSON Schema 2020-12, which the validator reads.

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How one schema refers to another.
const COMPONENTS: &str = "#/components/schemas/";

/// Whether members that a schema does not name are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// As `additionalProperties` says: what a client may send.
    AsDeclared,
    /// Refused wherever members are named: what our own answers must keep to.
    Closed,
}

/// Compiles a schema of `document`, whose `$ref`s point into the document's components.
///
/// # Errors
/// When the schema is not a valid one: a fault of the document, seen at start and by its tests.
pub fn compile(document: &Value, schema: &Value, members: Members) -> anyhow::Result<Validator> {
    let mut named = BTreeMap::new();
    collect(document, schema, &mut named);
    // only those: each validator keeps what it is given, and there are hundreds
    let schemas: Map<String, Value> =
        named.into_iter().map(|(name, schema)| (name.to_owned(), convert(schema, members))).collect();
    let root = json!({ "allOf": [convert(schema, members)], "components": { "schemas": schemas } });
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(&root)
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Adds the component schemas that `schema` refers to, directly or through others.
fn collect<'d>(document: &'d Value, schema: &'d Value, named: &mut BTreeMap<&'d str, &'d Value>) {
    match schema {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix(COMPONENTS));
            if let Some(name) = name
                && let Some(target) = document.pointer("/components/schemas").and_then(|all| all.get(name))
                && named.insert(name, target).is_none()
            {
                collect(document, target, named);
            }
            members.values().for_each(|member| collect(document, member, named));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(document, item, named)),
        _ => {}
    }
}

/// The schema that `schema` stands for: itself, or what its `$ref` or its only `allOf` member names.
#[must_use]
pub fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let target =
        schema.get("$ref").or_else(|| match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            Some([only]) => only.get("$ref"),
            _ => None,
        });
    target
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| document.pointer(pointer))
        .unwrap_or(schema)
}

fn convert(schema: &Value, members: Members) -> Value {
    let Some(schema) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    for (keyword, value) in schema {
        let converted = match keyword.as_str() {
            "nullable" | "example" | "discriminator" | "deprecated" | "externalDocs" | "readOnly" | "writeOnly" => {
                continue;
            }
            "exclusiveMinimum" | "exclusiveMaximum" => continue,
            "properties" => map_values(value, members),
            "items" | "additionalProperties" | "not" => convert(value, members),
            "allOf" | "anyOf" | "oneOf" => {
                value.as_array().into_iter().flatten().map(|member| convert(member, members)).collect()
            }
            _ => value.clone(),
        };
        out.insert(keyword.clone(), converted);
    }
    exclusive_bounds(schema, &mut out);
    integer_bounds(&mut out);
    if members == Members::Closed && out.contains_key("properties") && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if schema.get("nullable") == Some(&Value::Bool(true)) { nullable(out) } else { Value::Object(out) }
}

fn map_values(properties: &Value, members: Members) -> Value {
    let properties = properties.as_object().into_iter().flatten();
    Value::Object(properties.map(|(name, schema)| (name.clone(), convert(schema, members))).collect())
}

/// 3.0 says `minimum: 0, exclusiveMinimum: true` where JSON Schema says `exclusiveMinimum: 0`.
fn exclusive_bounds(schema: &Map<String, Value>, out: &mut Map<String, Value>) {
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if schema.get(exclusive) == Some(&Value::Bool(true))
            && let Some(value) = out.remove(bound)
        {
            out.insert(exclusive.to_owned(), value);
        }
    }
}

/// The integer formats of the document have ranges that JSON Schema does not know.
fn integer_bounds(out: &mut Map<String, Value>) {
    let (min, max): (Value, Value) = match out.get("format").and_then(Value::as_str) {
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("int64") => (i64::MIN.into(), i64::MAX.into()),
        _ => return,
    };
    if !out.contains_key("exclusiveMinimum") {
        out.entry("minimum").or_insert(min);
    }
    if !out.contains_key("exclusiveMaximum") {
        out.entry("maximum").or_insert(max);
    }
}

fn nullable(mut schema: Map<String, Value>) -> Value {
    let Some(Value::String(kind)) = schema.get("type").cloned() else {
        return json!({ "anyOf": [Value::Object(schema), { "type": "null" }] });
    };
    schema.insert("type".to_owned(), json!([kind, "null"]));
    if let Some(Value::Array(options)) = schema.get_mut("enum") {
        options.push(Value::Null);
    }
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(schema: &Value, value: &Value) -> bool {
        let document = json!({"components": {"schemas": {
            "Colour": {"type": "string", "enum": ["red", "green"]},
            "Thing": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
        }}});
        compile(&document, schema, Members::AsDeclared).unwrap().is_valid(value)
    }

    #[test]
    fn nullable_holds_for_types_enums_and_references() {
        for schema in [
            json!({"type": "string", "nullable": true}),
            json!({"type": "string", "enum": ["red"], "nullable": true}),
            json!({"allOf": [{"$ref": "#/components/schemas/Colour"}], "nullable": true}),
        ] {
            assert!(accepts(&schema, &Value::Null), "{schema}");
            assert!(accepts(&schema, &json!("red")), "{schema}");
            assert!(!accepts(&schema, &json!(1)), "{schema}");
        }
        assert!(!accepts(&json!({"type": "string"}), &Value::Null));
    }

    #[test]
    fn bounds_of_both_spellings() {
        let above_zero = json!({"type": "number", "minimum": 0, "exclusiveMinimum": true});
        assert!(accepts(&above_zero, &json!(0.5)) && !accepts(&above_zero, &json!(0)));
        assert!(!accepts(&json!({"type": "integer", "format": "int32"}), &json!(2_147_483_648_i64)));
        assert!(!accepts(&json!({"type": "integer", "format": "int64"}), &json!(u64::MAX)));
        assert!(!accepts(&json!({"type": "string", "format": "date-time"}), &json!("yesterday")));
        assert!(!accepts(&json!({"type": "string", "format": "uuid"}), &json!("1")));
    }

    #[test]
    fn properties_named_like_keywords_are_properties() {
        let thing = json!({"$ref": "#/components/schemas/Thing"});
        assert!(accepts(&thing, &json!({"type": "x"})) && !accepts(&thing, &json!({"type": 1})));
        let schema = json!({"type": "object", "properties": {"nullable": {"type": "boolean"}}});
        assert!(!accepts(&schema, &json!({"nullable": "x"})) && !accepts(&schema, &Value::Null));
    }

    #[test]
    fn references_are_followed_through_others_and_in_circles() {
        let document = json!({"components": {"schemas": {
            "Tree": {"type": "object", "properties": {"leaf": {"$ref": "#/components/schemas/Leaf"}, "branches": {
                "type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}},
            "Leaf": {"type": "string", "enum": ["green"]},
            "Other": {"type": "integer"},
        }}});
        let tree = json!({"type": "array", "items": {"$ref": "#/components/schemas/Tree"}});
        let tree = compile(&document, &tree, Members::AsDeclared).unwrap();
        assert!(tree.is_valid(&json!([{"branches": [{"leaf": "green"}]}])));
        assert!(!tree.is_valid(&json!([{"branches": [{"leaf": "red"}]}])));
    }

    #[test]
    fn closed_members_are_refused_only_when_asked() {
        let thing = json!({"$ref": "#/components/schemas/Thing"});
        let value = json!({"type": "x", "more": 1});
        assert!(accepts(&thing, &value));
        let document = json!({"components": {"schemas": {"Thing": {"type": "object", "properties": {"type": {"type": "string"}}}}}});
        assert!(!compile(&document, &thing, Members::Closed).unwrap().is_valid(&value));
    }
}
