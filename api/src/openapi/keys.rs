//! The `Idempotency-Key` of every operation that answers [`crate::idempotency::Made`].

use serde_json::{Map, Value, json};

use super::each_operation;
use crate::idempotency::{KEY, REPLAYED};

pub(super) fn add_parameters(document: &mut Value) {
    each_operation(document, |_, _, operation| {
        if creates(operation)
            && let Value::Array(parameters) = operation.entry("parameters").or_insert_with(|| json!([]))
        {
            parameters.push(parameter());
        }
    });
}

fn creates(operation: &Map<String, Value>) -> bool {
    let responses = operation.get("responses").and_then(Value::as_object).into_iter().flatten();
    responses.filter_map(|(_, response)| response.get("headers")).any(|headers| headers.get(REPLAYED).is_some())
}

fn parameter() -> Value {
    json!({
        "name": KEY,
        "in": "header",
        "required": false,
        "description": "Names this request, so that it is done once however often it is sent: within 24 hours the same caller, \
            path and key are given the first answer again. Choose a new one, such as a UUID, for each thing to be made.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    })
}
