//! Bad input and bad credentials: each is one problem object of the one shape, with the right status and code.

use chrono::TimeDelta;
use keywright_entities::api_token;
use keywright_tests::{
    database::TestDatabase,
    http::{ADMIN_PASSWORD, ASSETS, Api, Identified, SCAN},
    on_both_databases,
};
use reqwest::Method;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::json;

on_both_databases!(
    malformed_input_is_refused_in_one_shape,
    text_that_no_database_keeps_is_refused_and_not_an_error_of_ours,
    missing_and_wrong_tokens,
    tokens_that_ended,
    ids_that_nothing_has,
    bodies_beyond_the_limit,
    request_ids_are_echoed_when_sane,
);

const RANDOM: &str = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";

async fn malformed_input_is_refused_in_one_shape(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin();
    let send = async |media_type: &str, body: &str| {
        admin.send(Method::POST, SCAN, Some((media_type, body.as_bytes().to_vec()))).await
    };
    for body in ["{", "", "nonsense", "{\"mode\": \"full\"} x", "{\"mode\":\"full\",\"mode\":\"full\"}", "\u{feff}{}"] {
        send("application/json", body).await.refused(400, "malformed_json");
    }
    admin
        .send(Method::POST, SCAN, Some(("application/json", vec![b'"', 0xff, b'"'])))
        .await
        .refused(400, "malformed_json");
    for media_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "json", ""] {
        send(media_type, "{}").await.refused(415, "unsupported_media_type");
    }
    assert_eq!(send("application/json", "{\"mod\": 1}").await.pointers("unknown_field"), ["/mod"]);
    assert_eq!(send("application/json", "[]").await.pointers("validation_failed"), [""]);
    let wrong = json!({"mode": "fast", "subscriptions": ["x"], "onConflict": 7});
    let mut pointers = admin.post(SCAN, wrong).await.pointers("validation_failed");
    pointers.sort();
    pointers.dedup();
    assert_eq!(pointers, ["/mode", "/onConflict", "/subscriptions/0"]);
    for path in [
        "/",
        "/api",
        "/api/",
        "/api/nothing",
        "/api/jobs/",
        "/apijobs",
        "/api//jobs",
        "/docs/x",
        "/%00",
        "/%2e%2e%2fetc",
    ] {
        admin.get(path).await.refused(404, "not_found");
    }
    assert_eq!(admin.get(&format!("{ASSETS}?colour=red")).await.pointers("unknown_parameter"), ["/query/colour"]);
    assert_eq!(admin.get("/health?x=1").await.pointers("unknown_parameter"), ["/query/x"]);
    assert_eq!(admin.get(&format!("{ASSETS}?limit=1&limit=2")).await.pointers("validation_failed"), ["/query/limit"]);
    for (method, path, allow) in [
        (Method::PUT, "/api/subscriptions", "GET, HEAD, POST"),
        (Method::DELETE, "/api/jobs", "GET, HEAD"),
        (Method::GET, SCAN, "POST"),
        (Method::POST, "/health", "GET, HEAD"),
        (Method::OPTIONS, "/api/jobs", "GET, HEAD"),
        (Method::TRACE, "/openapi.json", "GET, HEAD"),
    ] {
        let answer = admin.send(method, path, None).await;
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
        answer.refused(405, "method_not_allowed");
    }
}

async fn text_that_no_database_keeps_is_refused_and_not_an_error_of_ours(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin();
    for parameter in ["q", "vault", "region", "owner", "tag"] {
        let value = if parameter == "tag" { "a:%00" } else { "a%00b" };
        let answer = admin.get(&format!("{ASSETS}?{parameter}={value}")).await;
        let pointers = answer.pointers("validation_failed");
        assert!(pointers[0].starts_with(&format!("/query/{parameter}")), "{pointers:?}");
    }
    admin.get("/api/jobs?kind=%00").await.refused(400, "validation_failed");
    let body = json!({"provider": "aws", "externalId": "a\u{0}", "name": "a\u{0}", "tags": {"k\u{0}": "v\u{0}"}});
    let pointers = admin.post("/api/subscriptions", body).await.pointers("validation_failed");
    assert!(pointers.iter().any(|pointer| pointer == "/externalId"), "{pointers:?}");
    let login = json!({"username": "ad\u{0}min", "password": ADMIN_PASSWORD});
    api.nobody().post("/api/auth/login", login).await.refused(400, "validation_failed");
    let form = format!("username=ad%00min&password={ADMIN_PASSWORD}").into_bytes();
    let form = Some(("application/x-www-form-urlencoded", form));
    api.nobody().send(Method::POST, "/api/auth/login", form).await.refused(400, "validation_failed");
    api.bearing("a%00").get("/api/auth/me").await.refused(401, "token_invalid");
}

