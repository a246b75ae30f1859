use crate::auth::testing::{ADMIN_PASSWORD, Rig};
use keywright_entities::types::{Outcome, Role};
use poem::{
    Request,
    http::{Method, StatusCode},
};
use sea_orm::Set;
use serde_json::json;

#[tokio::test]
async fn login_gives_tokens_and_cookies_that_lead_to_the_same_caller() {
    let rig = Rig::new().await;
    let answer = rig.login("Admin", ADMIN_PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 900);
    assert_eq!(answer.body["password_change_required"], false);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let cookies = answer.cookies();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    for cookie in &cookies {
        assert!(cookie.starts_with("__Host-keywright"), "{cookie}");
        assert!(cookie.contains("; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age="), "{cookie}");
    }
    let me = rig.get("/api/auth/me", answer.text("access_token")).await;
    assert_eq!((me.status, me.text("name"), me.text("role")), (StatusCode::OK, "admin", "admin"));
    let pair = cookies.iter().find(|cookie| cookie.starts_with("__Host-keywright=")).unwrap();
    let cookie = pair.split(';').next().unwrap();
    let by_cookie = rig.send(Request::builder().uri_str("/api/auth/me").header("cookie", cookie).finish()).await;
    assert_eq!(by_cookie.body, me.body);
    assert_eq!(rig.events().await, ["user.created", "auth.login"]);
}

