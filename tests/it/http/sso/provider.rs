//! Providers that do what they should not, and what people hear of it.

use super::{LOGIN, at, came_in, on};
use keywright_entities::user_account;
use keywright_tests::{
    database::TestDatabase,
    http::{Answer, Api},
    instance::Instance,
    oidc::{self, Browser, Provider, Signer, way_back},
    on_both_databases,
};
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use tokio::net::TcpListener;

on_both_databases!(
    tokens_that_prove_nothing_let_nobody_in,
    answers_that_are_none_let_nobody_in,
    a_new_key_is_asked_for_once,
    its_documents_lead_nowhere_that_the_guard_refuses,
    a_provider_that_is_away_is_told_from_one_that_refuses,
    who_answers_must_be_who_was_asked,
    what_was_denied_is_counted_and_nothing_secret_is_told,
);

fn ada() -> Value {
    json!({"sub": "ada-1", "preferred_username": "ada", "groups": ["staff"]})
}

async fn users(api: &Api) -> usize {
    user_account::Entity::find().all(api.app.database().reader()).await.unwrap().len()
}

#[track_caller]
fn kept_out(answer: Answer, status: u16, code: &str) {
    let cookies: Vec<&str> = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    // the way is ended, and nothing else is handed out
    let [cookie] = cookies.as_slice() else { panic!("{cookies:?}") };
    assert!(cookie.starts_with("keywright-sso-") && cookie.contains("Max-Age=0"), "{cookie}");
    answer.refused(status, code);
}

async fn tokens_that_prove_nothing_let_nobody_in(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let seconds = keywright_jobs::setup::clock::Clock::system().now().timestamp();
    let wrong = [
        (json!({"nonce": "another"}), json!({}), Signer::Itself),
        (json!({"nonce": null}), json!({}), Signer::Itself),
        (json!({"iss": "http://127.0.0.1:1"}), json!({}), Signer::Itself),
        (json!({"iss": format!("{}/", provider.url())}), json!({}), Signer::Itself),
        (json!({"aud": "another"}), json!({}), Signer::Itself),
        (json!({"aud": []}), json!({}), Signer::Itself),
        (json!({"aud": null}), json!({}), Signer::Itself),
        (json!({"aud": [oidc::CLIENT_ID, "another"]}), json!({}), Signer::Itself),
        (json!({"azp": "another"}), json!({}), Signer::Itself),
        (json!({"exp": seconds - 120}), json!({}), Signer::Itself),
        (json!({"iat": seconds + 3600}), json!({}), Signer::Itself),
        (json!({"nbf": seconds + 3600}), json!({}), Signer::Itself),
        (json!({"sub": ""}), json!({}), Signer::Itself),
        (json!({"sub": "a".repeat(256)}), json!({}), Signer::Itself),
        (json!({}), json!({}), Signer::Somebody),
        (json!({}), json!({}), Signer::Nobody),
        (json!({}), json!({}), Signer::ClientSecret),
        (json!({}), json!({}), Signer::PublicKey),
        (json!({}), json!({"alg": "none"}), Signer::Itself),
        (json!({}), json!({"alg": "HS256"}), Signer::Itself),
        (json!({}), json!({"alg": "RS256"}), Signer::Itself),
        (json!({}), json!({"kid": "unknown"}), Signer::Itself),
        (json!({}), json!({"kid": "../../first"}), Signer::Itself),
        (json!({}), json!({"crit": ["exp"]}), Signer::Itself),
        (json!({}), json!({"typ": "logout+jwt"}), Signer::Itself),
    ];
    let mut browser = Browser::of(&api);
    for (claims, head, signer) in wrong {
        let what = format!("{claims} {head} {signer:?}");
        {
            let mut now = provider.now();
            (now.claims, now.head, now.signer) = (claims, head, signer);
        }
        let answer = browser.enter(&provider, ada()).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        kept_out(answer, 401, "sso_failed");
    }
    assert_eq!(users(&api).await, 1, "there is the administrator alone");
    {
        let mut now = provider.now();
        (now.claims, now.head, now.signer) =
            (json!({"aud": [oidc::CLIENT_ID], "azp": oidc::CLIENT_ID}), json!({"typ": "JWT"}), Signer::Itself);
    }
    came_in(&browser.enter(&provider, ada()).await, "/docs");
}

