//! Users and tokens that see some subscriptions only: everything outside is as if it were not there.

use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{Api, Client, Identified, SCAN, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{secret, secrets_in};
use serde_json::{Value, json};
use std::collections::BTreeSet;

on_both_databases!(
    what_is_outside_is_not_there,
    a_scan_of_all_is_of_all_that_is_seen,
    schedules_name_nothing_outside,
    a_restricted_token_hands_out_no_more_than_it_sees,
    a_restriction_counts_from_the_next_request_on,
);

const PASSWORD: &str = "seven-quiet-lanterns";

pub(super) struct Two {
    pub(super) inside: String,
    pub(super) outside: String,
    pub(super) user: String,
}

/// Two subscriptions, and an operator who sees the first.
pub(super) async fn two(api: &Api) -> Two {
    let (inside, outside) = (api.subscribe("inside").await, api.subscribe("outside").await);
    let body = json!({"name": "ada", "role": "operator", "password": PASSWORD, "subscriptions": [inside]});
    let user = api.admin().post("/api/users", body).await.ok(201);
    assert_eq!(user["subscriptions"], json!([inside]));
    Two { user: user.id(), inside, outside }
}

pub(super) async fn ada(api: &Api) -> Client<'_> {
    let login = json!({"username": "ada", "password": PASSWORD});
    let session = api.nobody().post("/api/auth/login", login).await.ok(200);
    api.bearing(session["access_token"].as_str().unwrap())
}

pub(super) async fn rows(client: &Client<'_>, path: &str) -> Vec<Value> {
    client.get(path).await.ok(200)["data"].as_array().unwrap().clone()
}

/// The refusal of a path, without what differs between any two requests.
async fn absent(client: &Client<'_>, path: &str) -> Value {
    let mut problem = client.get(path).await.refused(404, "not_found");
    problem["requestId"].take();
    problem["instance"].take();
    problem
}

async fn what_is_outside_is_not_there(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let Two { inside, outside, .. } = two(&api).await;
    for (account, name) in [("inside", "in"), ("outside", "out")] {
        let scope = secrets_in("eu-central-1");
        api.app.cloud.put(account, &scope, secret(&scope, name));
    }
    let both = api.scan(json!({})).await.id();
    let (one, other) = (
        api.scan(json!({"subscriptions": [inside], "onConflict": "queue"})).await.id(),
        api.scan(json!({"subscriptions": [outside], "onConflict": "queue"})).await.id(),
    );
    let ada = ada(&api).await;
    let assets = "/api/assets/discovery/assets";
    assert_eq!(column(&rows(&ada, "/api/subscriptions").await, "id"), std::slice::from_ref(&inside));
    assert_eq!(column(&rows(&ada, assets).await, "subscription"), std::slice::from_ref(&inside));
    let vaults = rows(&ada, "/api/assets/discovery/vaults").await;
    assert!(vaults.iter().all(|vault| vault["subscription"] == json!(inside)), "{vaults:?}");
    assert_eq!(column(&rows(&ada, "/api/assets/discovery/scans").await, "id"), std::slice::from_ref(&one));
    assert_eq!(column(&rows(&ada, "/api/jobs").await, "id"), std::slice::from_ref(&one));
    assert_eq!(rows(&ada, &format!("/api/jobs?subscription={outside}")).await, Vec::<Value>::new());
    assert_eq!(rows(&ada, &format!("{assets}?subscription={outside}")).await, Vec::<Value>::new());
    ada.get(&format!("/api/jobs/{one}")).await.ok(200);
    ada.get(&format!("/api/assets/discovery/scans/{one}/results?change=unchanged")).await.ok(200);

    let outside_asset = rows(&api.admin(), &format!("{assets}?subscription={outside}")).await[0].id();
    let part = rows(&api.admin(), &format!("/api/jobs?parentId={other}")).await[0].id();
    let never = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
    for (path, ids) in [
        ("/api/subscriptions/{}", vec![&outside]),
        ("/api/assets/discovery/assets/{}", vec![&outside_asset]),
        ("/api/assets/discovery/assets/{}/history", vec![&outside_asset]),
        ("/api/assets/discovery/scans/{}", vec![&both, &other]),
        ("/api/assets/discovery/scans/{}/results", vec![&both, &other]),
        ("/api/assets/discovery/scan/{}/status", vec![&both, &other]),
        ("/api/jobs/{}", vec![&both, &other, &part]),
        ("/api/jobs/{}/scopes", vec![&both, &other]),
    ] {
        let unknown = absent(&ada, &path.replace("{}", never)).await;
        for id in ids {
            assert_eq!(absent(&ada, &path.replace("{}", id)).await, unknown, "{path} {id}");
            api.admin().get(&path.replace("{}", id)).await.ok(200);
        }
    }
    for action in ["cancel", "pause", "resume"] {
        ada.post(&format!("/api/jobs/{other}/{action}"), json!({})).await.refused(404, "not_found");
    }
    ada.post(&format!("/api/jobs/{other}/retry"), json!({"scope": "all"})).await.refused(404, "not_found");
}

