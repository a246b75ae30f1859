//! Testing subscriptions, and finding the accounts of their organisation, as clients do.

use super::idempotency::events;
use keywright_entities::{asset, job_report};
use keywright_jobs::{domain::inventory::ScopeId, provider::ProviderError, queue::prune};
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{Answer, Api, Identified, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{Call, Operation, secrets_in};
use reqwest::Method;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use serde_json::{Value, json};

on_both_databases!(
    a_test_tells_who_it_is_and_which_kinds_can_be_listed,
    a_missing_permission_is_named,
    a_login_that_fails_fails_the_test,
    a_test_under_way_is_joined,
    what_cannot_be_asked_is_refused,
    accounts_are_listed_with_their_subscriptions,
    accounts_that_may_not_be_listed_name_the_permission,
    what_is_asked_again_is_asked_anew,
);

async fn ask(api: &Api, role: &str, subscription: &str, what: &str) -> Answer {
    let path = format!("/api/subscriptions/{subscription}/{what}");
    api.role(role).with("Prefer", "wait=60").send(Method::POST, &path, None).await
}

fn key(region: &str) -> ScopeId {
    ScopeId { region: region.to_owned(), kind: "memory.key".to_owned() }
}

fn lists(kind: &'static str) -> impl Fn(&Call) -> bool + Send {
    move |call| matches!(&call.operation, Operation::List { scope, .. } if scope.kind == kind)
}

/// An account with secrets in two regions and keys in one, and a worker.
async fn account(database: TestDatabase) -> (Api, String, keywright_tests::app::TestWorker) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 3);
    api.app.cloud.put_secrets("one", &secrets_in("south"), 3);
    api.app.cloud.scope("one", &key("north"));
    let subscription = api.subscribe("one").await;
    let worker = api.app.worker(WorkerSettings::default()).await;
    (api, subscription, worker)
}

async fn a_test_tells_who_it_is_and_which_kinds_can_be_listed(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    let answer = ask(&api, "operator", &subscription, "test").await;
    assert_eq!(answer.header("preference-applied"), Some("wait=60"));
    let job = answer.ok(200);
    assert_eq!(
        (&job["kind"], &job["state"], &job["scopes"]),
        (&json!("subscription.test"), &json!("succeeded"), &Value::Null)
    );
    let kind = |kind: &str, scopes: u32| json!({"kind": kind, "region": "north", "scopes": scopes, "status": "ok", "reason": null, "warnings": []});
    let expected = json!({
        "type": "subscriptionTest",
        "href": format!("/api/subscriptions/{subscription}"),
        "test": {
            "ok": true,
            "identity": {"account": "one", "principal": "memory:one:keywright"},
            "accountMatches": true,
            "kinds": [kind("memory.key", 1), kind("memory.secret", 2)],
        },
        "accounts": null,
    });
    assert_eq!(job["result"], expected);
    assert_eq!(api.viewer().get(&format!("/api/jobs/{}", job.id())).await.ok(200)["result"], expected);
    let cloud = &api.app.cloud;
    assert_eq!(cloud.count(|call| matches!(call.operation, Operation::List { .. })), 2, "one list of each kind");
    assert_eq!(cloud.count(|call| matches!(call.operation, Operation::Complete { .. })), 0);
    let db = api.app.database();
    assert_eq!(asset::Entity::find().count(db.reader()).await.unwrap(), 0, "nothing is kept");
    assert_eq!(events(db, "subscription.test_requested").await, 1);
    // a list of jobs does not carry reports
    let listed = api.viewer().get("/api/jobs?kind=subscription.test").await.ok(200);
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["result"]["test"]), (&job["id"], &Value::Null));
    // and what is forgotten takes its report along
    let older = if db.backend() == sea_orm::DbBackend::Sqlite {
        "datetime('now', '-9 days')"
    } else {
        "now() - interval '9 days'"
    };
    let text = format!("UPDATE job SET completed_at = {older}");
    db.reader().execute_unprepared(&text).await.unwrap();
    assert_eq!(prune::ended(db, "subscription.test", 8).await.unwrap(), 1);
    assert_eq!(job_report::Entity::find().count(db.reader()).await.unwrap(), 0);
}