async fn answers_that_are_none_let_nobody_in(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    let bearer = json!({"access_token": "opaque", "token_type": "Bearer"});
    let with = |token: &str| {
        let mut body = bearer.clone();
        body["id_token"] = json!(token);
        body.to_string()
    };
    for (answer, status, code) in [
        ((200, "application/json", bearer.to_string()), 401, "sso_failed"),
        ((200, "application/json", with("a.b.c")), 503, "sso_unavailable"),
        ((200, "application/json", with("")), 503, "sso_unavailable"),
        ((200, "application/json", "{".to_owned()), 503, "sso_unavailable"),
        ((200, "application/json", "[]".to_owned()), 503, "sso_unavailable"),
        ((200, "application/json", String::new()), 503, "sso_unavailable"),
        ((200, "text/html", "<p>hunter2</p>".to_owned()), 503, "sso_unavailable"),
        ((200, "application/json", " ".repeat(2 << 20)), 503, "sso_unavailable"),
        ((500, "text/html", "<p>hunter2</p>".to_owned()), 503, "sso_unavailable"),
        ((503, "text/html", String::new()), 503, "sso_unavailable"),
        (
            (400, "application/json", json!({"error": "invalid_grant", "error_description": "hunter2"}).to_string()),
            401,
            "sso_failed",
        ),
        (
            (401, "application/json", json!({"error": "invalid_client", "error_description": "hunter2"}).to_string()),
            503,
            "sso_unavailable",
        ),
    ] {
        provider.now().answer = Some(answer.clone());
        let told = browser.enter(&provider, ada()).await;
        assert!(!told.text.contains("hunter2") && told.status == status, "{answer:?}: {told:?}");
        kept_out(told, status, code);
    }
    assert_eq!(users(&api).await, 1);
}

async fn a_new_key_is_asked_for_once(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    came_in(&browser.enter(&provider, ada()).await, "/docs");
    came_in(&browser.enter(&provider, ada()).await, "/docs");
    assert_eq!((provider.asked("/keys"), provider.asked("/.well-known/openid-configuration")), (1, 1));
    provider.rotate("second");
    came_in(&browser.enter(&provider, ada()).await, "/docs");
    came_in(&browser.enter(&provider, ada()).await, "/docs");
    assert_eq!(provider.asked("/keys"), 2, "the new key is known now");
    // another key under the same name
    provider.rotate("second");
    came_in(&browser.enter(&provider, ada()).await, "/docs");
    assert_eq!(provider.asked("/keys"), 3);
    // one that it never publishes
    provider.now().head = json!({"kid": "third"});
    kept_out(browser.enter(&provider, ada()).await, 401, "sso_failed");
    assert_eq!(provider.asked("/keys"), 4, "it is asked once for each way back");
    // what is wrong otherwise asks for nothing
    provider.now().head = json!({});
    provider.now().claims = json!({"nonce": "another"});
    kept_out(browser.enter(&provider, ada()).await, 401, "sso_failed");
    assert_eq!(provider.asked("/keys"), 4);
}

/// A place on this machine, and how often it was called.
async fn inside() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn its_documents_lead_nowhere_that_the_guard_refuses(database: TestDatabase) {
    let (listener, place) = inside().await;
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    for (member, places_of_login) in [("token_endpoint", false), ("jwks_uri", true), ("authorization_endpoint", true)] {
        for scheme in ["http", "https"] {
            if (member, scheme) == ("authorization_endpoint", "https") {
                continue; // where people go with their browsers is not where this server goes
            }
            provider.now().document = json!({ member: format!("{scheme}://{place}/x") });
            // each is a process that knows nothing yet
            let facade = api.surrounded_neighbour(at(provider.url(), &[])).await;
            let mut browser = Browser::of(&api);
            let departure = browser.client().at(facade.address).get(LOGIN).await;
            if places_of_login {
                departure.refused(503, "sso_unavailable");
                continue;
            }
            browser.keep(&departure);
            let page = departure.header("location").unwrap().to_owned();
            let way = way_back(&page, &provider.log_in(&page, ada()));
            kept_out(browser.client().at(facade.address).get(&way).await, 503, "sso_unavailable");
        }
    }
    provider.now().document = json!({});
    // nor does a redirect, of whatever it is
    provider.now().redirect = Some(format!("http://{place}/x"));
    let facade = api.surrounded_neighbour(at(provider.url(), &[])).await;
    api.nobody().at(facade.address).get(LOGIN).await.refused(503, "sso_unavailable");
    provider.now().redirect = None;
    let mut browser = Browser::of(&api);
    let page = browser.depart(LOGIN).await;
    let way = way_back(&page, &provider.log_in(&page, ada()));
    provider.now().redirect = Some(format!("http://{place}/x"));
    kept_out(browser.get(&way).await, 503, "sso_unavailable");
    let called = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
    assert!(called.is_err(), "{called:?}");
}

