//! Tests only: holds every answer against the served document. An answer whose status, media type or body the document
//! does not describe is replaced by a 500 that says so, and with it the test fails.

use poem::http::header::CONTENT_TYPE;
use poem::{Body, Endpoint, IntoResponse, Request, Response, Result};
use poem_openapi::registry::Registry;
use poem_openapi::types::Type;
use serde_json::{Value, json};

use crate::context;
use crate::error::{ApiError, Code, PROBLEM_JSON, Problem};
use crate::strict::{Members, Operation, compile, problems};

/// The layer just inside of [`crate::edge::Edge`].
pub struct Conformance<E> {
    inner: E,
}

impl<E> Conformance<E> {
    pub fn new(inner: E) -> Self {
        Self { inner }
    }
}

impl<E: Endpoint> Endpoint for Conformance<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let at = format!("{} {}", request.method(), request.uri().path());
        let is_head = request.method() == poem::http::Method::HEAD;
        let response = match self.inner.call(request).await {
            Ok(output) => output.into_response(),
            Err(error) => error.into_response(),
        };
        if is_head {
            return Ok(response);
        }
        Ok(match check(response).await {
            Ok(response) => response,
            Err(violation) => {
                let detail = format!("undocumented answer to {at}: {violation}");
                tracing::error!("{detail}");
                ApiError::new(Code::Internal, detail).into_response()
            }
        })
    }
}

async fn check(mut response: Response) -> std::result::Result<Response, String> {
    let status = response.status().as_u16();
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).map(|value| value.trim().to_owned());
    let is_json =
        media_type.as_deref().is_some_and(|media_type| media_type.ends_with("json") && !media_type.contains("ndjson"));
    let body = if is_json { Some(take_json(&mut response).await?) } else { None };
    let context = context::current();
    if let Some(operation) = context.as_ref().and_then(|context| context.operation()) {
        check_operation(operation, status, media_type.as_deref(), body.as_ref())?;
    } else if status >= 400 {
        if media_type.as_deref() != Some(PROBLEM_JSON) {
            return Err(format!("{status} is not a problem object"));
        }
        check_problem(body.as_ref().unwrap_or(&Value::Null))?;
    }
    Ok(response)
}

async fn take_json(response: &mut Response) -> std::result::Result<Value, String> {
    let bytes = response.take_body().into_bytes().await.map_err(|error| error.to_string())?;
    let value = serde_json::from_slice(&bytes).map_err(|error| format!("the body is not JSON: {error}"))?;
    response.set_body(Body::from_bytes(bytes));
    Ok(value)
}

fn check_operation(
    operation: &Operation,
    status: u16,
    media_type: Option<&str>,
    body: Option<&Value>,
) -> std::result::Result<(), String> {
    let media = operation.answers.get(&status).ok_or_else(|| format!("status {status} is not documented"))?;
    let Some(media_type) = media_type else {
        return if media.is_empty() { Ok(()) } else { Err(format!("{status} has no content type")) };
    };
    let validator = media.get(media_type).ok_or_else(|| format!("{status} with {media_type} is not documented"))?;
    match (validator, body) {
        (Some(validator), Some(body)) => {
            let problems = problems(validator, body, "");
            if problems.is_empty() { Ok(()) } else { Err(format!("{status}: {problems:?}")) }
        }
        _ => Ok(()),
    }
}

fn check_problem(body: &Value) -> std::result::Result<(), String> {
    let mut registry = Registry::new();
    Problem::register(&mut registry);
    let document = json!({ "components": { "schemas": registry.schemas } });
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let validator = compile(&document, &schema, Members::Closed).map_err(|error| error.to_string())?;
    let problems = problems(&validator, body, "");
    if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
}
