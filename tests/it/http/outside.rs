//! What a restricted caller may not see cannot be told from what does not exist: not by the answer, and not by the work behind it.
//! Which operations take ids is read from the document.

use super::restricted::{Two, ada, rows, two};
use keywright_entities::{
    types::{ActorType, Role, ScanMode},
    user_account,
};
use keywright_jobs::{
    approvals::{self, Ask},
    domain::permissions::Permission,
    queue::Requester,
};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Api, Client, Identified, SCAN, column},
    on_both_databases,
    rotating::{ENTRY, put_asset},
};
use keywright_worker::providers::memory::{secret, secrets_in};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

on_both_databases!(
    a_path_with_an_id_outside_is_one_of_nothing,
    a_query_with_an_id_outside_is_one_of_nothing,
    a_body_with_an_id_outside_is_one_of_nothing,
);

/// An id of nothing.
const NEVER: &str = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
/// What a request does now and then, whatever it asks for.
const NOW_AND_THEN: &[(&str, &str)] = &[
    ("FROM \"settings\"", "read at most once a second"),
    ("\"last_used_at\" = ", "noted at most once a minute"),
    ("SAVEPOINT", "when others write at the same time"),
    ("RELEASE", "the same"),
];

/// Things that there are, by what a path or a parameter calls them.
struct Things {
    inside: String,
    by_path: Vec<(&'static str, Vec<String>)>,
    by_parameter: Vec<(&'static str, String)>,
}

async fn things(api: &Api) -> Things {
    let worker = api.app.worker(WorkerSettings::default()).await;
    let Two { inside, outside, .. } = two(api).await;
    for account in ["inside", "outside"] {
        let scope = secrets_in("eu-central-1");
        api.app.cloud.put(account, &scope, secret(&scope, account));
    }
    let both = api.scan(json!({})).await.id();
    let other = api.scan(json!({"subscriptions": [outside], "onConflict": "queue"})).await.id();
    let part = rows(&api.admin(), &format!("/api/jobs?parentId={other}")).await[0].id();
    let test = api.operator().post(&format!("/api/subscriptions/{outside}/test"), Value::Null).await.under_way().id();
    api.ended(&test).await;
    let verification = api.session().post("/api/audit/verify", Value::Null).await.under_way().id();
    let package = api.session().post("/api/evidence", json!({})).await.under_way().id();
    let secret = put_asset(api.app.database(), outside.parse().unwrap(), ENTRY).await;
    api.app.cloud.put_entry(ENTRY, "before", false);
    let plan = api.operator().post("/api/rotation/plan", json!({"asset": secret})).await.under_way().id();
    for job in [&verification, &package, &plan] {
        assert_eq!(api.ended(job).await["state"], "succeeded");
    }
    let hash = api.operator().get(&format!("/api/rotation/plans/{plan}")).await.ok(200)["planHash"].clone();
    let rotation = api.operator().post("/api/rotation/rotate", json!({"planHash": hash})).await.under_way().id();
    worker.stop().await;
    let asset = rows(&api.admin(), &format!("{ASSETS}?subscription={outside}")).await[0].id();
    let schedule =
        json!({"name": "out", "cron": "0 0 * * *", "kind": "discovery.scan", "body": {"subscriptions": [outside]}});
    let schedule = api.admin().post("/api/schedules", schedule).await.ok(201).id();
    let token = rows(&api.admin(), "/api/tokens").await[0].id();
    let session = rows(&api.session(), "/api/auth/sessions").await[0].id();
    let user = user_account::by_name(api.app.database().reader(), "admin").await.unwrap().unwrap().id.to_string();
    let approval = approval(api, &outside).await;
    let scans = vec![both.clone(), other.clone()];
    Things {
        by_path: vec![
            ("/api/approvals/", vec![approval]),
            ("/api/assets/discovery/assets/", vec![asset]),
            ("/api/assets/discovery/scan/", scans.clone()),
            ("/api/assets/discovery/scans/", scans),
            ("/api/audit/verifications/", vec![verification]),
            ("/api/auth/sessions/", vec![session]),
            ("/api/evidence/", vec![package]),
            ("/api/jobs/", vec![both, other.clone(), part, test]),
            ("/api/rotation/plans/", vec![plan]),
            // of no subscription
            ("/api/rotation/policies/", vec![]),
            ("/api/rotation/rotations/", vec![rotation]),
            ("/api/schedules/", vec![schedule]),
            ("/api/subscriptions/", vec![outside.clone()]),
            ("/api/tokens/", vec![token]),
            ("/api/users/", vec![user.clone()]),
        ],
        by_parameter: vec![
            ("asset", secret.to_string()),
            ("job", other.clone()),
            ("parentId", other.clone()),
            ("seenBy", other),
            ("subscription", outside),
            ("user", user),
        ],
        inside,
    }
}

/// Something about this subscription that waits for approval.
async fn approval(api: &Api, subscription: &str) -> String {
    let requester = Requester {
        actor: ActorType::User,
        id: Some(NEVER.to_owned()),
        name: Some("somebody".to_owned()),
        request_id: None,
        traceparent: None,
    };
    let ask = Ask {
        action: "test.outside",
        subject: ("subscription", Some(subscription.to_owned())),
        plan_hash: "0".repeat(64),
        plan: json!({"mode": ScanMode::Full.as_str()}),
        subscription: Some(subscription.parse().unwrap()),
        job: None,
    };
    let write = api.app.database().begin().await.unwrap();
    let row = approvals::request(&write, ask, &requester, None).await.unwrap();
    write.commit().await.unwrap();
    row.id.to_string()
}

/// All that can be seen of an answer, and all that was asked for it, with `id` taken out.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
    asked: Vec<String>,
}

async fn seen(api: &Api, client: &Client<'_>, method: &Method, path: &str, body: Option<&Value>, id: &str) -> Seen {
    let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
    api.statements.take();
    let answer = client.send(method.clone(), path, body).await;
    let request = answer.header("x-request-id").unwrap().to_owned();
    let asked = api.statements.take_of(&request).into_iter();
    let asked = asked.filter(|text| NOW_AND_THEN.iter().all(|(part, _)| !text.contains(part)));
    let asked: Vec<String> = asked.map(|text| timeless(&text.replace(id, "{id}"))).collect();
    assert!(!asked.is_empty(), "{path}: at least the credential is looked up");
    let differ = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !differ.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let text = answer.text.replace(id, "{id}").replace(&request, "{request}");
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    Seen { status: answer.status, headers, body, asked }
}

/// A statement without the instants in it.
fn timeless(text: &str) -> String {
    let is_instant = |value: &str| {
        value.len() > 18
            && value.starts_with("20")
            && value.chars().all(|one| one.is_ascii_digit() || "-: +.".contains(one))
    };
    let values = text.split('\'').map(|value| if is_instant(value) { "{instant}" } else { value });
    values.collect::<Vec<_>>().join("'")
}

/// The operations of the document: method, path, the operation itself.
async fn operations(api: &Api) -> Vec<(Method, String, Value)> {
    let document = api.nobody().get("/openapi.json").await.ok(200);
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            all.push((method, path.clone(), operation.clone()));
        }
    }
    all
}

