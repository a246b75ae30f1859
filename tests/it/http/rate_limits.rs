//! How often one may ask: over one process and several, with the headers that tell of it.

use futures::future::join_all;
use keywright_api::{client_address::TrustedProxies, limits::Rule, service::Surroundings};
use keywright_entities::{clock, rate_limit};
use keywright_tests::{
    database::TestDatabase,
    http::{ADMIN_PASSWORD, Answer, Api, Client, LOOPBACK, SCAN},
    instance::Instance,
    on_both_databases,
};
use reqwest::Method;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait, PaginatorTrait};
use serde_json::json;
use std::time::Duration;

on_both_databases!(
    every_answer_has_the_headers,
    a_burst_is_let_through_up_to_the_limit,
    retry_after_leads_to_success,
    two_facades_share_one_limit,
    two_processes_share_one_limit,
    a_facade_that_is_gone_takes_its_budget_and_no_more,
    what_was_not_modified_is_given_back,
    principals_addresses_and_logins_are_counted_apart,
    clients_behind_a_proxy_are_told_apart,
    few_requests_write_no_row_and_old_rows_go,
    another_limit_counts_from_then_on,
    without_the_table_reads_go_on_and_logins_do_not,
);

fn limited(limits: Vec<Rule>) -> Surroundings {
    Surroundings { limits, ..Surroundings::default() }
}

fn per_hour(limit: u32) -> Surroundings {
    limited(vec![Rule::per_hour(limit)])
}

async fn on(database: TestDatabase, surroundings: Surroundings) -> Api {
    Api::surrounded(database, LOOPBACK, surroundings).await
}

/// Limit, remaining and seconds, after all headers were seen to agree.
#[track_caller]
fn headers(answer: &Answer) -> (u32, u32, u32) {
    let number = |name: &str| answer.header(name).and_then(|value| value.parse::<u32>().ok());
    let (limit, remaining) = (number("x-ratelimit-limit").unwrap(), number("x-ratelimit-remaining").unwrap());
    let field = answer.header("ratelimit").unwrap();
    let (name, parameters) = field.split_once(';').unwrap();
    let parameters: Vec<u32> =
        parameters.split(';').map(|part| part.split_once('=').unwrap().1.parse().unwrap()).collect();
    let [left, seconds] = parameters[..] else { panic!("{field}") };
    assert_eq!(left, remaining, "{field}");
    let policy = answer.header("ratelimit-policy").unwrap();
    assert!(policy.contains(&format!("{name};q={limit};w=")), "{policy} has no {name} of {limit}");
    assert!(remaining <= limit && (1..=3600).contains(&seconds), "{field}");
    assert!(number("x-ratelimit-reset").unwrap() > 1_700_000_000);
    (limit, remaining, seconds)
}

/// How many of so many requests at once are let through.
async fn let_through(client: &Client<'_>, requests: usize) -> usize {
    let answers = join_all((0..requests).map(|_| client.get("/api/jobs?limit=1"))).await;
    for answer in &answers {
        let (_, remaining, _) = headers(answer);
        assert!(answer.status == 200 || (answer.status, remaining) == (429, 0), "{answer:?}");
    }
    answers.iter().filter(|answer| answer.status == 200).count()
}