async fn missing_and_wrong_tokens(database: TestDatabase) {
    let api = Api::on(database).await;
    for path in ["/api/auth/me", "/api/subscriptions", ASSETS, "/api/jobs", "/api/tokens"] {
        let missing = api.nobody().get(path).await;
        assert_eq!(missing.header("www-authenticate"), Some(r#"Bearer realm="keywright""#));
        missing.refused(401, "token_missing");
        for garbage in
            ["x", "kw_", "kw_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "a.b.c", "eyJhbGciOiJub25lIn0.e30."]
        {
            let wrong = api.bearing(garbage).get(path).await;
            assert!(wrong.header("www-authenticate").is_some_and(|header| header.contains("invalid_token")));
            wrong.refused(401, "token_invalid");
        }
        api.nobody().with("Authorization", "Basic YWRtaW46eA==").get(path).await.refused(401, "token_invalid");
    }
    let wrong = json!({"username": "admin", "password": "wrong"});
    api.nobody().post("/api/auth/login", wrong).await.refused(401, "login_failed");
    // who is asking comes before what is asked
    api.nobody().get(&format!("{ASSETS}?colour=red")).await.refused(401, "token_missing");
    api.nobody().post(SCAN, json!({"x": 1})).await.refused(401, "token_missing");
}

async fn tokens_that_ended(database: TestDatabase) {
    let api = Api::on(database).await;
    let body = json!({"name": "short", "role": "viewer", "expiresAt": (api.now() + TimeDelta::hours(1)).to_rfc3339()});
    let short = api.session().post("/api/tokens", body).await.ok(201);
    let short = api.bearing(short["token"].as_str().unwrap());
    short.get("/api/auth/me").await.ok(200);
    let made = api.session().post("/api/tokens", json!({"name": "gone", "role": "viewer"})).await.ok(201);
    let revoked = api.bearing(made["token"].as_str().unwrap());
    revoked.get("/api/auth/me").await.ok(200);
    api.session().delete(&format!("/api/tokens/{}", made.id())).await.ok(204);
    revoked.get("/api/auth/me").await.refused(401, "token_revoked");
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let session = api.nobody().post("/api/auth/login", login).await.ok(200);
    let logged_in = api.bearing(session["access_token"].as_str().unwrap());
    logged_in.get("/api/auth/me").await.ok(200);
    logged_in.send(Method::POST, "/api/auth/logout", None).await.ok(204);
    logged_in.get("/api/auth/me").await.refused(401, "token_revoked");
    let refresh = json!({"refresh_token": session["refresh_token"]});
    let answer = api.nobody().post("/api/auth/refresh", refresh).await;
    assert_eq!(answer.status, 401, "{}", answer.text);
    // an API token ends by the database's clock, an access token by its own signed word
    let rows = api_token::Entity::update_many()
        .col_expr(api_token::Column::ExpiresAt, Expr::value(api.now() - TimeDelta::seconds(1)))
        .filter(api_token::Column::Name.eq("short"));
    rows.exec(api.app.database().reader()).await.unwrap();
    short.get("/api/auth/me").await.refused(401, "token_expired");
    api.pass(TimeDelta::hours(2));
    api.session().get("/api/auth/me").await.refused(401, "token_expired");
}

async fn ids_that_nothing_has(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin().with("If-Match", "\"1\"");
    let gets = [
        "/api/auth/sessions/{id}",
        "/api/tokens/{id}",
        "/api/subscriptions/{id}",
        "/api/jobs/{id}",
        "/api/jobs/{id}/scopes",
        "/api/assets/discovery/assets/{id}",
        "/api/assets/discovery/scans/{id}",
        "/api/assets/discovery/scans/{id}/results",
        "/api/assets/discovery/scan/{id}/status",
        "/api/assets/discovery/scan/{id}/results",
    ];
    for id in [RANDOM, "7", "x", "..", "%2e%2e", "0198f3c2", "'%20OR%201=1", "%00", "null"] {
        for path in gets {
            let path = path.replace("{id}", id);
            // a client resolves dots by itself
            if !id.contains("..") && !id.contains("%2e") {
                admin.get(&path).await.refused(404, "not_found");
            }
        }
        if id.contains("..") || id.contains("%2e") {
            continue;
        }
        admin.delete(&format!("/api/tokens/{id}")).await.refused(404, "not_found");
        admin.delete(&format!("/api/subscriptions/{id}")).await.refused(404, "not_found");
        admin.patch(&format!("/api/subscriptions/{id}"), json!({"name": "x"})).await.refused(404, "not_found");
        admin.send(Method::POST, &format!("/api/jobs/{id}/cancel"), None).await.refused(404, "not_found");
    }
}

async fn bodies_beyond_the_limit(database: TestDatabase) {
    let api = Api::on(database).await;
    let name = "n".repeat(2 << 20);
    let body = json!({"provider": "aws", "externalId": "a", "name": name});
    api.admin().post("/api/subscriptions", body).await.refused(413, "payload_too_large");
}

async fn request_ids_are_echoed_when_sane(database: TestDatabase) {
    let api = Api::on(database).await;
    let long = "a".repeat(129);
    let asked = async |id: &str| {
        let answer = api.viewer().with("X-Request-Id", id).get("/api/jobs").await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    for sane in ["req-1", "A.b_c-9", &long[..128]] {
        assert_eq!(asked(sane).await, sane);
    }
    for odd in ["a b", "a\"b", "a;b", "${jndi}", &long, ""] {
        let made = asked(odd).await;
        assert!(made != odd && uuid::Uuid::parse_str(&made).is_ok(), "{odd} became {made}");
    }
    api.nobody().with("X-Request-Id", "mine").get("/api/nothing").await.refused(404, "not_found");
}
