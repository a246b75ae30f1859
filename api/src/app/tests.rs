use std::sync::atomic::{AtomicU32, Ordering};

use poem::http::{HeaderMap, Method, StatusCode};
use poem::{Body, Endpoint};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::error::Code;
use crate::strict::MAX_BODY;

mod sample;

use sample::TestApi;

fn options() -> Options {
    let count = AtomicU32::new(0);
    Options {
        cursor_key: CursorKey::new(b"test"),
        fingerprint_key: crate::idempotency::FingerprintKey::new(b"test"),
        request_ids: Arc::new(move || format!("made-{}", count.fetch_add(1, Ordering::Relaxed))),
        gates: Vec::new(),
        draining: Draining::default(),
        document: openapi::Options::default(),
        check_answers: true,
    }
}

fn app() -> BoxEndpoint<'static, Response> {
    build(TestApi, options()).unwrap()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| format!("{} {}", error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap()))
            .collect()
    }
}

async fn send(app: &BoxEndpoint<'static, Response>, request: Request) -> Answer {
    let mut response = app.get_response(request).await;
    let body = response.take_body().into_string().await.unwrap();
    Answer { status: response.status(), headers: response.headers().clone(), body }
}

async fn get(uri: &str) -> Answer {
    send(&app(), Request::builder().uri_str(uri).finish()).await
}

async fn with_body(method: Method, uri: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    send(
        &app(),
        Request::builder()
            .method(method)
            .uri_str(uri)
            .header("content-length", "1")
            .content_type(content_type)
            .body(body),
    )
    .await
}

async fn post(body: &Value) -> Answer {
    with_body(Method::POST, "/api/things", "application/json", body.to_string()).await
}

/// The one shape of every refusal.
fn assert_problem(answer: &Answer, code: Code) {
    assert_eq!(answer.status, code.status(), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], code.as_str(), "{problem}");
    assert_eq!(problem["status"], answer.status.as_u16());
    assert_eq!(problem["error"], problem["title"]);
    assert_eq!(problem["type"], code.type_uri());
    assert_eq!(problem["requestId"], answer.headers["x-request-id"].to_str().unwrap());
    assert!(problem["instance"].as_str().unwrap().starts_with('/'));
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    assert!(!answer.body.contains("hunter2"), "{problem}");
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_one_shape() {
    for uri in ["/", "/api", "/api/nothing", "/api/things/", "/docs/../api", "/api/things/not-a-uuid"] {
        assert_problem(&get(uri).await, Code::NotFound);
    }
    for (method, uri, allow) in [
        (Method::DELETE, "/api/things", "GET, HEAD, POST"),
        (Method::OPTIONS, "/api/things", "GET, HEAD, POST"),
        (Method::POST, "/docs", "GET, HEAD"),
        (Method::TRACE, "/openapi.json", "GET, HEAD"),
    ] {
        let answer = send(&app(), Request::builder().method(method).uri_str(uri).finish()).await;
        assert_problem(&answer, Code::MethodNotAllowed);
        assert_eq!(answer.headers["allow"], allow);
    }
}

#[tokio::test]
async fn query_parameters_are_known_single_and_valid() {
    let answer = get("/api/things?colour=red,green&colour=blue&limit=3&tag=a,b").await;
    assert_eq!(answer.json(), json!(["Red", "Green", "Blue", "a,b", "3"]));
    for after in ["2026-05-20T10:30:00+00:00", "2026-05-20T12:30:00%2B02:00", "2026-05-20T10:30:00Z"] {
        let answer = get(&format!("/api/things?after={after}")).await;
        assert_eq!(answer.json(), json!(["2026-05-20T10:30:00+00:00"]));
    }
    assert_eq!(get("/api/things?after=yesterday").await.pointers(), ["/query/after format"]);
    let answer = get("/api/things?lim=1&colr=hunter2&lim=2").await;
    assert_problem(&answer, Code::UnknownParameter);
    assert_eq!(answer.pointers(), ["/query/lim unknown_parameter", "/query/colr unknown_parameter"]);
    let answer = get("/api/things?limit=300&colour=hunter2&nope=1").await;
    assert_problem(&answer, Code::ValidationFailed);
    assert_eq!(answer.pointers(), ["/query/nope unknown_parameter", "/query/colour/0 enum", "/query/limit maximum"]);
    let answer = get("/api/things?limit=1&limit=2").await;
    assert_problem(&answer, Code::ValidationFailed);
    assert_eq!(answer.pointers(), ["/query/limit repeated"]);
    for wrong in
        ["limit=", "limit=x", "limit=1.5", "limit=-1", "limit=%2B1", "limit=99999999999999999999", "limit=null"]
    {
        assert_problem(&get(&format!("/api/things?{wrong}")).await, Code::ValidationFailed);
    }
    assert_problem(&get("/api/request-id?x=1").await, Code::UnknownParameter);
    let request = Request::builder().uri_str("/api/things").header("x-count", "hunter2").finish();
    let answer = send(&app(), request).await;
    assert_problem(&answer, Code::ValidationFailed);
    assert_eq!(answer.pointers(), ["/header/X-Count type"]);
    let answer = get("/api/things?limit=256").await;
    assert!(answer.body.contains("Must be at most 255."), "{}", answer.body);
}

