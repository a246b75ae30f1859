//! The paging parameters of every operation that answers a list ([`crate::page`]).

use serde_json::{Map, Value, json};

use super::{each_operation, set};
use crate::page::{DEFAULT_LIMIT, MAX_LIMIT, MAX_OFFSET};
use crate::strict::resolve;

pub(super) fn add_parameters(document: &mut Value) {
    let schemas = json!({ "components": { "schemas": document.pointer("/components/schemas") } });
    each_operation(document, |_, _, operation| {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            say_how_to_repeat(&schemas, parameter);
        }
        if is_list(operation)
            && let Value::Array(parameters) = operation.entry("parameters").or_insert_with(|| json!([]))
        {
            parameters.extend(paging());
            add_streams(&schemas, operation);
        }
    });
}

/// The same rows without pages ([`crate::streamed`]).
fn add_streams(document: &Value, operation: &mut Map<String, Value>) {
    let Some(Value::Object(content)) =
        operation.get_mut("responses").and_then(|responses| responses.pointer_mut("/200/content"))
    else {
        return;
    };
    let page = content.get("application/json").and_then(|media| media.get("schema")).cloned().unwrap_or_default();
    let row = resolve(document, &page).pointer("/properties/data/items").cloned().unwrap_or_default();
    content.insert("application/x-ndjson".to_owned(), json!({ "schema": row }));
    content.insert("text/csv".to_owned(), json!({ "schema": { "type": "string" } }));
}

/// Lists in the query mean "any of these"; only enumerations may be written with commas ([`crate::strict`]).
fn say_how_to_repeat(document: &Value, parameter: &mut Value) {
    let Some(items) = parameter.pointer("/schema/items") else { return };
    let how = if resolve(document, items).get("enum").is_some() {
        "Any of several: repeat the parameter, or separate by commas."
    } else {
        "Any of several: repeat the parameter."
    };
    let said = parameter.get("description").and_then(Value::as_str).unwrap_or_default();
    let description = format!("{said} {how}").trim_start().to_owned();
    set(parameter, "description", json!(description));
}

/// Whether the operation's 200 is a [`crate::page::Page`], whose schemas poem names `Page_…`.
fn is_list(operation: &Map<String, Value>) -> bool {
    let schema = operation
        .get("responses")
        .and_then(|responses| responses.pointer("/200/content/application~1json/schema/$ref"));
    schema.and_then(Value::as_str).is_some_and(|name| name.starts_with("#/components/schemas/Page_"))
}

fn paging() -> [Value; 4] {
    let parameter = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema });
    [
        parameter(
            "limit",
            "The most rows of the page.",
            json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT }),
        ),
        parameter(
            "cursor",
            "`nextCursor` of the page before; good only with the same filters and sort.",
            json!({ "type": "string", "minLength": 1, "maxLength": 4096 }),
        ),
        parameter(
            "offset",
            "Rows to skip, instead of `cursor`.",
            json!({ "type": "integer", "minimum": 0, "maximum": MAX_OFFSET }),
        ),
        parameter(
            "includeTotal",
            "Whether to count the rows of the whole list.",
            json!({ "type": "boolean", "default": false }),
        ),
    ]
}
