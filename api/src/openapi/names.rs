//! Spellings: header names in their usual case, media types without parameters, references with what is said about them.

use serde_json::{Map, Value, json};

use super::{each_operation, members};

/// Headers whose usual case is not a capital after each hyphen.
const USUAL: [&str; 3] = ["ETag", "WWW-Authenticate", "X-RateLimit-Limit"];

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
            strip_media_parameters(response);
        }
        if let Some(body) = operation.get_mut("requestBody") {
            strip_media_parameters(body);
        }
    });
    lift_annotations(document);
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

/// Poem says things about a reference as `{allOf: [{$ref}, {nullable: true}], nullable: true}`: the second member repeats the
/// annotations and says nothing that validates, and generators choke on it.
fn lift_annotations(value: &mut Value) {
    match value {
        Value::Object(object) => {
            lift(object);
            object.values_mut().for_each(lift_annotations);
        }
        Value::Array(items) => items.iter_mut().for_each(lift_annotations),
        _ => {}
    }
}

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
            ("IF-NONE-MATCH", "If-None-Match"),
            ("X-RATELIMIT-RESET", "X-RateLimit-Reset"),
            ("KEYWRIGHT-DEDUPLICATED", "Keywright-Deduplicated"),
        ] {
            assert_eq!(usual_case(emitted), usual);
        }
    }
}
