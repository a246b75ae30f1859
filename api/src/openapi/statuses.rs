//! Which refusals each operation can answer with. Most follow from what it takes; the others are listed.

use serde_json::{Map, Value, json};

use super::{Options, each_operation};
use crate::auth::sso::page;
use crate::error::{Code, PROBLEM_JSON};

/// Refusals that do not follow from an operation's parameters, body and credentials, by `operationId`.
pub const EXTRA: &[(&str, &[u16])] = &[
    ("getReadiness", &[503]),
    ("getMetrics", &[401, 403, 503]),
    ("login", &[401, 403, 429]),
    ("refresh", &[401, 403]),
    ("ssoLogin", &[403, 404, 503]),
    ("ssoCallback", &[401, 403, 404, 409, 503]),
    ("logout", &[409]),
    ("changePassword", &[409, 429]),
    ("createSubscription", &[409]),
    ("deleteSubscription", &[409]),
    ("testSubscription", &[409]),
    ("listAccounts", &[409]),
    ("createUser", &[409, 429]),
    ("updateUser", &[409, 429]),
    ("deleteUser", &[409]),
    ("startScan", &[409]),
    ("buildEvidence", &[409]),
    ("downloadEvidence", &[409, 416]),
    ("getEvidenceReport", &[409]),
    ("updateSettings", &[428]),
    ("approve", &[409, 412]),
    ("deny", &[409, 412]),
    ("createRotationPolicy", &[409]),
    ("updateRotationPolicy", &[409]),
    ("deleteRotationPolicy", &[409]),
    ("planRotation", &[409]),
    ("rotate", &[409, 412]),
    ("rollBackRotation", &[409]),
    ("resolveRotation", &[409]),
    ("exportAudit", &[409]),
    ("verifyAudit", &[409]),
    ("startAuditVerification", &[409]),
    ("getAuditVerification", &[409]),
    ("getAuditCheckpoint", &[404]),
    ("getAuditProof", &[404, 409]),
    ("cancelJob", &[409]),
    ("pauseJob", &[409]),
    ("resumeJob", &[409]),
    ("retryJob", &[409]),
];

pub(super) fn document_refusals(document: &mut Value, options: Options) {
    each_operation(document, |path, method, operation| {
        let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
        let extra = EXTRA.iter().filter(|(of, _)| *of == id).flat_map(|(_, statuses)| statuses.iter().copied());
        let mut statuses: Vec<u16> = derived(path, method, operation, options);
        statuses.extend(extra);
        let Value::Object(responses) = operation.entry("responses").or_insert_with(|| json!({})) else { return };
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            if response.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                response.insert("description".to_owned(), json!("Success."));
            }
            add_request_id(response);
        }
        let keyed = statuses.contains(&422);
        for status in statuses {
            responses.entry(status.to_string()).or_insert_with(|| refusal(status, keyed));
        }
        if page::FOR_PEOPLE.contains(&id.as_str()) {
            also_as_page(responses);
        }
    });
}

/// Refusals that whoever asks for `text/html` reads as a page.
fn also_as_page(responses: &mut Map<String, Value>) {
    for content in responses.values_mut().filter_map(|response| response.get_mut("content")) {
        if content.get(PROBLEM_JSON).is_some() {
            super::set(content, "text/html", json!({ "schema": { "type": "string" } }));
        }
    }
}

/// The rules, one line each.
fn derived(path: &str, method: &str, operation: &Map<String, Value>, options: Options) -> Vec<u16> {
    let parameters = || operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let takes = |place: &str| parameters().any(|parameter| parameter.get("in") == Some(&json!(place)));
    let header = |name: &str| parameters().any(|parameter| parameter.get("name") == Some(&json!(name)));
    let secured = operation.get("security").and_then(Value::as_array).is_some_and(|schemes| !schemes.is_empty());
    let in_api = path.starts_with("/api/");
    let rules: [(bool, &[u16]); 10] = [
        // unknown parameters are refused everywhere, as are heads that are too long
        (true, &[400, 414, 431, 500]),
        (secured, &[401, 403]),
        (operation.contains_key(super::tiers::EXTENSION), &[403]),
        (takes("path"), &[404]),
        (operation.contains_key("requestBody"), &[408, 413, 415]),
        (header("Idempotency-Key"), &[409, 422]),
        (header("If-Match"), &[412]),
        (header("If-Match") && method == "delete", &[428]),
        (in_api && options.rate_limits, &[429]),
        (in_api, &[503]),
    ];
    rules.iter().filter(|(holds, _)| *holds).flat_map(|(_, statuses)| statuses.iter().copied()).collect()
}

