//! The way to the provider and back: whole, once, in one browser, and to no other place.

use super::{CALLBACK, LOGIN, at, came_in, events, on};
use chrono::TimeDelta;
use keywright_api::{limits::Rule, service::Surroundings};
use keywright_jobs::setup::clock::Clock;
use keywright_tests::{
    database::TestDatabase,
    http::{Api, LOOPBACK},
    licence::Issuer,
    oidc::{Browser, Provider, query, way_back},
    on_both_databases,
    rig::Rig,
};
use serde_json::{Value, json};

on_both_databases!(
    the_whole_way_at_a_provider_that_others_wrote,
    a_way_back_is_good_once,
    a_way_is_ended_in_the_browser_that_began_it,
    several_tabs_do_not_get_into_each_others_way,
    it_ends_nowhere_else,
    people_read_pages_and_programs_problems,
    without_a_provider_there_is_none,
    a_lower_tier_has_none,
    it_is_limited_as_logins_are,
);

async fn the_whole_way_at_a_provider_that_others_wrote(database: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let provider = rig.oidc_provider().await.unwrap();
    let claims = json!({"preferred_username": "ada", "email": "ada@example.com", "groups": ["staff", "ops"]});
    let outside = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let put = outside.put(format!("{}/users/ada-1", provider.url())).json(&claims).send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    let api = Api::surrounded(database, LOOPBACK, at(provider.url(), &[])).await;
    let mut browser = Browser::of(&api);
    let departure = browser.get(&format!("{LOGIN}?next=/api/jobs%3Flimit%3D5")).await;
    assert_eq!((departure.status, departure.header("cache-control")), (302, Some("no-store")));
    let cookie = departure.header("set-cookie").unwrap();
    assert!(cookie.starts_with("keywright-sso-"), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=900"), "{cookie}");
    let page = departure.header("location").unwrap();
    assert!(page.starts_with(provider.url()), "{page}");
    let asked = query(page);
    assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
    let logged_in = outside.post(page).form(&[("sub", "ada-1")]).send().await.unwrap();
    assert_eq!(logged_in.status(), 302);
    let back = logged_in.headers()["location"].to_str().unwrap();
    assert_eq!(query(back)["state"], asked["state"]);
    let (_, back) = back.split_once("/api/auth").unwrap();
    let arrival = browser.get(&format!("/api/auth{back}")).await;
    came_in(&arrival, "/api/jobs?limit=5");
    let policy = arrival.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!arrival.text.contains("<script"));
    let me = browser.get("/api/auth/me").await.ok(200);
    assert_eq!((&me["name"], &me["role"]), (&json!("ada"), &json!("operator")));
    assert_eq!((&me["signInMethod"], &me["credentialType"]), (&json!("sso"), &json!("session")));
    assert_eq!(me["passwordChangeRequired"], false);
    assert_eq!(api.session().get("/api/auth/me").await.ok(200)["signInMethod"], "password");
    assert_eq!(api.admin().get("/api/auth/me").await.ok(200)["signInMethod"], Value::Null);
    let users = api.admin().get("/api/users?sort=name").await.ok(200);
    let told: Vec<_> = users["data"].as_array().unwrap().iter().map(|user| (&user["name"], &user["sso"])).collect();
    assert_eq!(told, [(&json!("ada"), &json!(true)), (&json!("admin"), &json!(false))]);
    let events = events(&api).await;
    let of = |name: &str| events.iter().rfind(|event| event.event_type == name).unwrap();
    assert_eq!(of("user.created").details["by"], "sso");
    assert_eq!(of("auth.login").details["method"], "sso");
    assert_eq!(of("auth.login").subject_id, of("user.created").subject_id);
    // a second time it is the same user
    let page = browser.depart(LOGIN).await;
    let logged_in = outside.post(&page).form(&[("sub", "ada-1")]).send().await.unwrap();
    let back = logged_in.headers()["location"].to_str().unwrap();
    came_in(&browser.get(&format!("{CALLBACK}?{}", back.split_once('?').unwrap().1)).await, "/docs");
    assert_eq!(browser.get("/api/auth/me").await.ok(200)["id"], me["id"]);
}

fn ada() -> Value {
    json!({"sub": "ada-1", "preferred_username": "ada", "groups": ["staff"]})
}

async fn a_way_back_is_good_once(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let neighbour = api.surrounded_neighbour(at(provider.url(), &[])).await;
    let mut browser = Browser::of(&api);
    let page = browser.depart(LOGIN).await;
    let way = way_back(&page, &provider.log_in(&page, ada()));
    // whoever copied everything comes at the same time, at both facades
    let copies = (0..8).map(|number| {
        let client = browser.client().at(if number % 2 == 0 { api.address } else { neighbour.address });
        let way = way.clone();
        async move { client.get(&way).await }
    });
    let answers = futures::future::join_all(copies).await;
    let (inside, outside): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(inside.len(), 1, "{outside:?}");
    for answer in outside {
        answer.refused(400, "sso_state_invalid");
    }
    assert_eq!(provider.asked("/token"), 1, "nobody else got as far as the provider");
    browser.client().get(&way).await.refused(400, "sso_state_invalid");
}

