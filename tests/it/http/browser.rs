//! Sessions as browsers have them, at two facades on one database: cookies, and the evidence that a change is our own page's.

use keywright_tests::{
    database::TestDatabase,
    http::{ADMIN_PASSWORD, Api, Client},
    on_both_databases,
};
use reqwest::Method;
use serde_json::{Value, json};

on_both_databases!(
    a_change_by_cookie_needs_our_own_origin_and_the_sessions_token,
    a_refresh_by_cookie_needs_the_same_and_spends_nothing_without,
    nobody_is_logged_in_by_another_site,
    a_bearer_token_wins_over_a_cookie,
    a_second_use_of_a_refresh_token_ends_the_session_everywhere,
    logout_ends_the_session_everywhere,
);

struct Browser<'a> {
    client: Client<'a>,
    csrf: String,
    body: Value,
}

async fn log_in(api: &Api) -> Browser<'_> {
    let answer = api.nobody().post("/api/auth/login", json!({"username": "admin", "password": ADMIN_PASSWORD})).await;
    let cookies: Vec<String> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|cookie| {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("; HttpOnly; SameSite=Strict; Path=/; Max-Age="), "{cookie}");
            cookie.split(';').next().unwrap().to_owned()
        })
        .collect();
    let body = answer.ok(200);
    let csrf = body["csrf_token"].as_str().unwrap().to_owned();
    Browser { client: api.nobody().with("Cookie", cookies.join("; ")), csrf, body }
}

async fn a_change_by_cookie_needs_our_own_origin_and_the_sessions_token(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let (browser, other) = (log_in(&api).await, log_in(&api).await);
    let own = format!("http://{}", api.address);
    assert_eq!(browser.client.get("/api/auth/me").await.ok(200)["csrfToken"], json!(browser.csrf));
    let (site, origin) = ("Sec-Fetch-Site", "Origin");
    let with = |headers: &[(&'static str, &str)]| {
        headers.iter().fold(browser.client.clone(), |client, (name, value)| client.with(name, *value))
    };
    let csrf = ("X-CSRF-Token", browser.csrf.as_str());
    let body = json!({"name": "x", "role": "viewer"});
    for headers in [
        &[][..],
        &[csrf],
        &[(site, "same-origin")],
        &[(origin, own.as_str())],
        &[(site, "same-origin"), ("X-CSRF-Token", "")],
        &[(site, "same-origin"), ("X-CSRF-Token", other.csrf.as_str())],
        &[(site, "same-origin"), csrf, ("X-CSRF-Token", "x")],
        &[(site, "cross-site"), csrf],
        &[(site, "same-site"), csrf],
        &[(origin, "https://evil.example"), csrf],
        &[(origin, "null"), csrf],
        &[(site, "cross-site"), (origin, own.as_str()), csrf],
    ] {
        let client = with(headers);
        client.post("/api/tokens", body.clone()).await.refused(403, "csrf_failed");
        let text = Some(("text/plain", body.to_string().into_bytes()));
        client.send(Method::POST, "/api/tokens", text).await.refused(403, "csrf_failed");
        let form = Some(("application/x-www-form-urlencoded", b"name=x&role=viewer".to_vec()));
        client.send(Method::POST, "/api/tokens", form).await.refused(403, "csrf_failed");
        client.delete("/api/auth/sessions").await.refused(403, "csrf_failed");
        client.at(neighbour.address).post("/api/auth/logout", json!({})).await.refused(403, "csrf_failed");
    }
    other.client.get("/api/auth/me").await.ok(200);
    for headers in [[(site, "same-origin"), csrf], [(origin, own.as_str()), csrf]] {
        with(&headers).post("/api/tokens", body.clone()).await.ok(201);
    }
    let text = Some(("text/plain", body.to_string().into_bytes()));
    with(&[(site, "same-origin"), csrf])
        .send(Method::POST, "/api/tokens", text)
        .await
        .refused(415, "unsupported_media_type");
}

async fn a_refresh_by_cookie_needs_the_same_and_spends_nothing_without(database: TestDatabase) {
    let api = Api::on(database).await;
    let browser = log_in(&api).await;
    let same = browser.client.clone().with("Sec-Fetch-Site", "same-origin");
    for client in [&browser.client, &same, &browser.client.clone().with("X-CSRF-Token", &browser.csrf)] {
        client.post("/api/auth/refresh", json!({})).await.refused(403, "csrf_failed");
    }
    let refreshed = same.with("X-CSRF-Token", &browser.csrf).post("/api/auth/refresh", json!({})).await.ok(200);
    assert_eq!(refreshed["csrf_token"], json!(browser.csrf), "it is the same for the whole session");
}

async fn nobody_is_logged_in_by_another_site(database: TestDatabase) {
    let api = Api::on(database).await;
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example"), ("Origin", "null")] {
        let answer = api.nobody().with(name, value).post("/api/auth/login", login.clone()).await;
        assert!(answer.header("set-cookie").is_none(), "{name}: {value}");
        answer.refused(403, "csrf_failed");
    }
    api.nobody().with("Origin", format!("http://{}", api.address)).post("/api/auth/login", login).await.ok(200);
}

async fn a_bearer_token_wins_over_a_cookie(database: TestDatabase) {
    let api = Api::on(database).await;
    let browser = log_in(&api).await;
    let both = |token: &str| browser.client.clone().with("Authorization", format!("Bearer {token}"));
    let token = browser.body["access_token"].as_str().unwrap();
    both(token).post("/api/tokens", json!({"name": "x", "role": "viewer"})).await.ok(201);
    both("garbage").get("/api/auth/me").await.refused(401, "token_invalid");
}

async fn a_second_use_of_a_refresh_token_ends_the_session_everywhere(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let first = log_in(&api).await.body;
    let body = |tokens: &Value| json!({"refresh_token": tokens["refresh_token"]});
    let second = api.nobody().at(neighbour.address).post("/api/auth/refresh", body(&first)).await.ok(200);
    api.nobody().post("/api/auth/refresh", body(&first)).await.refused(401, "token_revoked");
    for at in [api.address, neighbour.address] {
        for tokens in [&first, &second] {
            let bearer = api.bearing(tokens["access_token"].as_str().unwrap()).at(at);
            bearer.get("/api/auth/me").await.refused(401, "token_revoked");
            api.nobody().at(at).post("/api/auth/refresh", body(tokens)).await.refused(401, "token_revoked");
        }
    }
}

async fn logout_ends_the_session_everywhere(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let browser = log_in(&api).await;
    let client = browser.client.clone().with("Sec-Fetch-Site", "same-origin").with("X-CSRF-Token", &browser.csrf);
    client.clone().at(neighbour.address).get("/api/auth/me").await.ok(200);
    client.send(Method::POST, "/api/auth/logout", None).await.ok(204);
    for at in [api.address, neighbour.address] {
        client.clone().at(at).get("/api/auth/me").await.refused(401, "token_revoked");
    }
}