/// `keyed`: the operation takes an `Idempotency-Key`.
fn refusal(status: u16, keyed: bool) -> Value {
    let (description, code) = describe(status);
    let mut response = Map::new();
    response.insert("description".to_owned(), json!(description));
    response.insert(
        "content".to_owned(),
        json!({ PROBLEM_JSON: {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "example": example(code),
        }}),
    );
    let header = match status {
        416 => Some(("Content-Range", json!({ "type": "string" }), "`bytes */` and the size of the file.")),
        401 => Some(("WWW-Authenticate", json!({ "type": "string" }), "The challenge (RFC 6750).")),
        429 | 503 => Some(("Retry-After", json!({ "type": "integer" }), "Seconds after which to try again.")),
        409 if keyed => {
            let when = "With `idempotency_in_progress`: seconds after which to try again.";
            Some(("Retry-After", json!({ "type": "integer" }), when))
        }
        _ => None,
    };
    if let Some((name, schema, description)) = header {
        response.insert("headers".to_owned(), json!({ name: { "description": description, "schema": schema } }));
    }
    add_request_id(&mut response);
    Value::Object(response)
}

fn describe(status: u16) -> (&'static str, Code) {
    match status {
        401 => ("No credentials, or none that are valid.", Code::TokenMissing),
        403 => ("The caller's role or the licence does not allow this.", Code::PermissionDenied),
        404 => ("There is none, or the caller may not see it.", Code::NotFound),
        408 => ("The body did not come in time.", Code::RequestTimeout),
        409 => ("Conflicts with the present state.", Code::Conflict),
        412 => ("It was changed since it was read.", Code::PreconditionFailed),
        413 => ("The body is too large.", Code::PayloadTooLarge),
        414 => ("The path is too long.", Code::UriTooLong),
        431 => ("The headers are too large.", Code::HeadersTooLarge),
        415 => ("The content type is not supported.", Code::UnsupportedMediaType),
        416 => ("No byte of the file is in the range.", Code::RangeNotSatisfiable),
        422 => ("The idempotency key was used with another body.", Code::IdempotencyKeyReused),
        428 => ("`If-Match` is required.", Code::PreconditionRequired),
        429 => ("Too many requests.", Code::RateLimited),
        500 => ("The server failed.", Code::Internal),
        503 => {
            ("The database is unavailable, or the server is overloaded or shutting down.", Code::DatabaseUnavailable)
        }
        _ => ("The request is not valid.", Code::ValidationFailed),
    }
}

fn example(code: Code) -> Value {
    let mut example = json!({
        "type": code.type_uri(),
        "title": code.title(),
        "status": code.status().as_u16(),
        "detail": "What happened, what it means and what to do.",
        "instance": "/api/…",
        "error": code.title(),
        "code": code.as_str(),
        "requestId": "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a11",
    });
    if code == Code::ValidationFailed {
        super::set(
            &mut example,
            "errors",
            json!([{"pointer": "/name", "code": "required", "message": "This field is required."}]),
        );
    }
    if code == Code::PermissionDenied {
        super::set(&mut example, "requiredPermission", json!("subscriptions:write"));
    }
    example
}

fn add_request_id(response: &mut Map<String, Value>) {
    if let Value::Object(headers) = response.entry("headers").or_insert_with(|| json!({})) {
        headers.entry("X-Request-Id").or_insert_with(|| {
            json!({ "description": "Names the request in the log and the audit trail.", "schema": { "type": "string" } })
        });
    }
}