/// The parameters in this place whose value is an id.
fn ids<'a>(operation: &'a Value, place: &str) -> Vec<&'a str> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let ids = parameters.filter(|parameter| {
        let schema = &parameter["schema"];
        parameter["in"] == place && [schema, &schema["items"]].iter().any(|schema| schema["format"] == "uuid")
    });
    ids.map(|parameter| parameter["name"].as_str().unwrap()).collect()
}

/// What makes an operation do more than it must, as far as it takes it.
fn more(operation: &Value, now: &str) -> String {
    let named = |name: &str| {
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["name"] == name)
    };
    let wanted = [("asOf", now), ("includeTotal", "true"), ("limit", "1"), ("wait", "1")];
    let query: Vec<String> =
        wanted.iter().filter(|(name, _)| named(name)).map(|(name, value)| format!("{name}={value}")).collect();
    query.join("&")
}

async fn a_path_with_an_id_outside_is_one_of_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let things = things(&api).await;
    let ada = ada(&api).await.with("If-Match", "*").with("Prefer", "wait=1");
    let now = api.now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let mut compared = 0;
    for (method, pattern, operation) in operations(&api).await {
        if ids(&operation, "path").is_empty() {
            assert!(!pattern.contains('{'), "{pattern} is known by something else than an id: look at it here");
            continue;
        }
        let there = things
            .by_path
            .iter()
            .find(|(path, _)| pattern.strip_prefix(path).is_some_and(|rest| rest.starts_with("{id}")));
        let (_, there) = there.unwrap_or_else(|| panic!("name here something outside for {pattern}"));
        let body = match operation["operationId"].as_str().unwrap() {
            "retryJob" => Some(json!({"scope": "all"})),
            "resolveRotation" => Some(json!({"action": "abandon", "reason": "none"})),
            _ => operation.get("requestBody").map(|_| json!({})),
        };
        for query in ["", &more(&operation, &now)] {
            let path = |id: &str| format!("{}?{query}", pattern.replace("{id}", id));
            let nothing = seen(&api, &ada, &method, &path(NEVER), body.as_ref(), NEVER).await;
            let needed = operation["x-required-permission"].as_str().and_then(Permission::parse).unwrap();
            let may = needed.is_of(Role::Operator);
            assert_eq!(nothing.status, if may { 404 } else { 403 }, "{method} {pattern}: {nothing:?}");
            for id in there {
                let outside = seen(&api, &ada, &method, &path(id), body.as_ref(), id).await;
                assert_eq!(outside, nothing, "{method} {pattern}");
                compared += 1;
                if method == Method::GET {
                    let shown = api.session().get(&path(id)).await;
                    assert!(shown.status < 300, "{pattern}: it is there for others: {}", shown.text);
                }
            }
        }
    }
    assert!(compared > 60, "{compared}");
}