async fn a_provider_that_is_away_is_told_from_one_that_refuses(database: TestDatabase) {
    let provider = Provider::start().await;
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    let mut error = async |error: &str| {
        let page = browser.depart(LOGIN).await;
        let way = way_back(&page, "x").replace("code=x", &format!("error={error}&error_description=hunter2%3Cscript"));
        let answer = browser.get(&way).await;
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        answer
    };
    kept_out(error("access_denied").await, 403, "sso_denied");
    kept_out(error("login_required").await, 403, "sso_denied");
    kept_out(error("temporarily_unavailable").await, 503, "sso_unavailable");
    kept_out(error("invalid_scope").await, 401, "sso_failed");
    kept_out(error("%3Cscript%3E").await, 401, "sso_failed");
    // neither code nor error
    let page = browser.depart(LOGIN).await;
    kept_out(browser.get(&way_back(&page, "x").replace("code=x&", "")).await, 401, "sso_failed");
    // a code that the provider does not know
    let page = browser.depart(LOGIN).await;
    kept_out(browser.get(&way_back(&page, "unknown")).await, 401, "sso_failed");
    let page = browser.depart(LOGIN).await;
    let way = way_back(&page, &provider.log_in(&page, ada()));
    drop(provider);
    kept_out(browser.get(&way).await, 503, "sso_unavailable");
    let (_, nobody) = inside().await;
    let facade = api.surrounded_neighbour(at(&format!("http://{nobody}"), &[])).await;
    api.nobody().at(facade.address).get(LOGIN).await.refused(503, "sso_unavailable");
}

async fn who_answers_must_be_who_was_asked(database: TestDatabase) {
    let provider = Provider::start().await;
    provider.now().document = json!({"authorization_response_iss_parameter_supported": true});
    let api = on(database, &provider, &[]).await;
    let mut browser = Browser::of(&api);
    for iss in [None, Some("https://another.example"), Some("")] {
        let page = browser.depart(LOGIN).await;
        let way = way_back(&page, &provider.log_in(&page, ada()));
        let way = iss.map_or(way.clone(), |iss| format!("{way}&iss={iss}"));
        kept_out(browser.get(&way).await, 401, "sso_failed");
    }
    assert_eq!(provider.asked("/token"), 0, "no code is handed on");
    let page = browser.depart(LOGIN).await;
    let way = way_back(&page, &provider.log_in(&page, ada()));
    came_in(&browser.get(&format!("{way}&iss={}", provider.url())).await, "/docs");
    // a document of somebody else
    provider.now().document = json!({"issuer": "https://another.example"});
    let facade = api.surrounded_neighbour(at(provider.url(), &[])).await;
    api.nobody().at(facade.address).get(LOGIN).await.refused(503, "sso_unavailable");
}

/// By a process as it ships, which logs all that it can.
async fn what_was_denied_is_counted_and_nothing_secret_is_told(database: TestDatabase) {
    let provider = Provider::start().await;
    let settings = [
        ("KEYWRIGHT_OIDC_ISSUER", provider.url()),
        ("KEYWRIGHT_OIDC_CLIENT_ID", oidc::CLIENT_ID),
        ("KEYWRIGHT_OIDC_CLIENT_SECRET", oidc::CLIENT_SECRET),
        ("KEYWRIGHT_OIDC_REDIRECT_URL", oidc::REDIRECT_URL),
        ("KEYWRIGHT_OIDC_ROLES", "staff=viewer"),
        ("KEYWRIGHT_LOG", "trace"),
    ];
    let (mut process, url) = Instance::another_api_with(&database, &settings).await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut secrets = vec![oidc::CLIENT_SECRET.to_owned(), "a+secret%3A+of%2Fthe+client%2B".to_owned()];
    for (groups, status) in [("other", 403), ("staff", 200)] {
        let departure = client.get(format!("{url}{LOGIN}")).send().await.unwrap();
        assert_eq!(departure.status(), 302);
        let cookie = departure.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("__Host-keywright-sso-"), "{cookie}");
        let page = departure.headers()["location"].to_str().unwrap().to_owned();
        let code = provider.log_in(&page, json!({"sub": "ada-1", "groups": groups}));
        let way = format!("{url}{}", way_back(&page, &code));
        let arrival = client.get(way).header("Cookie", &cookie).send().await.unwrap();
        assert_eq!(arrival.status(), status);
        for cookie in arrival.headers().get_all("set-cookie") {
            let value = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap().1;
            secrets.push(value.to_owned());
        }
        secrets.extend([cookie.split_once('=').unwrap().1.to_owned(), oidc::query(&page)["state"].clone()]);
        secrets.push(oidc::query(&page)["nonce"].clone());
    }
    client.get(format!("{url}/api/auth/sso/callback?code=x&state=y")).send().await.unwrap();
    process.signal(keywright_tests::process::Signal::Term);
    keywright_tests::app::eventually("the process ends", async || process.has_ended().then_some(())).await;
    let log = process.log();
    assert!(log.contains("sso"), "{log}");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log");
    }
    let rows = audit(&database).await;
    let counted = |code: &str| {
        let of = rows.iter().filter(|event| event.event_type == "auth.login_failed" && event.details["code"] == code);
        of.map(|event| event.details["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((counted("sso_denied"), counted("sso_state_invalid")), (1, 1));
}

async fn audit(database: &TestDatabase) -> Vec<keywright_entities::audit_outbox::Model> {
    keywright_entities::audit_outbox::Entity::find().all(database.database.reader()).await.unwrap()
}