#[tokio::test]
async fn login_takes_a_form_as_oauth_clients_send_it() {
    let rig = Rig::new().await;
    let form = format!("grant_type=password&username=admin&password={ADMIN_PASSWORD}");
    let request = Request::builder().method(Method::POST).uri_str("/api/auth/login");
    let answer = rig.send(request.content_type("application/x-www-form-urlencoded").body(form)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    // no grant of another kind, and a form without fields is one
    for (path, form, expected) in [
        ("/api/auth/login", "grant_type=refresh_token&username=admin&password=x", (400, "validation_failed")),
        ("/api/auth/refresh", "grant_type=password", (400, "validation_failed")),
        ("/api/auth/login", "", (400, "validation_failed")),
        ("/api/auth/refresh", "", (401, "token_missing")),
    ] {
        let request = Request::builder().method(Method::POST).uri_str(path);
        let answer = rig.send(request.content_type("application/x-www-form-urlencoded").body(form)).await;
        assert_eq!((answer.status.as_u16(), answer.text("code")), expected, "{path} {form}");
    }
}

#[tokio::test]
async fn unknown_wrong_and_disabled_look_the_same_and_are_audited() {
    let rig = Rig::new().await;
    let id = rig.add_user("gone", Role::Viewer).await;
    rig.change_user(id, |user| user.disabled = Set(true)).await;
    let mut bodies = Vec::new();
    for (name, password) in [("nobody", ADMIN_PASSWORD), ("admin", "wrong"), ("gone", ADMIN_PASSWORD)] {
        let mut answer = rig.login(name, password).await;
        assert_eq!((answer.status, answer.text("code")), (StatusCode::UNAUTHORIZED, "login_failed"));
        assert!(answer.headers.contains_key("www-authenticate"));
        assert!(answer.cookies().is_empty());
        answer.body["requestId"].take();
        bodies.push(answer.body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    let audit = rig.audit().await;
    let failed: Vec<_> = audit.iter().filter(|event| event.event_type == "auth.login_failed").collect();
    assert_eq!(failed.len(), 3);
    assert!(failed.iter().all(|event| event.outcome == Outcome::Denied && event.details["count"] == 1));
    assert!(!format!("{failed:?}").contains("nobody"), "what is no user's name may be a password");
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_session() {
    let rig = Rig::new().await;
    let first = rig.login("admin", ADMIN_PASSWORD).await;
    let second = rig.post("/api/auth/refresh", json!({"refresh_token": first.text("refresh_token")})).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.body);
    assert_eq!(rig.get("/api/auth/me", second.text("access_token")).await.status, StatusCode::OK);
    let reused = rig.post("/api/auth/refresh", json!({"refresh_token": first.text("refresh_token")})).await;
    assert_eq!((reused.status, reused.text("code")), (StatusCode::UNAUTHORIZED, "token_revoked"));
    // the whole family is dead: both access tokens and the refresh token that was never used
    for access in [first.text("access_token"), second.text("access_token")] {
        assert_eq!(rig.get("/api/auth/me", access).await.text("code"), "token_revoked");
    }
    let unused = rig.post("/api/auth/refresh", json!({"refresh_token": second.text("refresh_token")})).await;
    assert_eq!(unused.text("code"), "token_revoked");
    assert!(rig.events().await.contains(&"auth.refresh_reused".to_owned()));
    let unknown = rig.post("/api/auth/refresh", json!({"refresh_token": "kwr_nothing"})).await;
    assert_eq!(unknown.text("code"), "token_invalid");
    assert_eq!(rig.post("/api/auth/refresh", json!({})).await.text("code"), "token_missing");
}

#[tokio::test]
async fn of_two_refreshes_at_once_one_wins_and_the_session_ends() {
    let rig = Rig::new().await;
    let login = rig.login("admin", ADMIN_PASSWORD).await;
    let body = json!({"refresh_token": login.text("refresh_token")});
    let (one, two) = tokio::join!(rig.post("/api/auth/refresh", body.clone()), rig.post("/api/auth/refresh", body));
    let mut statuses = [one.status, two.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::UNAUTHORIZED]);
    assert_eq!(rig.get("/api/auth/me", login.text("access_token")).await.text("code"), "token_revoked");
}

#[tokio::test]
async fn logout_revokes_at_once_and_takes_the_cookies() {
    let rig = Rig::new().await;
    let login = rig.login("admin", ADMIN_PASSWORD).await;
    let answer = rig.call(Method::POST, "/api/auth/logout", login.text("access_token"), None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.cookies().iter().all(|cookie| cookie.contains("Max-Age=0")), "{:?}", answer.cookies());
    assert_eq!(rig.get("/api/auth/me", login.text("access_token")).await.text("code"), "token_revoked");
    let refresh = rig.post("/api/auth/refresh", json!({"refresh_token": login.text("refresh_token")})).await;
    assert_eq!(refresh.text("code"), "token_revoked");
    assert_eq!(rig.events().await.last().unwrap(), "auth.logout");
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_clears_the_generated_mark() {
    let rig = Rig::new().await;
    let id = rig.add_user("ada", Role::Viewer).await;
    rig.change_user(id, |user| user.password_generated = Set(true)).await;
    let login = rig.login("ada", ADMIN_PASSWORD).await;
    assert_eq!(login.body["password_change_required"], true);
    let (own, other) = (login.text("access_token"), rig.access("ada").await);
    let change = |current: &str, new: &str| {
        rig.call(Method::POST, "/api/auth/password", own, Some(json!({"currentPassword": current, "newPassword": new})))
    };
    for (current, new, pointer) in [
        ("wrong", "a-new-long-password", "/currentPassword"),
        (ADMIN_PASSWORD, "short", "/newPassword"),
        (ADMIN_PASSWORD, ADMIN_PASSWORD, "/newPassword"),
    ] {
        let answer = change(current, new).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{}", answer.body);
    }
    assert_eq!(change(ADMIN_PASSWORD, "a-new-long-password").await.status, StatusCode::NO_CONTENT);
    assert_eq!(rig.get("/api/auth/me", own).await.body["passwordChangeRequired"], false);
    assert_eq!(rig.get("/api/auth/me", &other).await.text("code"), "token_revoked");
    assert_eq!(rig.login("ada", ADMIN_PASSWORD).await.text("code"), "login_failed");
    assert_eq!(rig.login("ada", "a-new-long-password").await.body["password_change_required"], false);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_but_only_ones_own() {
    let rig = Rig::new().await;
    rig.add_user("ada", Role::Viewer).await;
    let (own, other, foreign) = (rig.access("ada").await, rig.access("ada").await, rig.access("admin").await);
    let list = rig.get("/api/auth/sessions?includeTotal=true&limit=1", &own).await;
    assert_eq!((list.body["meta"]["total"].clone(), list.body["meta"]["hasMore"].clone()), (json!(2), json!(true)));
    let id_of = |answer: crate::auth::testing::Answer| answer.text("credentialId").to_owned();
    let other_id = id_of(rig.get("/api/auth/me", &other).await);
    let foreign_id = id_of(rig.get("/api/auth/me", &foreign).await);
    for method in [Method::GET, Method::DELETE] {
        let answer = rig.call(method, &format!("/api/auth/sessions/{foreign_id}"), &own, None).await;
        assert_eq!((answer.status, answer.text("code")), (StatusCode::NOT_FOUND, "not_found"));
    }
    let path = format!("/api/auth/sessions/{other_id}");
    assert_eq!(rig.get(&path, &own).await.body["current"], false);
    assert_eq!(rig.call(Method::DELETE, &path, &own, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rig.call(Method::DELETE, &path, &own, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/api/auth/me", &other).await.text("code"), "token_revoked");
    let third = rig.access("ada").await;
    assert_eq!(rig.call(Method::DELETE, "/api/auth/sessions", &own, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rig.get("/api/auth/me", &third).await.text("code"), "token_revoked");
    assert_eq!(rig.get("/api/auth/me", &own).await.status, StatusCode::OK);
    assert_eq!(rig.get("/api/auth/me", &foreign).await.status, StatusCode::OK);
}
