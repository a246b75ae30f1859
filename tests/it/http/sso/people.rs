//! Who comes in, as whom and as what: by what the issuer knows them as, with the role that their groups have today.

use super::{LOGIN, at, came_in, events, on};
use keywright_api::auth::operator;
use keywright_entities::types::Role;
use keywright_tests::{
    database::TestDatabase,
    http::{Api, Identified},
    licence::Issuer,
    oidc::{Browser, Provider},
    on_both_databases,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

on_both_databases!(
    the_role_is_that_of_the_groups_of_today,
    who_has_no_group_any_more_is_out,
    nobody_is_taken_over_by_a_name_or_an_address,
    they_have_no_password,
    two_who_are_one_become_one_user,
    who_may_not_come_in_is_told_so,
    only_known_ones_come_in_where_nobody_is_made,
    the_licence_has_its_say,
    the_last_administrator_stays_one,
);

fn person(subject: &str, groups: &[&str]) -> Value {
    json!({"sub": subject, "preferred_username": subject, "groups": groups})
}

async fn me(browser: &Browser<'_>) -> Value {
    browser.client().get("/api/auth/me").await.ok(200)
}

async fn the_role_is_that_of_the_groups_of_today(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let neighbour = api.surrounded_neighbour(at(provider.url(), &[])).await;
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, person("ada", &["staff", "ops"])).await, "/docs");
    let before = me(&browser).await;
    assert_eq!(before["role"], "operator");
    let mut elsewhere = Browser::of(&api);
    came_in(&elsewhere.enter(&provider, person("ada", &["it"])).await, "/docs");
    assert_eq!((&me(&elsewhere).await["role"], &me(&elsewhere).await["id"]), (&json!("admin"), &before["id"]));
    // what an administrator decides holds until the next time
    let path = format!("/api/users/{}", before.id());
    api.admin().patch(&path, json!({"role": "auditor"})).await.ok(200);
    came_in(&elsewhere.enter(&provider, person("ada", &["staff"])).await, "/docs");
    // a lower role counts for the sessions that are there, at every process
    for address in [api.address, neighbour.address] {
        let seen = browser.client().at(address).get("/api/auth/me").await.ok(200);
        assert_eq!(seen["role"], "viewer");
        let start = browser.client().at(address).get("/api/users").await;
        start.refused(403, "permission_denied");
    }
    let user = api.admin().get(&path).await.ok(200);
    assert_eq!((&user["role"], &user["sso"]), (&json!("viewer"), &json!(true)));
    let changes: Vec<Value> = events(&api)
        .await
        .into_iter()
        .filter(|event| event.event_type == "user.updated" && event.details["by"] == "sso")
        .map(|event| event.details["role"].clone())
        .collect();
    assert_eq!(changes, [json!({"from": "operator", "to": "admin"}), json!({"from": "auditor", "to": "viewer"})]);
}

async fn who_has_no_group_any_more_is_out(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, person("ada", &["ops"])).await, "/docs");
    let token = operator::create_token(api.app.database(), "of ada", Role::Operator, Some("ada"), None).await.unwrap();
    let token = api.bearing(token.expose_secret());
    token.get("/api/auth/me").await.ok(200);
    let mut second = Browser::of(&api);
    let refused = second.enter(&provider, person("ada", &["others"])).await.refused(403, "sso_denied");
    assert!(refused["detail"].as_str().unwrap().contains("groups"), "{refused}");
    browser.client().get("/api/auth/me").await.refused(401, "token_revoked");
    token.get("/api/auth/me").await.refused(401, "token_revoked");
    // where everybody has a role it is that one
    let facade = api.surrounded_neighbour(at(provider.url(), &[("KEYWRIGHT_OIDC_DEFAULT_ROLE", "auditor")])).await;
    let departure = second.client().at(facade.address).get(LOGIN).await;
    second.keep(&departure);
    let page = departure.header("location").unwrap();
    let way = keywright_tests::oidc::way_back(page, &provider.log_in(page, person("ada", &[])));
    let arrival = second.client().at(facade.address).get(&way).await;
    came_in(&arrival, "/docs");
    second.keep(&arrival);
    assert_eq!(me(&second).await["role"], "auditor");
    // in again, but not what ended
    token.get("/api/auth/me").await.refused(401, "token_revoked");
}