async fn a_query_with_an_id_outside_is_one_of_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let things = things(&api).await;
    let ada = ada(&api).await;
    // the first stream of a process does what the next ones find done
    let mut first = api.viewer().with("Last-Event-ID", "0").follow("/api/events").await;
    first.until("state").await;
    let mut compared = 0;
    for (method, path, operation) in operations(&api).await {
        for name in ids(&operation, "query") {
            let there = things.by_parameter.iter().find(|(parameter, _)| *parameter == name);
            let (_, there) = there.unwrap_or_else(|| panic!("name here something outside for {name} of {path}"));
            let query = |id: &str| format!("{path}?{name}={id}");
            let nothing = seen(&api, &ada, &method, &query(NEVER), None, NEVER).await;
            assert!([200, 403].contains(&nothing.status), "{method} {path}?{name}: {nothing:?}");
            assert_eq!(seen(&api, &ada, &method, &query(there), None, there).await, nothing, "{method} {path}?{name}");
            compared += 1;
        }
    }
    assert!(compared > 8, "{compared}");
}

async fn a_body_with_an_id_outside_is_one_of_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let things = things(&api).await;
    let (_, outside) = things.by_parameter.iter().find(|(parameter, _)| *parameter == "subscription").unwrap();
    let ada = ada(&api).await;
    let schedule = |body: Value| json!({"name": "x", "cron": "0 0 * * *", "kind": "discovery.scan", "body": body});
    let own = ada.post("/api/schedules", schedule(json!({"subscriptions": [things.inside]}))).await.ok(201).id();
    let (post, patch) = (Method::POST, Method::PATCH);
    let of = |id: &str| {
        let some = json!({"subscriptions": [things.inside, id]});
        [
            (&post, SCAN.to_owned(), some.clone()),
            (&post, "/api/schedules".to_owned(), schedule(some.clone())),
            (&patch, format!("/api/schedules/{own}"), json!({"body": some.clone()})),
            (
                &post,
                "/api/tokens".to_owned(),
                json!({"name": "x", "role": "viewer", "subscriptions": some["subscriptions"]}),
            ),
        ]
    };
    for ((method, path, there), (_, _, never)) in of(outside).into_iter().zip(of(NEVER)) {
        let nothing = seen(&api, &ada, method, &path, Some(&never), NEVER).await;
        assert_eq!((nothing.status, &nothing.body["code"]), (400, &json!("validation_failed")), "{path}: {nothing:?}");
        assert_eq!(nothing.body["errors"].as_array().map(Vec::len), Some(1), "{path}: {nothing:?}");
        assert_eq!(seen(&api, &ada, method, &path, Some(&there), outside).await, nothing, "{path}");
    }
    assert_eq!(column(&rows(&ada, "/api/schedules").await, "id"), [own], "nothing was made");
}