async fn every_answer_has_the_headers(database: TestDatabase) {
    let api = on(database, limited(vec![Rule::per_minute(60), Rule::per_hour(1000)])).await;
    let (viewer, operator) = (api.viewer(), api.operator());
    let form = || Some(("application/x-www-form-urlencoded", b"x=1".to_vec()));
    let answers = [
        (200, viewer.get("/api/auth/me").await),
        (400, viewer.get("/api/jobs?colour=red").await),
        (404, viewer.get("/api/jobs/0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99").await),
        (404, viewer.get("/api/nothing").await),
        (405, viewer.send(Method::PUT, "/api/jobs", None).await),
        (403, viewer.post(SCAN, json!({})).await),
        (400, operator.post(SCAN, json!({"x": 1})).await),
        (415, operator.send(Method::POST, SCAN, form()).await),
        (413, operator.post(SCAN, json!({"mode": "x".repeat(1 << 20)})).await),
        (401, api.nobody().get("/api/jobs").await),
        (401, api.bearing("kw_wrong").get("/api/jobs").await),
        (404, api.nobody().get("/api/nothing").await),
        (200, api.nobody().get("/api/auth/jwks.json").await),
        (401, api.nobody().post("/api/auth/login", json!({"username": "admin", "password": "x"})).await),
        (400, api.nobody().post("/api/auth/login", json!({})).await),
    ];
    for (status, answer) in &answers {
        assert_eq!(answer.status, *status, "{answer:?}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"minute\";q=60;w=60, \"hour\";q=1000;w=3600"));
        headers(answer);
    }
    let remaining: Vec<u32> = answers[..6].iter().map(|(_, answer)| headers(answer).1).collect();
    assert_eq!(remaining, [59, 58, 57, 56, 55, 54], "each counts once, whatever it is answered");
    for path in ["/health", "/ready", "/docs", "/openapi.json", "/nothing"] {
        assert_eq!(viewer.get(path).await.header("ratelimit"), None, "{path}");
    }
}

async fn a_burst_is_let_through_up_to_the_limit(database: TestDatabase) {
    let api = on(database, limited(vec![Rule::per_minute(60), Rule::per_hour(100)])).await;
    assert_eq!(let_through(&api.viewer(), 200).await, 60);
    let refused = api.viewer().get("/api/jobs").await;
    let (_, _, seconds) = headers(&refused);
    let retry_after: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(retry_after.abs_diff(seconds) <= 1, "{refused:?}");
    refused.refused(429, "rate_limited");
    let rows = rate_limit::Entity::find().all(api.app.database().reader()).await.unwrap();
    let drawn = |seconds| rows.iter().filter(|row| row.bucket.ends_with(seconds)).map(|row| row.drawn).max();
    assert_eq!(drawn("/60"), Some(60), "{rows:?}");
    assert!(drawn("/3600").is_some_and(|drawn| (60..=65).contains(&drawn)), "{rows:?}");
}

async fn retry_after_leads_to_success(database: TestDatabase) {
    let rule = Rule { name: "minute", limit: 20, span: Duration::from_secs(3) };
    let api = on(database, limited(vec![rule])).await;
    let neighbour = api.surrounded_neighbour(limited(vec![rule])).await;
    let (here, there) = (api.viewer(), api.viewer().at(neighbour.address));
    for _ in 0..2 {
        let_through(&here, 20).await;
        let_through(&there, 20).await;
        let refused = here.get("/api/jobs").await;
        let wait = refused.header("retry-after").unwrap().parse().unwrap();
        refused.refused(429, "rate_limited");
        assert!(wait <= 3);
        // what the client was asked to do
        tokio::time::sleep(Duration::from_secs(wait)).await;
        there.get("/api/jobs").await.ok(200);
        here.get("/api/jobs").await.ok(200);
    }
}

async fn two_facades_share_one_limit(database: TestDatabase) {
    let api = on(database, per_hour(60)).await;
    let neighbour = api.surrounded_neighbour(per_hour(60)).await;
    let (here, there) = (api.viewer(), api.viewer().at(neighbour.address));
    let (one, other) = tokio::join!(let_through(&here, 200), let_through(&there, 200));
    assert_eq!(one + other, 60);
    // strangers are let in before the database is asked, by each process up to its budget
    let (here, there) = (api.nobody(), api.nobody().at(neighbour.address));
    let keys = async |client: &Client<'_>| {
        let answers = join_all((0..100).map(|_| client.get("/api/auth/jwks.json"))).await;
        answers.iter().filter(|answer| answer.status == 200).count()
    };
    let total = keys(&here).await + keys(&there).await;
    assert!((60..=63).contains(&total), "{total}");
}