async fn nobody_is_taken_over_by_a_name_or_an_address(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let local = json!({"name": "Ada", "role": "viewer", "password": "seven-quiet-lanterns"});
    let local = api.admin().post("/api/users", local).await.ok(201);
    let mut names = Vec::new();
    for subject in ["ada-1", "ada-2", "admin-1"] {
        let name = subject.split('-').next().unwrap();
        let claims = json!({"sub": subject, "preferred_username": name, "email": "ada@example.com", "groups": ["it"]});
        let mut browser = Browser::of(&api);
        came_in(&browser.enter(&provider, claims).await, "/docs");
        let me = me(&browser).await;
        assert_ne!(me["id"], local["id"]);
        names.push(me["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names, ["ada (SSO)", "ada (SSO 2)", "admin (SSO)"]);
    assert_eq!(api.admin().get(&format!("/api/users/{}", local.id())).await.ok(200)["role"], "viewer");
    // the same subject of another issuer is somebody else
    let other = Provider::start().await;
    let facade = api.surrounded_neighbour(at(other.url(), &[])).await;
    let mut browser = Browser::of(&api);
    let departure = browser.client().at(facade.address).get(LOGIN).await;
    browser.keep(&departure);
    let page = departure.header("location").unwrap();
    let way = keywright_tests::oidc::way_back(page, &other.log_in(page, person("ada-1", &["staff"])));
    let arrival = browser.client().at(facade.address).get(&way).await;
    came_in(&arrival, "/docs");
    browser.keep(&arrival);
    assert_eq!((&me(&browser).await["name"], &me(&browser).await["role"]), (&json!("ada-1"), &json!("viewer")));
}

async fn they_have_no_password(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, person("ada", &["staff"])).await, "/docs");
    let user = me(&browser).await;
    let login = async |name: &str| {
        let body = json!({"username": name, "password": "seven-quiet-lanterns"});
        let mut problem = api.nobody().post("/api/auth/login", body).await.refused(401, "login_failed");
        problem["requestId"] = Value::Null;
        problem
    };
    assert_eq!(login("ada").await, login("nobody-of-that-name").await);
    let change = json!({"currentPassword": "x", "newPassword": "seven-quiet-lanterns"});
    let own = browser.client().with("Sec-Fetch-Site", "same-origin");
    let own = own.with("X-CSRF-Token", user["csrfToken"].as_str().unwrap());
    let refused = own.post("/api/auth/password", change).await.refused(409, "conflict");
    assert!(refused["detail"].as_str().unwrap().contains("single sign-on"), "{refused}");
    let path = format!("/api/users/{}", user.id());
    for password in [json!("seven-quiet-lanterns"), Value::Null] {
        let refused = api.admin().patch(&path, json!({"password": password})).await;
        assert_eq!(refused.pointers("validation_failed"), ["/password"]);
    }
    let passwords = keywright_api::auth::passwords::Passwords::new().unwrap();
    let refused = operator::reset_password(api.app.database(), &passwords, "ada").await;
    assert!(matches!(refused, Err(operator::OperatorError::SingleSignOn(_))));
    // a name that is changed here stays as it is
    api.admin().patch(&path, json!({"name": "Ada L."})).await.ok(200);
    came_in(&browser.enter(&provider, person("ada", &["staff"])).await, "/docs");
    assert_eq!(me(&browser).await["name"], "Ada L.");
}

async fn two_who_are_one_become_one_user(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let entering = (0..6).map(|_| async {
        let mut browser = Browser::of(&api);
        let answer = browser.enter(&provider, person("ada", &["staff"])).await;
        came_in(&answer, "/docs");
        me(&browser).await.id()
    });
    let ids: std::collections::BTreeSet<String> = futures::future::join_all(entering).await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(api.admin().get("/api/users?includeTotal=true").await.ok(200)["meta"]["total"], 2);
}

async fn who_may_not_come_in_is_told_so(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[("KEYWRIGHT_OIDC_EMAIL_DOMAINS", "example.com")]).await;
    let mut browser = Browser::of(&api);
    let ada = |email: &str, verified: bool| {
        let mut claims = person("ada", &["staff"]);
        (claims["email"], claims["email_verified"]) = (json!(email), json!(verified));
        claims
    };
    for (email, verified) in [("ada@example.org", true), ("ada@example.com", false), ("ada@example.com.evil.org", true)]
    {
        browser.enter(&provider, ada(email, verified)).await.refused(403, "sso_denied");
    }
    came_in(&browser.enter(&provider, ada("ada@example.com", true)).await, "/docs");
    let path = format!("/api/users/{}", me(&browser).await.id());
    api.admin().patch(&path, json!({"enabled": false})).await.ok(200);
    browser.client().get("/api/auth/me").await.refused(401, "token_revoked");
    let refused = browser.enter(&provider, ada("ada@example.com", true)).await.refused(403, "sso_denied");
    assert!(refused["detail"].as_str().unwrap().contains("disabled"), "{refused}");
    api.admin().patch(&path, json!({"enabled": true})).await.ok(200);
    came_in(&browser.enter(&provider, ada("ada@example.com", true)).await, "/docs");
    // who is removed and comes again is somebody new
    let before = me(&browser).await.id();
    api.admin().with("If-Match", "*").delete(&path).await.ok(204);
    came_in(&browser.enter(&provider, ada("ada@example.com", true)).await, "/docs");
    assert_ne!(me(&browser).await.id(), before);
}