async fn a_missing_permission_is_named(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    api.app.cloud.deny("memory:ListKeys", lists("memory.key"));
    let odd = ProviderError::Rejected { code: "unexpected_reply".to_owned(), detail: "it makes no sense".to_owned() };
    api.app.cloud.fail(None, odd, lists("memory.secret"));
    let job = ask(&api, "operator", &subscription, "test").await.ok(200);
    assert_eq!((&job["state"], &job["result"]["test"]["ok"]), (&json!("succeeded"), &json!(false)), "{job}");
    let kinds = job["result"]["test"]["kinds"].as_array().unwrap();
    assert_eq!(column(kinds, "status"), ["denied", "failed"]);
    assert_eq!(kinds[0]["reason"]["requiredPermission"], "memory:ListKeys");
    assert_eq!(
        (&kinds[1]["reason"]["code"], &kinds[1]["reason"]["requiredPermission"]),
        (&json!("unexpected_reply"), &Value::Null)
    );
}

async fn a_login_that_fails_fails_the_test(database: TestDatabase) {
    let (api, _, _worker) = account(database).await;
    let body = json!({"provider": "aws", "externalId": "nowhere", "name": "nowhere"});
    let subscription = api.admin().post("/api/subscriptions", body).await.ok(201).id();
    for what in ["test", "accounts"] {
        let job = ask(&api, "operator", &subscription, what).await.ok(200);
        assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("not_authenticated")), "{job}");
        assert_eq!((&job["result"]["test"], &job["result"]["accounts"]), (&Value::Null, &Value::Null));
    }
    // away for now is asked once more, and then told
    let away = ProviderError::Unavailable { detail: "503".to_owned() };
    let (_, one) = (api.app.cloud.account("two"), api.subscribe("two").await);
    api.app.cloud.scope("two", &secrets_in("north"));
    api.app.cloud.fail(None, away, |call| call.account == "two" && call.lists("north"));
    let job = ask(&api, "operator", &one, "test").await.ok(200);
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(2)), "{job}");
    assert_eq!(job["result"]["test"]["kinds"][0]["reason"]["code"], "provider_unavailable");
}

async fn a_test_under_way_is_joined(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    let hold = api.app.cloud.hold(|call| call.operation == Operation::Identity);
    let path = format!("/api/subscriptions/{subscription}/test");
    let first = api.operator().with("Idempotency-Key", "k").send(Method::POST, &path, None).await;
    assert_eq!((first.header("keywright-deduplicated"), first.header("idempotent-replayed")), (None, None));
    let first = first.under_way();
    api.app.cloud.reached(1, |call| call.operation == Operation::Identity).await;
    let second = api.admin().with("Idempotency-Key", "k").send(Method::POST, &path, None).await;
    assert_eq!(second.header("keywright-deduplicated"), Some("true"));
    assert_eq!(second.under_way().id(), first.id());
    // it counts as a look at the subscription
    api.admin()
        .with("If-Match", "*")
        .delete(&format!("/api/subscriptions/{subscription}"))
        .await
        .refused(409, "conflict");
    hold.release();
    assert_eq!(api.ended(&first.id()).await["state"], "succeeded");
    assert_ne!(ask(&api, "operator", &subscription, "test").await.ok(200).id(), first.id(), "the first one is over");
}