#[tokio::test]
async fn bodies_are_checked_whole() {
    let answer = post(&json!({"name": "a", "size": 9, "colour": "red", "dueAt": "2026-05-20T12:30:00+02:00"})).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    assert_eq!(answer.headers["location"], "/api/things/1");
    assert_eq!(answer.json()["dueAt"], "2026-05-20T10:30:00+00:00");
    let answer = post(&json!({"name": "a"})).await;
    assert_eq!(answer.json(), json!({"name": "a", "size": null, "colour": null, "dueAt": null}));
    let answer = post(&json!({"size": 10, "colour": "hunter2", "dueAt": "hunter2", "extra": 1})).await;
    assert_problem(&answer, Code::ValidationFailed);
    let mut pointers = answer.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/colour enum", "/dueAt format", "/extra unknown_field", "/name required", "/size maximum"]);
    let answer = post(&json!({"name": "a", "nmae": 1, "x/y~z": 2})).await;
    assert_problem(&answer, Code::UnknownField);
    assert_eq!(answer.pointers(), ["/nmae unknown_field", "/x~1y~0z unknown_field"]);
    for wrong in [json!([]), json!("hunter2"), json!(null), json!({"name": null}), json!({"name": 1})] {
        assert_problem(&post(&wrong).await, Code::ValidationFailed);
    }
}