async fn a_way_is_ended_in_the_browser_that_began_it(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let (mut victim, mut other) = (Browser::of(&api), Browser::of(&api));
    let page = victim.depart(LOGIN).await;
    let way = way_back(&page, &provider.log_in(&page, ada()));
    let state = query(&page)["state"].clone();
    // somebody else's browser, with no cookie, with one of another way, and with this one's value under another name
    let own = other.depart(LOGIN).await;
    for client in [api.nobody(), other.client()] {
        client.get(&way).await.refused(400, "sso_state_invalid");
    }
    let value = other.cookies.values().next().unwrap();
    let name = victim.cookies.keys().next().unwrap();
    api.nobody().with("Cookie", format!("{name}={value}")).get(&way).await.refused(400, "sso_state_invalid");
    // a code of one way with the state of another is no use either: the verifier is not the code's
    let mixed = way_back(&own, &provider.log_in(&page, ada()));
    other.client().get(&mixed).await.refused(401, "sso_failed");
    for way in [
        CALLBACK.to_owned(),
        format!("{CALLBACK}?code=x"),
        format!("{CALLBACK}?code=x&state="),
        format!("{CALLBACK}?code=x&state=abc"),
        format!("{CALLBACK}?code=x&state={}", &state[1..]),
        format!("{CALLBACK}?error=access_denied"),
    ] {
        victim.client().get(&way).await.refused(400, "sso_state_invalid");
    }
    // too late
    api.pass(TimeDelta::minutes(11));
    victim.client().get(&way).await.refused(400, "sso_state_invalid");
    api.pass(TimeDelta::minutes(-11));
    // parameters that a provider adds do not matter; ours given twice do
    victim.client().get(&format!("{way}&state={state}")).await.refused(400, "validation_failed");
    came_in(&victim.client().get(&format!("{way}&session_state=1&authuser=0&hd=example.com")).await, "/docs");
}

async fn several_tabs_do_not_get_into_each_others_way(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    let mut ways = Vec::new();
    for tab in 0..3 {
        let page = browser.depart(&format!("{LOGIN}?next=/tab/{tab}")).await;
        ways.push(way_back(&page, &provider.log_in(&page, ada())));
    }
    for (tab, way) in ways.iter().enumerate().rev() {
        came_in(&browser.get(way).await, &format!("/tab/{tab}"));
    }
    assert!(browser.cookies.keys().all(|name| !name.starts_with("keywright-sso-")), "{:?}", browser.cookies);
    // ways that nobody ends do not fill a browser with cookies
    for _ in 0..12 {
        browser.depart(LOGIN).await;
    }
    assert_eq!(browser.cookies.keys().filter(|name| name.starts_with("keywright-sso-")).count(), 6);
}

async fn it_ends_nowhere_else(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    for next in [
        "//evil.example",
        "https://evil.example",
        "/%5Cevil.example",
        "%5C%5Cevil.example",
        "/%09/evil.example",
        "/%0D%0Ax:y",
        "/.//evil.example",
        "evil.example",
        "javascript:alert(1)",
        "/%E2%80%A8",
    ] {
        let refused = api.nobody().get(&format!("{LOGIN}?next={next}")).await;
        assert!(refused.header("set-cookie").is_none() && refused.header("location").is_none(), "{next}");
        assert_eq!(refused.pointers("validation_failed"), ["/query/next"], "{next}");
    }
    api.nobody().get(&format!("{LOGIN}?next=")).await.refused(400, "validation_failed");
    api.nobody().get(&format!("{LOGIN}?return=/docs")).await.refused(400, "unknown_parameter");
    let mut browser = Browser::of(&api);
    let page = browser.depart(&format!("{LOGIN}?next=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E")).await;
    let arrival = browser.get(&way_back(&page, &provider.log_in(&page, ada()))).await;
    assert_eq!(arrival.status, 200);
    assert!(!arrival.text.contains("<script"), "{}", arrival.text);
}

async fn people_read_pages_and_programs_problems(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let people = || api.nobody().with("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = people().get(CALLBACK).await;
    assert_eq!((page.status, page.header("content-type")), (400, Some("text/html; charset=utf-8")));
    assert!(page.text.contains("sso_state_invalid") && page.text.contains(page.header("x-request-id").unwrap()));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    api.nobody().with("Accept", "application/json").get(CALLBACK).await.refused(400, "sso_state_invalid");
    api.nobody().with("Accept", "application/json, text/html").get(CALLBACK).await.refused(400, "sso_state_invalid");
    // elsewhere nothing changes
    people().get("/api/auth/me").await.refused(401, "token_missing");
}

async fn without_a_provider_there_is_none(database: TestDatabase) {
    let api = Api::on(database).await;
    for path in [LOGIN, CALLBACK] {
        api.nobody().get(path).await.refused(404, "not_found");
    }
}

async fn a_lower_tier_has_none(database: TestDatabase) {
    let (provider, issuer) = (Provider::start().await, Issuer::default());
    let now = Clock::system().now().timestamp();
    let terms = issuer.issue(&json!({"tier": "PRO", "exp": now + 3600}));
    let api = Api::surrounded_and_licensed(database, at(provider.url(), &[]), terms).await;
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, ada()).await, "/docs");
    let page = browser.depart(LOGIN).await;
    let way = way_back(&page, &provider.log_in(&page, ada()));
    api.pass(TimeDelta::hours(2));
    assert_eq!(browser.client().get(LOGIN).await.refused(403, "tier_required")["requiredTier"], "PRO");
    browser.client().get(&way).await.refused(403, "tier_required");
}

async fn it_is_limited_as_logins_are(database: TestDatabase) {
    let provider = Provider::start().await;
    let edge = Surroundings { limits: vec![Rule::per_hour(20)], ..at(provider.url(), &[]) };
    let api = Api::surrounded(database, LOOPBACK, edge).await;
    let mut refused = 0;
    for _ in 0..12 {
        for path in [LOGIN, CALLBACK] {
            let answer = api.nobody().get(path).await;
            if answer.status == 429 {
                answer.refused(429, "rate_limited");
                refused += 1;
            }
        }
    }
    // the login by which the test itself began counts as well
    assert_eq!(refused, 24 - 20 + 1);
}
