use crate::auth::{
    operator,
    testing::{Answer, Rig},
};
use keywright_entities::{api_token, clock, types::Role};
use poem::http::{Method, StatusCode};
use sea_orm::{ActiveModelTrait, EntityTrait, Set};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

async fn create(rig: &Rig, caller: &str, body: Value) -> Answer {
    rig.call(Method::POST, "/api/tokens", caller, Some(body)).await
}

#[tokio::test]
async fn a_token_is_shown_once_kept_as_a_hash_and_revoked_at_once() {
    let rig = Rig::new().await;
    let admin = rig.access("admin").await;
    let made = create(&rig, &admin, json!({"name": "nightly", "role": "operator"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let (path, token) = (made.headers["location"].to_str().unwrap(), made.text("token").to_owned());
    assert!(token.starts_with("kw_") && token.starts_with(made.text("hint")));
    assert_eq!(rig.get(path, &admin).await.body["token"], Value::Null);
    assert!(!rig.get("/api/tokens", &admin).await.body.to_string().contains(&token));
    let rows = api_token::Entity::find().all(rig.db.reader()).await.unwrap();
    assert!(!format!("{rows:?}").contains(&token));
    let me = rig.get("/api/auth/me", &token).await;
    assert_eq!((me.text("credentialType"), me.text("name")), ("token", "admin"));
    assert!(!me.body["permissions"].as_array().unwrap().contains(&json!("users:manage")), "{}", me.body);
    assert_ne!(rig.get(path, &admin).await.body["lastUsedAt"], Value::Null);
    assert_eq!(rig.call(Method::DELETE, path, &admin, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rig.get("/api/auth/me", &token).await.text("code"), "token_revoked");
    assert_eq!(rig.get(path, &admin).await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.call(Method::DELETE, path, &admin, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.events().await[2..], ["token.created", "token.revoked"]);
    assert!(!format!("{:?}", rig.audit().await).contains(&token));
}

#[tokio::test]
async fn an_expired_token_says_so_and_an_end_must_lie_ahead() {
    let rig = Rig::new().await;
    let admin = rig.access("admin").await;
    let made =
        create(&rig, &admin, json!({"name": "x", "role": "viewer", "expiresAt": "2100-01-01T00:00:00+00:00"})).await;
    assert_eq!(made.text("expiresAt"), "2100-01-01T00:00:00+00:00");
    assert_eq!(rig.get("/api/auth/me", made.text("token")).await.status, StatusCode::OK);
    let id = made.text("id").parse().unwrap();
    let row = api_token::Entity::find_by_id::<uuid::Uuid>(id).one(rig.db.reader()).await.unwrap().unwrap();
    let mut row = api_token::ActiveModel::from(row);
    row.expires_at = Set(Some(clock::now(rig.db.reader()).await.unwrap()));
    row.update(rig.db.reader()).await.unwrap();
    assert_eq!(rig.get("/api/auth/me", made.text("token")).await.text("code"), "token_expired");
    let past =
        create(&rig, &admin, json!({"name": "x", "role": "viewer", "expiresAt": "2020-01-01T00:00:00+00:00"})).await;
    assert_eq!((past.status, &past.body["errors"][0]["pointer"]), (StatusCode::BAD_REQUEST, &json!("/expiresAt")));
}

#[tokio::test]
async fn nobody_hands_out_more_than_they_have() {
    let rig = Rig::new().await;
    rig.add_user("op", Role::Operator).await;
    let op = rig.access("op").await;
    for role in ["auditor", "admin"] {
        let answer = create(&rig, &op, json!({"name": "x", "role": role})).await;
        assert_eq!((answer.status, answer.text("code")), (StatusCode::FORBIDDEN, "permission_denied"), "{role}");
        assert!(answer.body["requiredPermission"].is_string());
    }
    let viewer = create(&rig, &op, json!({"name": "x", "role": "viewer"})).await;
    let through_viewer = create(&rig, viewer.text("token"), json!({"name": "y", "role": "operator"})).await;
    assert_eq!(through_viewer.status, StatusCode::FORBIDDEN, "a token has no more than its own role");
    let short = json!({"name": "x", "role": "viewer", "expiresAt": "2100-01-01T00:00:00Z"});
    let short = create(&rig, &op, short).await;
    for end in [Value::Null, json!("2100-01-02T00:00:00Z")] {
        let mut body = json!({"name": "y", "role": "viewer"});
        if !end.is_null() {
            body["expiresAt"] = end;
        }
        assert_eq!(create(&rig, short.text("token"), body).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn a_token_loses_what_its_owner_loses() {
    let rig = Rig::new().await;
    let id = rig.add_user("op", Role::Operator).await;
    let op = rig.access("op").await;
    let token = create(&rig, &op, json!({"name": "x", "role": "operator"})).await.text("token").to_owned();
    assert_eq!(rig.call(Method::POST, "/api/probe", &token, None).await.status, StatusCode::NO_CONTENT);
    rig.change_user(id, |user| user.role = Set(Role::Viewer)).await;
    assert_eq!(rig.call(Method::POST, "/api/probe", &token, None).await.text("code"), "permission_denied");
    rig.change_user(id, |user| user.disabled = Set(true)).await;
    assert_eq!(rig.get("/api/auth/me", &token).await.text("code"), "token_revoked");
}

#[tokio::test]
async fn tokens_are_ones_own_except_for_an_admin() {
    let rig = Rig::new().await;
    rig.add_user("ada", Role::Viewer).await;
    rig.add_user("bob", Role::Viewer).await;
    let (ada, bob, admin) = (rig.access("ada").await, rig.access("bob").await, rig.access("admin").await);
    let made = create(&rig, &ada, json!({"name": "x", "role": "viewer"})).await;
    let path = format!("/api/tokens/{}", made.text("id"));
    for method in [Method::GET, Method::DELETE] {
        let (foreign, unknown) = ("/api/tokens/00000000-0000-0000-0000-000000000000", &path);
        let foreign = rig.call(method.clone(), foreign, &bob, None).await;
        let unknown = rig.call(method, unknown, &bob, None).await;
        assert_eq!((foreign.status, unknown.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        assert_eq!(foreign.body["detail"], unknown.body["detail"]);
    }
    assert_eq!(rig.get("/api/tokens", &bob).await.body["data"], json!([]));
    assert_eq!(rig.get("/api/tokens", &admin).await.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(rig.get(&path, &admin).await.status, StatusCode::OK);
    assert_eq!(rig.call(Method::DELETE, &path, &admin, None).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_api_token_has_no_session_to_end() {
    let rig = Rig::new().await;
    let token = operator::create_token(&rig.db, "x", Role::Viewer, None, None).await.unwrap();
    let answer = rig.call(Method::POST, "/api/auth/logout", token.expose_secret(), None).await;
    assert_eq!((answer.status, answer.text("code")), (StatusCode::CONFLICT, "conflict"));
}
