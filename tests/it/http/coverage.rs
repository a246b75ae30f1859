//! What is looked at, what is not, and why.

use keywright_entities::job;
use keywright_jobs::provider::ProviderError;
use keywright_tests::{
    app::{WorkerSettings, eventually},
    database::TestDatabase,
    http::{Api, Client, Identified, SCAN, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{Operation, secret, secrets_in};
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use std::time::Duration;

on_both_databases!(
    a_scope_is_never_scanned_then_scanned_and_outlives_its_jobs,
    why_a_scope_was_not_read_is_told,
    what_is_no_longer_looked_at_is_stale_or_disabled,
    a_throttled_scope_is_seen_while_it_waits,
    filters_pages_and_restrictions,
);

const COVERAGE: &str = "/api/assets/discovery/coverage";

async fn rows(client: &Client<'_>, query: &str) -> Vec<Value> {
    client.get(&format!("{COVERAGE}?sort=region,kind&{query}")).await.ok(200)["data"].as_array().unwrap().clone()
}

/// Region and state of each scope.
async fn states(api: &Api) -> Vec<(String, String)> {
    let rows = rows(&api.viewer(), "").await;
    column(&rows, "region").into_iter().zip(column(&rows, "state")).collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(region, state)| (region.to_owned(), state.to_owned())).to_vec()
}

async fn a_scope_is_never_scanned_then_scanned_and_outlives_its_jobs(database: TestDatabase) {
    let api = Api::on(database).await;
    let one = api.subscribe("one").await;
    let new = rows(&api.viewer(), "").await;
    assert_eq!(new.len(), 1);
    for (member, expected) in [
        ("subscription", json!(one)),
        ("provider", json!("aws")),
        ("region", json!("*")),
        ("kind", json!("*")),
        ("state", json!("never")),
        ("scannedAt", Value::Null),
        ("scan", Value::Null),
        ("attemptedAt", Value::Null),
        ("reason", Value::Null),
    ] {
        assert_eq!(new[0][member], expected, "{member}");
    }
    let north = secrets_in("north");
    let mut expired = secret(&north, "old");
    expired.expires_at = Some("1969-12-31T23:59:59Z".parse().unwrap());
    api.app.cloud.put("one", &north, expired);
    api.app.cloud.put("one", &north, secret(&north, "plain"));
    api.app.cloud.scope("one", &secrets_in("south"));
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let first = api.scan(json!({})).await;
    let second = api.scan(json!({})).await;
    let known = rows(&api.viewer(), "").await;
    assert_eq!(states(&api).await, pairs([("north", "scanned"), ("south", "scanned")]));
    let counts = |total: u32, expired: u32, unknown: u32| json!({"total": total, "healthy": 0, "warning": 0, "critical": 0, "expired": expired, "unknown": unknown});
    assert_eq!((&known[0]["counts"], &known[1]["counts"]), (&counts(2, 1, 1), &counts(0, 0, 0)));
    for row in &known {
        assert_eq!((&row["scan"], &row["attemptedBy"]), (&second["id"], &second["id"]));
        assert_eq!((&row["scannedAt"], &row["kind"]), (&row["attemptedAt"], &json!("memory.secret")));
        assert!(row["scannedAt"].as_str() > first["completedAt"].as_str(), "{row}");
    }
    job::Entity::delete_many().exec(api.app.another().await.reader()).await.unwrap();
    assert_eq!(rows(&api.viewer(), "").await, known);
}

async fn why_a_scope_was_not_read_is_told(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    for region in ["denied", "fails", "fine"] {
        api.app.cloud.put("one", &secrets_in(region), secret(&secrets_in(region), "a"));
    }
    api.subscribe("one").await;
    let first = api.scan(json!({})).await;
    api.app.cloud.deny("memory:ListSecrets", |call| call.lists("denied"));
    let rejected = ProviderError::Rejected { code: "odd".to_owned(), detail: "it does not like it".to_owned() };
    api.app.cloud.fail(None, rejected, |call| call.lists("fails"));
    let second = api.scan(json!({})).await;
    let known = rows(&api.viewer(), "").await;
    assert_eq!(states(&api).await, pairs([("denied", "denied"), ("fails", "failed"), ("fine", "scanned")]));
    assert_eq!(known[0]["reason"]["code"], "permission_denied");
    assert_eq!(known[0]["reason"]["requiredPermission"], "memory:ListSecrets");
    assert_eq!((&known[1]["reason"]["code"], &known[1]["reason"]["requiredPermission"]), (&json!("odd"), &Value::Null));
    assert_eq!(known[2]["reason"], Value::Null);
    for row in &known[..2] {
        assert_eq!((&row["scan"], &row["attemptedBy"]), (&first["id"], &second["id"]), "what was read before is known");
        assert_eq!(row["counts"]["total"], 1, "nothing was removed");
    }
    // nobody tells the scopes: that is one more, and what is known of the others stays
    api.app.cloud.heal();
    api.app.cloud.deny("memory:Scopes", |call| call.operation == Operation::Scopes);
    api.scan(json!({})).await;
    let mut expected = pairs([("*", "denied"), ("denied", "denied"), ("fails", "failed"), ("fine", "scanned")]);
    assert_eq!(states(&api).await, expected);
    api.app.cloud.heal();
    api.scan(json!({})).await;
    expected = pairs([("denied", "scanned"), ("fails", "scanned"), ("fine", "scanned")]);
    assert_eq!(states(&api).await, expected);
    assert!(rows(&api.viewer(), "").await.iter().all(|row| row["reason"].is_null()));
}

async fn what_is_no_longer_looked_at_is_stale_or_disabled(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    for region in ["kept", "lost", "out"] {
        api.app.cloud.put("one", &secrets_in(region), secret(&secrets_in(region), "a"));
    }
    let one = api.subscribe("one").await;
    api.scan(json!({})).await;
    api.app.cloud.drop_scope("one", &secrets_in("lost"));
    api.scan(json!({})).await;
    assert_eq!(states(&api).await, pairs([("kept", "scanned"), ("lost", "stale"), ("out", "scanned")]));
    let path = format!("/api/subscriptions/{one}");
    // at once, without a scan
    api.admin().patch(&path, json!({"regions": ["kept", "lost"]})).await.ok(200);
    assert_eq!(states(&api).await, pairs([("kept", "scanned"), ("lost", "stale"), ("out", "stale")]));
    assert_eq!(rows(&api.viewer(), "state=stale").await[0]["counts"]["total"], 1);
    api.app.cloud.put("one", &secrets_in("lost"), secret(&secrets_in("lost"), "a"));
    api.scan(json!({})).await;
    assert_eq!(states(&api).await[1], ("lost".to_owned(), "scanned".to_owned()), "it is back");
    api.admin().patch(&path, json!({"enabled": false})).await.ok(200);
    assert_eq!(column(&rows(&api.viewer(), "").await, "state"), ["disabled"; 3]);
    assert_eq!(rows(&api.viewer(), "state=disabled").await.len(), 3);
    assert_eq!(rows(&api.viewer(), "state=stale,scanned").await.len(), 0);
    api.admin().with("If-Match", "*").delete(&path).await.ok(204);
    assert_eq!(rows(&api.viewer(), "").await, [Value::Null; 0]);
}

async fn a_throttled_scope_is_seen_while_it_waits(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    for region in ["busy", "calm"] {
        api.app.cloud.put("one", &secrets_in(region), secret(&secrets_in(region), "a"));
    }
    api.subscribe("one").await;
    api.app.cloud.throttle(u32::MAX, Duration::from_secs(600), |call| call.lists("busy"));
    let job = api.operator().post(SCAN, json!({})).await.under_way();
    let throttled = pairs([("busy", "throttled"), ("calm", "scanned")]);
    eventually("it waits", async || {
        let parts = api.viewer().get(&format!("/api/jobs?parentId={}&state=waiting", job.id())).await.ok(200);
        parts["data"].as_array().is_some_and(|parts| !parts.is_empty()).then_some(())
    })
    .await;
    eventually("the other is read", async || (states(&api).await[1].1 == "scanned").then_some(())).await;
    assert_eq!(states(&api).await, throttled);
    assert_eq!(rows(&api.viewer(), "state=throttled").await.len(), 1);
    api.operator().post(&format!("/api/jobs/{}/cancel", job.id()), json!({})).await.ok(202);
    api.ended(&job.id()).await;
    assert_eq!(states(&api).await, pairs([("busy", "never"), ("calm", "scanned")]), "nobody waits any more");
}

async fn filters_pages_and_restrictions(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    for (account, region) in [("one", "a"), ("one", "b"), ("two", "b")] {
        api.app.cloud.put(account, &secrets_in(region), secret(&secrets_in(region), "a"));
    }
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    api.scan(json!({"subscriptions": [one]})).await;
    for (query, expected) in [
        (String::new(), 3),
        (format!("subscription={one}"), 2),
        (format!("subscription={one}&subscription={two}"), 3),
        ("state=never".to_owned(), 1),
        ("state=never,scanned".to_owned(), 3),
        ("region=b".to_owned(), 1),
        ("kind=memory.secret".to_owned(), 2),
        ("provider=gcp".to_owned(), 0),
        ("provider=aws&kind=*".to_owned(), 1),
    ] {
        let found = rows(&api.viewer(), &query).await;
        assert_eq!(found.len(), expected, "{query}");
        for sort in ["createdAt", "-region", "kind", "scannedAt", "-scannedAt"] {
            let walked = api.walk(&format!("{COVERAGE}?sort={sort}&{query}"), 1).await;
            assert_eq!(walked.len(), expected, "{sort} {query}");
        }
    }
    let body = json!({"name": "narrow", "role": "viewer", "subscriptions": [two]});
    let token = api.admin().post("/api/tokens", body).await.ok(201);
    let narrow = api.bearing(token["token"].as_str().unwrap());
    assert_eq!(column(&rows(&narrow, "").await, "subscription"), std::slice::from_ref(&two));
    assert_eq!(rows(&narrow, &format!("subscription={one}")).await, [Value::Null; 0]);
    for wrong in ["state=lost", "subscription=x", "sort=state", "provider=", "limit=0"] {
        api.viewer().get(&format!("{COVERAGE}?{wrong}")).await.refused(400, "validation_failed");
    }
}