#[tokio::test]
async fn broken_bodies_have_the_one_shape() {
    let json = "application/json";
    for body in [r#"{"name": "hunter2""#, "hunter2", r#"{"name":"a","name":"b"}"#, ""] {
        assert_problem(&with_body(Method::POST, "/api/things", json, body).await, Code::MalformedJson);
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "hunter2"] {
        let answer = with_body(Method::POST, "/api/things", media_type, r#"{"name":"a"}"#).await;
        assert_problem(&answer, Code::UnsupportedMediaType);
    }
    let answer = with_body(Method::POST, "/api/things", "Application/JSON; charset=UTF-8", r#"{"name":"a"}"#).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let nothing = Request::builder().method(Method::POST).uri_str("/api/things").finish();
    assert_problem(&send(&app(), nothing).await, Code::MalformedJson);
    let untyped = Request::builder().method(Method::POST).uri_str("/api/things").body(r#"{"name":"a"}"#);
    assert_problem(&send(&app(), untyped).await, Code::UnsupportedMediaType);
}

#[tokio::test]
async fn bodies_end_at_one_mebibyte_announced_or_not() {
    let body = |length: usize| format!(r#"{{"name":"{}"}}"#, "a".repeat(length - 11));
    let answer = with_body(Method::POST, "/api/things", "application/json", body(MAX_BODY)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{:.200}", answer.body);
    let answer = with_body(Method::POST, "/api/things", "application/json", body(MAX_BODY + 1)).await;
    assert_problem(&answer, Code::PayloadTooLarge);
    let request = Request::builder().method(Method::POST).uri_str("/api/things").content_type("application/json");
    let request = request.header("content-length", (MAX_BODY + 1).to_string()).body("{}");
    assert_problem(&send(&app(), request).await, Code::PayloadTooLarge);
}

#[tokio::test]
async fn merge_patches_tell_null_from_absent() {
    let uri = format!("/api/things/{}", Uuid::nil());
    let patch = |body: &str| with_body(Method::PATCH, &uri, "application/json", body.to_owned());
    assert_eq!(patch("{}").await.json(), "None Keep");
    assert_eq!(patch(r#"{"colour": null}"#).await.json(), "None Clear");
    assert_eq!(patch(r#"{"colour": "red", "name": "x"}"#).await.json(), "Some(\"x\") Set(Red)");
    let answer = patch(r#"{"name": null, "colour": "hunter2"}"#).await;
    assert_problem(&answer, Code::ValidationFailed);
    let mut pointers = answer.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/colour enum", "/name type"]);
}

#[tokio::test]
async fn forms_are_taken_where_declared_and_secrets_are_not_repeated() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let login = |media_type: &'static str, body: &'static str| with_body(Method::POST, "/api/login", media_type, body);
    assert_eq!(login(FORM, "username=a&password=12345678").await.status, StatusCode::NO_CONTENT);
    let ok = login("application/json", r#"{"username":"a","password":"12345678"}"#).await;
    assert_eq!(ok.status, StatusCode::NO_CONTENT, "{}", ok.body);
    for (media_type, body) in [
        (FORM, "username=a&password=hunter2"),
        (FORM, "username=a&password=hunter2&x=1"),
        (FORM, "username=a&password=12345678&password=hunter2"),
        ("application/json", r#"{"username":"a","password":"hunter2"}"#),
        ("application/json", r#"{"username":"a","password":["hunter2"]}"#),
    ] {
        assert_problem(&login(media_type, body).await, Code::ValidationFailed);
    }
}

#[tokio::test]
async fn a_panic_ends_one_request_only() {
    let app = app();
    let panic = || Request::builder().uri_str("/api/panic").finish();
    assert_problem(&send(&app, panic()).await, Code::Internal);
    assert_problem(&send(&app, panic()).await, Code::Internal);
    assert_eq!(send(&app, Request::builder().uri_str("/api/request-id").finish()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn request_ids_are_taken_when_sane_and_always_given() {
    for (sent, expected) in [("abc-1.2_Z", "abc-1.2_Z"), ("a b", "made-0"), ("", "made-0"), ("<script>", "made-0")] {
        let request = Request::builder().uri_str("/api/request-id").header("x-request-id", sent).finish();
        let answer = send(&app(), request).await;
        assert_eq!(answer.headers["x-request-id"], expected);
        assert_eq!(answer.json(), expected);
    }
    let long = Request::builder().uri_str("/api/request-id").header("x-request-id", "a".repeat(129)).finish();
    assert_eq!(send(&app(), long).await.json(), "made-0");
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    for (uri, status) in [("/api/request-id", 200), ("/docs", 200), ("/api/nothing", 404)] {
        let answer = send(&app(), Request::builder().method(Method::HEAD).uri_str(uri).finish()).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, ""), "{uri}");
    }
}

#[tokio::test]
async fn every_answer_has_the_security_headers_and_pages_their_own_policy() {
    for uri in ["/api/request-id", "/api/nothing", "/docs", "/redoc", "/docs/errors", "/openapi.json"] {
        let answer = get(uri).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{uri}");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
        assert!(answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        assert!(!answer.headers["content-security-policy"].to_str().unwrap().contains("http"));
    }
    assert_eq!(get("/api/request-id").await.headers["cache-control"], "no-store");
    assert!(get("/docs").await.headers["content-security-policy"].to_str().unwrap().contains("'sha256-"));
    assert_eq!(get("/openapi.json").await.json()["info"]["title"], "Keywright");
}

#[tokio::test]
async fn undocumented_answers_fail_in_tests_and_pass_in_service() {
    let answer = get("/api/undocumented").await;
    assert_problem(&answer, Code::Internal);
    assert!(answer.json()["detail"].as_str().unwrap().contains("status 409 is not documented"));
    let app = build(TestApi, Options { check_answers: false, ..options() }).unwrap();
    assert_problem(&send(&app, Request::builder().uri_str("/api/undocumented").finish()).await, Code::Conflict);
}

struct Closed;

#[async_trait]
impl Gate for Closed {
    async fn admit(&self, request: &mut Request, operation: &Operation) -> Result<(), ApiError> {
        assert!(request.uri().path() == "/api/things" && operation.pattern == "/api/things");
        Err(ApiError::unauthorized(Code::TokenMissing, "Log in."))
    }
}

#[tokio::test]
async fn gates_decide_before_the_input_is_looked_at() {
    let gated = Options { gates: vec![Arc::new(Closed)], check_answers: false, ..options() };
    let request = Request::builder().uri_str("/api/things?nope=1").finish();
    let answer = send(&build(TestApi, gated).unwrap(), request).await;
    assert_problem(&answer, Code::TokenMissing);
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"keywright\"");
}

#[tokio::test]
async fn nothing_new_is_begun_while_draining() {
    let options = options();
    let draining = options.draining.clone();
    let app = build(TestApi, options).unwrap();
    draining.0.cancel();
    let answer = send(&app, Request::builder().uri_str("/api/request-id").finish()).await;
    assert_problem(&answer, Code::Draining);
    assert_eq!(answer.headers["retry-after"], "1");
}