/// As real processes, used by turns.
async fn two_processes_share_one_limit(database: TestDatabase) {
    let settings = [("KEYWRIGHT_RATE_LIMIT_PER_MINUTE", "0"), ("KEYWRIGHT_RATE_LIMIT_PER_HOUR", "40")];
    let (_one, first) = Instance::another_api_with(&database, &settings).await;
    let (_two, second) = Instance::another_api_with(&database, &settings).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let session = client.post(format!("{first}/api/auth/login")).json(&login).send().await.unwrap();
    let session: serde_json::Value = session.json().await.unwrap();
    let token = session["access_token"].as_str().unwrap();
    let mut ok = 0;
    for number in 0..100 {
        let url = if number % 3 == 0 { &first } else { &second };
        let answer = client.get(format!("{url}/api/auth/me")).bearer_auth(token).send().await.unwrap();
        assert!(answer.headers().contains_key("ratelimit") && answer.headers().contains_key("x-ratelimit-reset"));
        match answer.status().as_u16() {
            200 => ok += 1,
            status => assert_eq!((status, answer.headers().contains_key("retry-after")), (429, true)),
        }
    }
    assert!((36..=40).contains(&ok), "{ok} of 40");
}

async fn a_facade_that_is_gone_takes_its_budget_and_no_more(database: TestDatabase) {
    let api = on(database, per_hour(100)).await;
    let neighbour = api.surrounded_neighbour(per_hour(100)).await;
    api.viewer().at(neighbour.address).get("/api/jobs").await.ok(200);
    drop(neighbour);
    let rest = let_through(&api.viewer(), 150).await;
    assert!((95..=99).contains(&rest), "{rest}");
}

async fn what_was_not_modified_is_given_back(database: TestDatabase) {
    let api = on(database, per_hour(10)).await;
    let id = api.subscribe("one").await;
    let path = format!("/api/subscriptions/{id}");
    let (_, before, _) = headers(&api.viewer().get(&path).await);
    for _ in 0..30 {
        let same = api.viewer().with("If-None-Match", "\"1\"").get(&path).await;
        assert_eq!((same.status, headers(&same).1), (304, before));
    }
    let (_, after, _) = headers(&api.viewer().get(&path).await);
    assert_eq!(after, before - 1);
    for _ in 0..after {
        api.viewer().get(&path).await.ok(200);
    }
    // the limit is used up for good only by what is not given back
    api.viewer().with("If-None-Match", "\"1\"").get(&path).await.refused(429, "rate_limited");
}

async fn principals_addresses_and_logins_are_counted_apart(database: TestDatabase) {
    let api = on(database, per_hour(20)).await;
    // wrong passwords are slowed down by another rule, before this one
    let logins = join_all((0..25).map(|_| async { api.nobody().post("/api/auth/login", json!({})).await })).await;
    let tried = logins.iter().filter(|answer| answer.status == 400).count();
    assert_eq!(tried, 19, "one was used by the administrator");
    assert!(logins.iter().all(|answer| matches!(answer.status, 400 | 429)));
    for _ in 0..20 {
        api.nobody().get("/api/jobs").await.refused(401, "token_missing");
    }
    api.nobody().get("/api/jobs").await.refused(429, "rate_limited");
    api.bearing("kw_wrong").get("/api/jobs").await.refused(429, "rate_limited");
    assert_eq!(let_through(&api.viewer(), 30).await, 20);
    assert_eq!(let_through(&api.operator(), 30).await, 20);
    let made = api.session().post("/api/tokens", json!({"name": "more", "role": "viewer"})).await;
    assert_eq!(headers(&made).1, 15, "a session counts by its user: four tokens were made before");
    assert_eq!(let_through(&api.bearing(made.ok(201)["token"].as_str().unwrap()), 30).await, 20);
}

