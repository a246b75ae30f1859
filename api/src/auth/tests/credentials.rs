use crate::auth::testing::{ADMIN_PASSWORD, Answer, Rig};
use keywright_entities::types::Role;
use poem::{
    Request, RequestBuilder,
    http::{HeaderValue, Method, StatusCode},
};
use sea_orm::Set;

fn refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.text("code")), (StatusCode::UNAUTHORIZED, code), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let challenge = answer.headers["www-authenticate"].to_str().unwrap();
    assert_eq!(challenge.contains("invalid_token"), code != "token_missing", "{challenge}");
}

#[tokio::test]
async fn missing_garbage_expired_and_revoked_are_told_apart() {
    let rig = Rig::new().await;
    refused(&rig.send(Request::builder().uri_str("/api/auth/me").finish()).await, "token_missing");
    for garbage in ["Bearer x", "Bearer kw_x", "Bearer", "Bearer ", "Basic YWRtaW46eA==", "", "kw_x", "Bearer a b"] {
        let request = Request::builder().uri_str("/api/auth/me").header("authorization", garbage);
        refused(&rig.send(request.finish()).await, "token_invalid");
    }
    let mut request = Request::builder().uri_str("/api/auth/me").finish();
    request.headers_mut().insert("authorization", HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap());
    refused(&rig.send(request).await, "token_invalid");
    refused(&rig.get("/api/auth/me", &"a".repeat(1 << 20)).await, "token_invalid");
    refused(&rig.get("/api/auth/me", &format!("kw_{}", "a".repeat(1 << 20))).await, "token_invalid");
    let access = rig.access("admin").await;
    let twice = Request::builder().uri_str("/api/auth/me").header("authorization", format!("Bearer {access}"));
    refused(&rig.send(twice.header("authorization", "Bearer x").finish()).await, "token_invalid");
    rig.pass(16 * 60);
    refused(&rig.get("/api/auth/me", &access).await, "token_expired");
}

/// The database's pool is shared with everybody else: who cannot be hashed soon does not queue for it either.
#[tokio::test]
async fn whoever_finds_all_places_taken_is_sent_away_before_the_database_is_asked() {
    let rig = Rig::new().await;
    let taken: Vec<_> = std::iter::from_fn(|| rig.passwords().enter().ok()).collect();
    rig.db.clone().close().await.unwrap();
    let answer = rig.login("admin", ADMIN_PASSWORD).await;
    assert_eq!(
        (answer.status, answer.text("code")),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        "{}",
        answer.body
    );
    assert_eq!(answer.headers["retry-after"], "1");
    drop(taken);
    assert_eq!(rig.login("admin", ADMIN_PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token() {
    let rig = Rig::new().await;
    let login = rig.login("admin", ADMIN_PASSWORD).await;
    refused(&rig.get("/api/auth/me", login.text("refresh_token")).await, "token_invalid");
}

#[tokio::test]
async fn disabling_and_demoting_take_effect_with_the_next_request() {
    let rig = Rig::new().await;
    let id = rig.add_user("ada", Role::Operator).await;
    let access = rig.access("ada").await;
    assert_eq!(rig.call(Method::POST, "/api/probe", &access, None).await.status, StatusCode::NO_CONTENT);
    rig.change_user(id, |user| user.role = Set(Role::Viewer)).await;
    let answer = rig.call(Method::POST, "/api/probe", &access, None).await;
    assert_eq!((answer.status, answer.text("code")), (StatusCode::FORBIDDEN, "permission_denied"));
    assert_eq!(answer.text("requiredPermission"), "jobs:start");
    rig.change_user(id, |user| user.disabled = Set(true)).await;
    refused(&rig.get("/api/auth/me", &access).await, "token_revoked");
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says() {
    let rig = Rig::new().await;
    for (role, starts, audits) in [
        (Role::Viewer, false, false),
        (Role::Auditor, false, true),
        (Role::Operator, true, false),
        (Role::Admin, true, true),
    ] {
        rig.add_user(&format!("a-{role}"), role).await;
        let access = rig.access(&format!("a-{role}")).await;
        let start = rig.call(Method::POST, "/api/probe", &access, None).await;
        let audit = rig.get("/api/probe", &access).await;
        assert_eq!((start.status.is_success(), audit.status.is_success()), (starts, audits), "{role}");
    }
}

#[tokio::test]
async fn a_change_by_cookie_needs_evidence_of_our_own_origin() {
    let rig = Rig::new().await;
    let access = rig.access("admin").await;
    let by_cookie = |method: Method| -> RequestBuilder {
        let request = Request::builder().method(method).uri_str("/api/probe");
        request.header("cookie", format!("__Host-keywright={access}")).header("host", "kw.example")
    };
    for (name, value) in [("x-nothing", "1"), ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let answer = rig.send(by_cookie(Method::POST).header(name, value).finish()).await;
        assert_eq!((answer.status, answer.text("code")), (StatusCode::FORBIDDEN, "csrf_failed"), "{name}");
    }
    let csrf = rig.get("/api/auth/me", &access).await.text("csrfToken").to_owned();
    for (name, value) in [("sec-fetch-site", "same-origin"), ("origin", "https://kw.example")] {
        let answer = rig.send(by_cookie(Method::POST).header(name, value).finish()).await;
        assert_eq!((answer.status, answer.text("code")), (StatusCode::FORBIDDEN, "csrf_failed"), "{name}, no token");
        let request = by_cookie(Method::POST).header(name, value).header("x-csrf-token", &csrf);
        assert_eq!(rig.send(request.finish()).await.status, StatusCode::NO_CONTENT, "{name}");
    }
    assert_eq!(rig.send(by_cookie(Method::GET).finish()).await.status, StatusCode::NO_CONTENT);
    // a bearer token wins: it is checked, and the cookie is not looked at
    let bearer = |token: &str| by_cookie(Method::POST).header("authorization", format!("Bearer {token}")).finish();
    assert_eq!(rig.send(bearer(&access)).await.status, StatusCode::NO_CONTENT);
    refused(&rig.send(bearer("garbage")).await, "token_invalid");
}

#[tokio::test]
async fn a_refresh_by_cookie_and_a_login_from_another_site_need_it_too() {
    let rig = Rig::new().await;
    let login = rig.login("admin", ADMIN_PASSWORD).await;
    let cookie = format!("__Host-keywright-refresh={}", login.text("refresh_token"));
    let refresh = |site: &str| {
        let request = Request::builder().method(Method::POST).uri_str("/api/auth/refresh");
        let request = request.header("cookie", &cookie).header("sec-fetch-site", site);
        let request = request.header("x-csrf-token", login.text("csrf_token"));
        request.content_type("application/json").body("{}")
    };
    assert_eq!(rig.send(refresh("cross-site")).await.text("code"), "csrf_failed");
    assert_eq!(rig.send(refresh("same-origin")).await.status, StatusCode::OK);
    let login =
        Request::builder().method(Method::POST).uri_str("/api/auth/login").header("sec-fetch-site", "cross-site");
    let form = format!("username=admin&password={ADMIN_PASSWORD}");
    let answer = rig.send(login.content_type("application/x-www-form-urlencoded").body(form)).await;
    assert_eq!(answer.text("code"), "csrf_failed");
}

#[tokio::test]
async fn the_public_keys_are_open_and_only_public() {
    let rig = Rig::new().await;
    let answer = rig.send(Request::builder().uri_str("/api/auth/jwks.json").finish()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let [key] = answer.body["keys"].as_array().unwrap().as_slice() else { panic!("{}", answer.body) };
    let mut members: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
}
