//! Answers as they are kept, and as they are given again.

use super::{Creation, REPLAYED};
use crate::{context, error::ApiError};
use keywright_entities::idempotency;
use poem::{
    Body, IntoResponse, Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    registry::{MetaHeader, MetaResponses, Registry},
    types::Type,
};
use serde_json::Value;
use std::marker::PhantomData;

/// A 2xx in JSON without what is shown once.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub status: StatusCode,
    /// `[[name, value], …]`.
    pub headers: Value,
    pub body: String,
}

impl Stored {
    /// Of an answer about to be sent, which keeps its body.
    pub async fn of_response(response: &mut Response) -> Result<Self, ApiError> {
        let text = response.take_body().into_string().await.map_err(ApiError::internal)?;
        let headers = response.headers().iter().filter(|(name, _)| *name != header::CONTENT_LENGTH);
        let headers = headers.filter_map(|(name, value)| Some(vec![name.as_str(), value.to_str().ok()?]));
        let headers = headers.map(Value::from).collect();
        let body = without_secrets(&text, response.status())?;
        response.set_body(Body::from_string(text));
        Ok(Self { status: response.status(), headers, body })
    }

    /// Of a record whose transaction was committed.
    pub fn of_record(record: idempotency::Model) -> Result<Self, ApiError> {
        let (Some(status), Some(headers), Some(body)) = (record.status, record.headers, record.body) else {
            return Err(ApiError::internal("an idempotency record was committed without its answer"));
        };
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.ok_or_else(|| ApiError::internal("an idempotency record has no status"))?;
        Ok(Self { status, headers, body })
    }

    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.status).body(self.body);
        for pair in self.headers.as_array().into_iter().flatten() {
            let text = |n: usize| pair.get(n).and_then(Value::as_str).unwrap_or_default();
            if let (Ok(name), Ok(value)) = (text(0).parse::<HeaderName>(), text(1).parse::<HeaderValue>()) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// The body with null for each member that the document says is a secret; the same text when it has none.
fn without_secrets(text: &str, status: StatusCode) -> Result<String, ApiError> {
    let context = context::current();
    let operation = context.as_ref().and_then(|context| context.operation());
    let secrets = operation.map(|operation| operation.secrets(status.as_u16())).unwrap_or_default();
    if secrets.is_empty() {
        return Ok(text.to_owned());
    }
    let mut body: Value = serde_json::from_str(text).map_err(ApiError::internal)?;
    for path in secrets {
        blank(&mut body, path);
    }
    Ok(body.to_string())
}

/// Sets what lies at `path` to null; an empty step stands for every item of a list.
fn blank(value: &mut Value, path: &[String]) {
    match (path, value) {
        ([], value) => *value = Value::Null,
        ([step, rest @ ..], Value::Array(items)) if step.is_empty() => {
            items.iter_mut().for_each(|item| blank(item, rest));
        }
        ([step, rest @ ..], Value::Object(members)) => {
            if let Some(member) = members.get_mut(step) {
                blank(member, rest);
            }
        }
        _ => {}
    }
}

/// An answer from before.
pub struct Replay(Stored);

impl Replay {
    pub(super) fn new(stored: Stored) -> Self {
        Self(stored)
    }

    /// A member of its body.
    pub fn member(&self, name: &str) -> Option<Value> {
        serde_json::from_str::<Value>(&self.0.body).ok()?.get(name).cloned()
    }

    pub fn has_header(&self, name: &str) -> bool {
        let pairs = self.0.headers.as_array();
        pairs.into_iter().flatten().any(|pair| {
            let stored = pair.get(0).and_then(Value::as_str);
            stored.is_some_and(|stored| stored.eq_ignore_ascii_case(name))
        })
    }

    /// As it was first made.
    pub fn stored<A: Creation>(self) -> Made<A> {
        Made { response: self.0.into_response(), replayed: true, of: PhantomData }
    }
}

/// An answer whose cause is durable.
pub struct Made<A> {
    response: Response,
    replayed: bool,
    of: PhantomData<fn() -> A>,
}

impl<A: Creation> Made<A> {
    pub(super) fn fresh(response: Response) -> Self {
        Self { response, replayed: false, of: PhantomData }
    }

    /// The same with how things stand by now: what was made has gone on.
    pub fn gone_on(self, now: A) -> Self {
        Self { response: now.into_shape().into_response(), ..self }
    }
}

impl<A> IntoResponse for Made<A> {
    fn into_response(mut self) -> Response {
        if self.replayed {
            self.response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        self.response
    }
}

impl<A: Creation> ApiResponse for Made<A> {
    fn meta() -> MetaResponses {
        let mut meta = A::Shape::meta();
        for response in &mut meta.responses {
            response.headers.push(MetaHeader {
                name: REPLAYED.to_owned(),
                description: Some(
                    "`true` when this is the answer to an earlier request with the same `Idempotency-Key`.".to_owned(),
                ),
                required: false,
                deprecated: false,
                schema: bool::schema_ref(),
            });
        }
        meta
    }

    fn register(registry: &mut Registry) {
        A::Shape::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_blanked_wherever_they_are() {
        let path = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let mut body = json!({"id": 1, "token": "t", "keys": [{"secret": "a", "n": 1}, {"n": 2}]});
        for steps in [&["token"][..], &["keys", "", "secret"], &["absent", "x"], &["id", "x"]] {
            blank(&mut body, &path(steps));
        }
        assert_eq!(body, json!({"id": 1, "token": null, "keys": [{"secret": null, "n": 1}, {"n": 2}]}));
    }

    #[tokio::test]
    async fn an_answer_comes_back_as_it_was() {
        let mut response = Response::builder()
            .status(StatusCode::CREATED)
            .header("location", "/api/things/1")
            .header("etag", "\"1\"")
            .content_type("application/json; charset=utf-8")
            .body(r#"{"b": 1,"a": 2}"#);
        let stored = Stored::of_response(&mut response).await.unwrap();
        let again = stored.into_response();
        assert_eq!((again.status(), again.headers()), (response.status(), response.headers()));
        assert_eq!(again.into_body().into_string().await.unwrap(), response.into_body().into_string().await.unwrap());
    }
}