async fn a_scan_of_all_is_of_all_that_is_seen(database: TestDatabase) {
    let api = Api::on(database).await;
    let Two { inside, outside, .. } = two(&api).await;
    let everything = api.admin().post(SCAN, json!({})).await.under_way();
    let ada = ada(&api).await;
    assert_eq!(rows(&ada, "/api/assets/discovery/scans").await, Vec::<Value>::new(), "also before it has parts");
    let own = ada.post(SCAN, json!({})).await.under_way();
    assert_ne!(own.id(), everything.id(), "it does not join what it may not see");
    assert_eq!(own["request"]["subscriptions"], json!([inside]));
    assert_eq!(ada.post(SCAN, json!({})).await.under_way().id(), own.id(), "but its own");
    let scan = ada.get(&format!("/api/assets/discovery/scans/{}", own.id())).await.ok(200);
    assert_eq!(scan["subscriptions"], json!([inside]));
    ada.post(&format!("/api/jobs/{}/cancel", own.id()), json!({})).await.ok(202);
    let refused = ada.post(SCAN, json!({"subscriptions": [inside, outside]})).await;
    assert_eq!(refused.pointers("validation_failed"), ["/subscriptions/1"]);
}

async fn schedules_name_nothing_outside(database: TestDatabase) {
    let api = Api::on(database).await;
    let Two { inside, outside, .. } = two(&api).await;
    let ada = ada(&api).await;
    let schedule = |name: &str, subscriptions: Value| {
        let body = if subscriptions.is_null() { json!({}) } else { json!({"subscriptions": subscriptions}) };
        json!({"name": name, "cron": "0 0 * * *", "kind": "discovery.scan", "body": body})
    };
    let mut ids = Vec::new();
    for (name, subscriptions) in
        [("all", Value::Null), ("in", json!([inside])), ("out", json!([outside])), ("both", json!([inside, outside]))]
    {
        ids.push(api.admin().post("/api/schedules", schedule(name, subscriptions)).await.ok(201).id());
    }
    let own = ada.post("/api/schedules", schedule("own", Value::Null)).await.ok(201).id();
    let seen: BTreeSet<String> = column(&rows(&ada, "/api/schedules").await, "name").into_iter().collect();
    assert_eq!(seen, ["in", "own"].map(str::to_owned).into());
    for (id, seen) in [(&ids[0], false), (&ids[1], true), (&ids[2], false), (&ids[3], false), (&own, true)] {
        let path = format!("/api/schedules/{id}");
        if seen {
            ada.get(&path).await.ok(200);
        } else {
            ada.get(&path).await.refused(404, "not_found");
            ada.patch(&path, json!({"enabled": false})).await.refused(404, "not_found");
            ada.clone().with("If-Match", "*").delete(&path).await.refused(404, "not_found");
        }
    }
    let outside = ada.post("/api/schedules", schedule("x", json!([outside]))).await;
    assert_eq!(outside.pointers("validation_failed"), ["/body/subscriptions/0"]);
    // a token that sees less than its owner cannot have its owner see more for it
    let token = json!({"name": "x", "role": "operator", "subscriptions": [inside]});
    let token = api.admin().post("/api/tokens", token).await.ok(201);
    let token = api.bearing(token["token"].as_str().unwrap());
    let all = token.post("/api/schedules", schedule("x", Value::Null)).await;
    assert_eq!(all.pointers("validation_failed"), ["/body/subscriptions"]);
    let mine = token.post("/api/schedules", schedule("x", json!([inside]))).await.ok(201);
    let widened = token.patch(&format!("/api/schedules/{}", mine.id()), json!({"body": null})).await;
    assert_eq!(widened.pointers("validation_failed"), ["/body/subscriptions"]);
}