async fn only_known_ones_come_in_where_nobody_is_made(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[("KEYWRIGHT_OIDC_CREATE_USERS", "false")]).await;
    let mut browser = Browser::of(&api);
    browser.enter(&provider, person("ada", &["staff"])).await.refused(403, "sso_denied");
    assert_eq!(api.admin().get("/api/users?includeTotal=true").await.ok(200)["meta"]["total"], 1);
    // somebody who came while that was allowed
    let facade = api.surrounded_neighbour(at(provider.url(), &[])).await;
    let departure = browser.client().at(facade.address).get(LOGIN).await;
    browser.keep(&departure);
    let page = departure.header("location").unwrap();
    let way = keywright_tests::oidc::way_back(page, &provider.log_in(page, person("ada", &["staff"])));
    came_in(&browser.client().at(facade.address).get(&way).await, "/docs");
    came_in(&browser.enter(&provider, person("ada", &["staff"])).await, "/docs");
}

async fn the_licence_has_its_say(database: TestDatabase) {
    let (provider, issuer) = (Provider::start().await, Issuer::default());
    let now = keywright_jobs::setup::clock::Clock::system().now().timestamp();
    let terms = issuer.issue(&json!({"tier": "PRO", "exp": now + 3600}));
    let api = Api::surrounded_and_licensed(database, at(provider.url(), &[]), terms).await;
    let licence = api.viewer().get("/api/system/license").await.ok(200);
    assert_eq!(licence["limits"]["users"]["limit"], Value::Null);
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, person("ada", &["staff"])).await, "/docs");
    let licence = api.viewer().get("/api/system/license").await.ok(200);
    assert_eq!(licence["limits"]["users"]["used"], 2);
}

async fn the_last_administrator_stays_one(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, person("ada", &["it"])).await, "/docs");
    let users = api.admin().get("/api/users?sort=name").await.ok(200);
    let (ada, admin) = (users["data"][0].id(), users["data"][1].id());
    let made = browser.client().get("/api/auth/me").await.ok(200);
    let own = browser.client().with("Sec-Fetch-Site", "same-origin");
    let own = own.with("X-CSRF-Token", made["csrfToken"].as_str().unwrap());
    own.patch(&format!("/api/users/{admin}"), json!({"role": "viewer"})).await.ok(200);
    // nobody else could administer
    browser.enter(&provider, person("ada", &["staff"])).await.refused(409, "last_admin");
    assert_eq!(me(&browser).await["role"], "admin");
    own.patch(&format!("/api/users/{admin}"), json!({"role": "admin"})).await.ok(200);
    came_in(&browser.enter(&provider, person("ada", &["staff"])).await, "/docs");
    assert_eq!((&me(&browser).await["role"], &me(&browser).await["id"]), (&json!("viewer"), &json!(ada)));
    // who is restricted to some subscriptions cannot become one by a group
    let subscription = api.subscribe("one").await;
    let restricted = json!({"subscriptions": [subscription]});
    api.admin().patch(&format!("/api/users/{ada}"), restricted).await.ok(200);
    browser.enter(&provider, person("ada", &["it"])).await.refused(403, "sso_denied");
}
