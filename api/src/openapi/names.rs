//! Spellings: header names in their usual case, media types without parameters, references with what is said about them.

use serde_json::{Map, Value, json};

use super::{each_operation, members};

/// Headers whose usual case is not a capital after each hyphen.
const USUAL: [&str; 4] = ["ETag", "Last-Event-ID", "WWW-Authenticate", "X-RateLimit-Limit"];

pub(super) fn normalise(document: &mut Value) {
    each_operation(document, |_, _, operation| {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            if parameter.get("in") == Some(&json!("header"))
                && let Some(Value::String(name)) = parameter.get_mut("name")
            {
                *name = usual_case(name);
            }
            strip_defaults(parameter);
        }
        for (_, response) in members(operation.get_mut("responses")) {
            if let Some(Value::Object(headers)) = response.get_mut("headers") {
                *headers =
                    std::mem::take(headers).into_iter().map(|(name, header)| (usual_case(&name), header)).collect();
            }
            for (_, header) in members(response.get_mut("headers")) {
                strip_defaults(header);
            }
            strip_media_parameters(response);
        }
        if let Some(body) = operation.get_mut("requestBody") {
            strip_media_parameters(body);
        }
    });
    tidy(document);
}

/// What holds anyway: not deprecated, and a way of writing lists for what is no list.
fn strip_defaults(parameter: &mut Value) {
    let is_list = parameter.pointer("/schema/type") == Some(&json!("array"));
    if let Some(parameter) = parameter.as_object_mut() {
        parameter.retain(|member, value| {
            !(member == "deprecated" && *value == Value::Bool(false) || member == "explode" && !is_list)
        });
    }
}

fn usual_case(name: &str) -> String {
    if let Some(usual) = USUAL.iter().find(|usual| usual.eq_ignore_ascii_case(name)) {
        return (*usual).to_owned();
    }
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{}{}", first.to_ascii_uppercase(), rest.to_ascii_lowercase())
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-").replace("Ratelimit", "RateLimit")
}

fn strip_media_parameters(holder: &mut Value) {
    if let Some(Value::Object(content)) = holder.get_mut("content") {
        *content = std::mem::take(content)
            .into_iter()
            .map(|(name, media)| (name.split(';').next().unwrap_or_default().trim().to_owned(), media))
            .collect();
    }
}

/// Schemas wherever they are.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            lift(object);
            exact_integer(object);
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Poem says things about a reference as `{allOf: [{$ref}, {nullable: true}], nullable: true}`: the second member repeats the
/// annotations and says nothing that validates, and generators choke on it.
fn lift(object: &mut Map<String, Value>) {
    const ANNOTATIONS: [&str; 8] =
        ["nullable", "description", "readOnly", "writeOnly", "deprecated", "default", "example", "title"];
    let Some(Value::Array(all_of)) = object.get_mut("allOf") else { return };
    if let [reference, Value::Object(said)] = all_of.as_mut_slice()
        && reference.get("$ref").is_some()
        && said.keys().all(|keyword| ANNOTATIONS.contains(&keyword.as_str()))
    {
        let said = std::mem::take(said);
        all_of.truncate(1);
        object.extend(said);
    }
}

/// Integers as generators know them, `int32` and `int64`, with whole bounds; poem names Rust's types and bounds by floats.
fn exact_integer(schema: &mut Map<String, Value>) {
    if schema.get("type") != Some(&json!("integer")) {
        return;
    }
    for bound in ["minimum", "maximum", "multipleOf"] {
        if let Some(value) = schema.get_mut(bound)
            && let Some(float) = value.as_f64()
        {
            // bounds are small whole numbers written as floats
            *value = json!(float as i64);
        }
    }
    let (format, min, max) = match schema.get("format").and_then(Value::as_str) {
        Some("int8") => ("int32", Some(i64::from(i8::MIN)), Some(i64::from(i8::MAX))),
        Some("int16") => ("int32", Some(i64::from(i16::MIN)), Some(i64::from(i16::MAX))),
        Some("uint8") => ("int32", Some(0), Some(i64::from(u8::MAX))),
        Some("uint16") => ("int32", Some(0), Some(i64::from(u16::MAX))),
        Some("uint32") => ("int64", Some(0), Some(i64::from(u32::MAX))),
        Some("uint64") => ("int64", Some(0), None),
        _ => return,
    };
    schema.insert("format".to_owned(), json!(format));
    for (bound, value) in [("minimum", min), ("maximum", max)] {
        if let Some(value) = value {
            schema.entry(bound).or_insert(json!(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_usual_case() {
        for (emitted, usual) in [
            ("LOCATION", "Location"),
            ("ETAG", "ETag"),
            ("RETRY-AFTER", "Retry-After"),
            ("WWW-AUTHENTICATE", "WWW-Authenticate"),
            ("X-REQUEST-ID", "X-Request-Id"),
            ("LAST-EVENT-ID", "Last-Event-ID"),
            ("IF-NONE-MATCH", "If-None-Match"),
            ("X-RATELIMIT-RESET", "X-RateLimit-Reset"),
            ("KEYWRIGHT-DEDUPLICATED", "Keywright-Deduplicated"),
        ] {
            assert_eq!(usual_case(emitted), usual);
        }
    }
}