async fn clients_behind_a_proxy_are_told_apart(database: TestDatabase) {
    let proxies = TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]);
    let api = on(database, Surroundings { proxies, ..per_hour(20) }).await;
    let from = |address: &str| api.nobody().with("X-Forwarded-For", address);
    for address in ["198.51.100.1", "6.6.6.6, 198.51.100.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        for _ in 0..20 {
            from(address).get("/api/auth/jwks.json").await.ok(200);
        }
        from(address).get("/api/auth/jwks.json").await.refused(429, "rate_limited");
    }
    from("7.7.7.7, 198.51.100.2").get("/api/auth/jwks.json").await.refused(429, "rate_limited");
    from("2001:db8:0:2::ffff").get("/api/auth/jwks.json").await.refused(429, "rate_limited");
    from("198.51.100.3").get("/api/auth/jwks.json").await.ok(200);
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let session = from("198.51.100.4").post("/api/auth/login", login).await.ok(200);
    let session = api.bearing(session["access_token"].as_str().unwrap());
    let sessions = session.get("/api/auth/sessions").await.ok(200);
    assert_eq!(sessions["data"][0]["address"], "198.51.100.4");
    // one that the operator does not know is not believed
    let neighbour = api.surrounded_neighbour(per_hour(20)).await;
    for address in 0..30 {
        let answer = from(&format!("203.0.113.{address}")).at(neighbour.address).get("/api/auth/jwks.json").await;
        assert_eq!(answer.status, if address < 20 { 200 } else { 429 });
    }
}

async fn few_requests_write_no_row_and_old_rows_go(database: TestDatabase) {
    let proxies = TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]);
    let api = on(database, Surroundings { proxies, ..per_hour(60) }).await;
    let db = api.app.database().reader();
    let before = rate_limit::Entity::find().count(db).await.unwrap();
    for address in 0..300 {
        let from = format!("10.1.{}.{}", address / 250, address % 250);
        let answer = api.nobody().with("X-Forwarded-For", from).get("/api/jobs").await;
        assert_eq!((answer.status, headers(&answer).1), (401, 59));
    }
    assert_eq!(rate_limit::Entity::find().count(db).await.unwrap(), before);
    let now = clock::now(db).await.unwrap();
    for number in 0..600 {
        let ends_at = Set(now - chrono::TimeDelta::seconds(number - 5));
        let bucket = Set(format!("address:10.2.0.{number}/60"));
        let row = rate_limit::ActiveModel { bucket, ends_at, drawn: Set(1), granted: Set(1) };
        row.insert(db).await.unwrap();
    }
    let mut gone = 0;
    loop {
        let removed = rate_limit::prune(db, 500).await.unwrap();
        gone += removed;
        if removed < 500 {
            break;
        }
    }
    assert!((594..600).contains(&gone), "{gone}");
}

async fn another_limit_counts_from_then_on(database: TestDatabase) {
    let api = on(database, per_hour(20)).await;
    assert_eq!(let_through(&api.viewer(), 30).await, 20);
    let more = api.surrounded_neighbour(per_hour(50)).await;
    assert_eq!(let_through(&api.viewer().at(more.address), 60).await, 30);
    let less = api.surrounded_neighbour(per_hour(5)).await;
    assert_eq!(let_through(&api.viewer().at(less.address), 10).await, 0);
    let none = api.surrounded_neighbour(Surroundings::default()).await;
    let answer = api.viewer().at(none.address).get("/api/jobs").await;
    assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
}

/// As when the database does not take it.
async fn without_the_table_reads_go_on_and_logins_do_not(database: TestDatabase) {
    use sea_orm::ConnectionTrait;
    let api = on(database, per_hour(20)).await;
    api.app.database().reader().execute_unprepared("DROP TABLE rate_limit").await.unwrap();
    for _ in 0..30 {
        let answer = api.operator().get("/api/jobs").await;
        headers(&answer);
        answer.ok(200);
        headers(&api.nobody().get("/api/auth/jwks.json").await);
    }
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    // the one that was drawn for the administrator is still there to be spent, or not
    let answers = join_all((0..3).map(|_| async { api.nobody().post("/api/auth/login", login.clone()).await })).await;
    let refused = answers.into_iter().next_back().unwrap();
    headers(&refused);
    refused.refused(503, "database_unavailable");
}