async fn what_cannot_be_asked_is_refused(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    let local =
        json!({"provider": "local", "externalId": "host", "name": "host", "settings": {"local": {"paths": ["/tmp"]}}});
    let local = api.admin().post("/api/subscriptions", local).await.ok(201).id();
    ask(&api, "operator", &local, "accounts").await.refused(409, "accounts_unavailable");
    api.admin().patch(&format!("/api/subscriptions/{subscription}"), json!({"enabled": false})).await.ok(200);
    for what in ["test", "accounts"] {
        ask(&api, "operator", &subscription, what).await.refused(409, "subscription_disabled");
        ask(&api, "operator", "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99", what).await.refused(404, "not_found");
        ask(&api, "operator", "one", what).await.refused(404, "not_found");
        ask(&api, "operator", &subscription, &format!("{what}?mode=x")).await.refused(400, "unknown_parameter");
        let refused = ask(&api, "viewer", &subscription, what).await.refused(403, "permission_denied");
        assert_eq!(refused["requiredPermission"], "jobs:start");
        let get = api.admin().get(&format!("/api/subscriptions/{subscription}/{what}")).await;
        get.refused(405, "method_not_allowed");
    }
    assert_eq!(api.viewer().get("/api/jobs").await.ok(200)["data"], json!([]), "nothing was begun");
    assert_eq!(api.app.cloud.journal(), []);
}

async fn accounts_are_listed_with_their_subscriptions(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    let other = api.subscribe("two").await;
    for (member, state) in [("two", "ACTIVE"), ("one", "ACTIVE"), ("three", "SUSPENDED")] {
        api.app.cloud.member("one", member, state);
    }
    let job = ask(&api, "operator", &subscription, "accounts").await.ok(200);
    let found = job["result"]["accounts"].as_array().unwrap();
    assert_eq!(column(found, "externalId"), ["one", "three", "two"]);
    assert_eq!(column(found, "status"), ["ACTIVE", "SUSPENDED", "ACTIVE"]);
    assert_eq!(
        found[0],
        json!({"externalId": "one", "name": "the one", "status": "ACTIVE", "subscription": subscription})
    );
    assert_eq!((&found[1]["subscription"], &found[2]["subscription"]), (&Value::Null, &json!(other)));
    assert_eq!((&job["result"]["type"], &job["result"]["test"]), (&json!("accounts"), &Value::Null));
    assert_eq!(events(api.app.database(), "subscription.accounts_requested").await, 1);
    // whoever may not see the other subscription is not told of it
    let body = json!({"name": "narrow", "role": "operator", "subscriptions": [subscription]});
    let narrow = api.session().post("/api/tokens", body).await.ok(201)["token"].as_str().unwrap().to_owned();
    let seen = api.bearing(&narrow).get(&format!("/api/jobs/{}", job.id())).await.ok(200);
    let seen = seen["result"]["accounts"].as_array().unwrap();
    assert_eq!((&seen[0]["subscription"], &seen[2]["subscription"]), (&json!(subscription), &Value::Null));
    let path = format!("/api/subscriptions/{other}/accounts");
    api.bearing(&narrow).send(Method::POST, &path, None).await.refused(404, "not_found");
}

async fn accounts_that_may_not_be_listed_name_the_permission(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    api.app.cloud.deny("organizations:ListAccounts", |call| call.operation == Operation::Accounts);
    let job = ask(&api, "operator", &subscription, "accounts").await.ok(200);
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("permission_denied")), "{job}");
    assert_eq!(job["error"]["requiredPermission"], "organizations:ListAccounts");
}

async fn what_is_asked_again_is_asked_anew(database: TestDatabase) {
    let (api, subscription, _worker) = account(database).await;
    api.app.cloud.deny("organizations:ListAccounts", |call| call.operation == Operation::Accounts);
    let failed = ask(&api, "operator", &subscription, "accounts").await.ok(200).id();
    api.app.cloud.heal();
    let retry = async |id: &str, scope: &str| {
        api.operator().post(&format!("/api/jobs/{id}/retry"), json!({"scope": scope})).await
    };
    let again = retry(&failed, "failed").await.under_way();
    assert_eq!(
        (&again["retryOf"], &again["kind"], &again["trigger"]),
        (&json!(failed), &json!("subscription.accounts"), &json!("retry"))
    );
    assert_eq!(api.ended(&again.id()).await["state"], "succeeded");
    retry(&again.id(), "failed").await.refused(409, "nothing_to_retry");
    api.admin().patch(&format!("/api/subscriptions/{subscription}"), json!({"enabled": false})).await.ok(200);
    retry(&failed, "all").await.refused(409, "nothing_to_retry");
}