async fn a_restricted_token_hands_out_no_more_than_it_sees(database: TestDatabase) {
    let api = Api::on(database).await;
    let Two { inside, outside, .. } = two(&api).await;
    let token = json!({"name": "x", "role": "operator", "subscriptions": [inside]});
    let token = api.admin().post("/api/tokens", token).await.ok(201);
    assert_eq!(token["subscriptions"], json!([inside]));
    let token = api.bearing(token["token"].as_str().unwrap());
    assert_eq!(column(&rows(&token, "/api/subscriptions").await, "id"), std::slice::from_ref(&inside));
    let child = token.post("/api/tokens", json!({"name": "y", "role": "viewer"})).await.ok(201);
    assert_eq!(child["subscriptions"], json!([inside]), "it inherits the restriction");
    let wide = token.post("/api/tokens", json!({"name": "y", "role": "viewer", "subscriptions": [outside]})).await;
    assert_eq!(wide.pointers("validation_failed"), ["/subscriptions/0"]);
    let admin = json!({"name": "y", "role": "admin", "subscriptions": [inside]});
    assert_eq!(api.admin().post("/api/tokens", admin).await.pointers("validation_failed"), ["/subscriptions"]);
    // the narrower of owner and token counts
    let ada = ada(&api).await;
    let own = ada.post("/api/tokens", json!({"name": "z", "role": "viewer"})).await.ok(201);
    assert_eq!(own["subscriptions"], Value::Null);
    let own = api.bearing(own["token"].as_str().unwrap());
    assert_eq!(column(&rows(&own, "/api/subscriptions").await, "id"), [inside]);
}

async fn a_restriction_counts_from_the_next_request_on(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let Two { inside, outside, user } = two(&api).await;
    let ada = ada(&api).await;
    let path = format!("/api/users/{user}");
    let seen = async |expected: &[&String]| {
        for at in [api.address, neighbour.address] {
            let ids = column(&rows(&ada.clone().at(at), "/api/subscriptions").await, "id");
            assert_eq!(ids.iter().collect::<BTreeSet<_>>(), expected.iter().copied().collect());
        }
    };
    seen(&[&inside]).await;
    api.admin().patch(&path, json!({"subscriptions": null})).await.ok(200);
    seen(&[&inside, &outside]).await;
    api.admin().patch(&path, json!({"subscriptions": [outside, outside]})).await.ok(200);
    seen(&[&outside]).await;
    let admin = api.admin().patch(&path, json!({"role": "admin"})).await;
    assert_eq!(admin.pointers("validation_failed"), ["/subscriptions"]);
    // one that is gone may stay, but not come anew
    api.admin().with("If-Match", "*").delete(&format!("/api/subscriptions/{outside}")).await.ok(204);
    api.admin().patch(&path, json!({"subscriptions": [inside, outside]})).await.ok(200);
    seen(&[&inside]).await;
    api.admin().patch(&path, json!({"subscriptions": []})).await.ok(200);
    seen(&[]).await;
    let again = api.admin().patch(&path, json!({"subscriptions": [outside]})).await;
    assert_eq!(again.pointers("validation_failed"), ["/subscriptions/0"]);
}
