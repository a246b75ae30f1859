//! Google Cloud as a client of the API sees it: an API and a worker as processes, before the double of our own.

use keywright_tests::{
    database::TestDatabase,
    gcp_kms::{ServiceAccount, service_account},
    instance::Instance,
    rig::{GcpCall, GcpDouble, PROJECT, Rig, reads_google_value},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const WORKER: &str = "keywright@acme.iam.gserviceaccount.com";
const LISTS: &[&str] = &[
    "secretmanager.projects.secrets.list",
    "secretmanager.projects.secrets.versions.list",
    "iam.projects.serviceAccounts.list",
    "iam.projects.serviceAccounts.keys.list",
];

/// Each test on each database.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => { mod sqlite { $(
        #[tokio::test]
        async fn $test() {
            let Some(rig) = super::Rig::find() else { return };
            super::$test(rig, super::TestDatabase::sqlite().await).await;
        }
    )+ } mod postgres { $(
        #[tokio::test]
        async fn $test() {
            let (Some(rig), Some(database)) = (super::Rig::find(), super::TestDatabase::postgres().await) else { return };
            super::$test(rig, database).await;
        }
    )+ } };
}

on_both_databases!(
    a_scan_finds_everything_over_several_pages_and_reads_no_value,
    a_right_that_is_missing_makes_the_scan_partial_and_removes_nothing,
    a_429_costs_no_attempt,
    a_stored_key_and_another_account_are_who_asks,
);

async fn start(database: &TestDatabase, double: &GcpDouble, account: &ServiceAccount) -> Instance {
    let google = [("GOOGLE_APPLICATION_CREDENTIALS", account.path()), ("KEYWRIGHT_GCP_ENDPOINT", double.url())];
    Instance::start(database, &google).await
}

fn subscription(settings: Value, auth: Value) -> Value {
    json!({"provider": "gcp", "externalId": PROJECT, "name": "doubled", "settings": {"gcp": settings}, "auth": auth})
}

async fn subscribe(instance: &Instance) -> String {
    instance.subscribe(&subscription(json!({}), json!({"mode": "ambient"}))).await
}

async fn inventory(instance: &Instance) -> BTreeSet<String> {
    let assets = instance.list("/api/assets/discovery/assets?limit=100").await;
    let found: BTreeSet<String> =
        assets.iter().map(|asset| asset["externalId"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(found.len(), assets.len(), "an asset is there twice");
    found
}

/// What was asked since; only lists may be.
fn listings(calls: &[GcpCall]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        let method = call.method.as_deref().unwrap_or_default();
        assert!(LISTS.contains(&method), "{call:?} is no listing");
        *counts.entry(method).or_default() += 1;
    }
    counts
}

async fn a_scan_finds_everything_over_several_pages_and_reads_no_value(rig: Rig, database: TestDatabase) {
    let double = rig.google().await.unwrap();
    double.pages_of(10).await.unwrap();
    let listing = rig.seed_google(double.url(), 25, 12).await.unwrap();
    let before = double.calls().unwrap().len();
    let account = service_account();
    let instance = start(&database, &double, &account).await;
    let job = instance.scan(&subscribe(&instance).await).await;
    assert_eq!(
        (&job["state"], &job["counts"]["found"], &job["counts"]["warnings"]),
        (&json!("succeeded"), &json!(49), &json!(0)),
        "{job}"
    );
    let expected: BTreeSet<String> = listing.secrets.keys().chain(listing.keys.keys()).cloned().collect();
    assert_eq!(inventory(&instance).await, expected);
    let keys = instance.list("/api/assets/discovery/assets?limit=100&type=credential").await;
    assert_eq!(keys.len(), listing.keys.len());
    assert!(keys.iter().all(|key| key["kind"] == "gcp.iam.serviceAccountKey" && key["region"] == "global"));

    let calls = double.calls().unwrap().split_off(before);
    let counts = listings(&calls);
    assert_eq!((counts[LISTS[0]], counts[LISTS[2]], counts[LISTS[3]]), (3, 2, 12));
    assert!(calls.iter().all(|call| call.identity.as_deref() == Some(WORKER)), "{calls:?}");
    // the journal would tell of one
    rig.read_google_value(double.url(), listing.secrets.keys().nth(1).unwrap()).await.unwrap();
    assert_eq!(double.calls().unwrap().split_off(before).iter().filter(|call| reads_google_value(call)).count(), 1);
}

async fn a_right_that_is_missing_makes_the_scan_partial_and_removes_nothing(rig: Rig, database: TestDatabase) {
    let double = rig.google().await.unwrap();
    rig.seed_google(double.url(), 5, 4).await.unwrap();
    let account = service_account();
    let instance = start(&database, &double, &account).await;
    let subscription = subscribe(&instance).await;
    let whole = instance.scan(&subscription).await;
    assert_eq!(whole["state"], "succeeded", "{whole}");
    let all = inventory(&instance).await;
    double.role(&["iam.serviceAccounts.list", "iam.serviceAccountKeys.list"]).await.unwrap();
    let job = instance.scan(&subscription).await;
    assert_eq!((&job["state"], &job["counts"]["removed"]), (&json!("partial"), &json!(0)), "{job}");
    for scope in instance.scopes(&job).await {
        if scope["kind"] == "gcp.secretmanager.secret" {
            let reason = &scope["reason"];
            assert_eq!(
                (&reason["code"], &reason["requiredPermission"]),
                (&json!("permission_denied"), &json!("secretmanager.secrets.list"))
            );
        } else {
            assert_eq!(scope["state"], "succeeded", "{scope}");
        }
    }
    // one account that may not be looked into: a warning, and its keys stay
    double.rules(json!([{"path": "robot-001@", "status": 403}])).await.unwrap();
    double
        .role(&["iam.serviceAccounts.list", "iam.serviceAccountKeys.list", "secretmanager.secrets.list"])
        .await
        .unwrap();
    let job = instance.scan(&subscription).await;
    assert_eq!((&job["state"], &job["counts"]["removed"]), (&json!("succeeded"), &json!(0)), "{job}");
    assert!(job["counts"]["warnings"].as_u64().unwrap() >= 1, "{job}");
    assert_eq!(inventory(&instance).await, all);
}

async fn a_429_costs_no_attempt(rig: Rig, database: TestDatabase) {
    let double = rig.google().await.unwrap();
    rig.seed_google(double.url(), 3, 2).await.unwrap();
    let busy = |method: &str| json!({"method": method, "times": 2, "status": 429, "retryAfter": 1});
    double.rules(json!([busy(LISTS[0]), busy(LISTS[2])])).await.unwrap();
    let account = service_account();
    let instance = start(&database, &double, &account).await;
    let job = instance.scan(&subscribe(&instance).await).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    for scope in instance.scopes(&job).await {
        assert_eq!((&scope["state"], &scope["attempt"]), (&json!("succeeded"), &json!(1)), "{scope}");
    }
    let slowed = double.calls().unwrap().iter().filter(|call| call.injected && call.status == 429).count();
    assert_eq!(slowed, 4);
}

async fn a_stored_key_and_another_account_are_who_asks(rig: Rig, database: TestDatabase) {
    let double = rig.google().await.unwrap();
    rig.seed_google(double.url(), 2, 2).await.unwrap();
    let before = double.calls().unwrap().len();
    let account = service_account();
    let mut key: Value = serde_json::from_str(&std::fs::read_to_string(account.path()).unwrap()).unwrap();
    let instance = start(&database, &double, &account).await;
    let stored = |key: &Value| json!({"mode": "stored", "serviceAccountKey": key});
    // the address in this file is not Google's
    let (status, refused) = instance.post("/api/subscriptions", &subscription(json!({}), stored(&key))).await;
    assert_eq!(
        (status.as_u16(), &refused["errors"][0]["pointer"]),
        (400, &json!("/auth/serviceAccountKey/token_uri")),
        "{refused}"
    );
    key["token_uri"] = "https://oauth2.googleapis.com/token".into();
    key["client_email"] = "stored@acme-prod.iam.gserviceaccount.com".into();
    let robot = format!("robot-001@{PROJECT}.iam.gserviceaccount.com");
    let id = instance.subscribe(&subscription(json!({"impersonate": robot}), stored(&key))).await;
    let job = instance.scan(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let calls = double.calls().unwrap().split_off(before);
    let exchanges = calls.iter().filter(|call| call.path.ends_with(":generateAccessToken"));
    assert!(exchanges.clone().count() >= 1);
    assert!(exchanges.clone().all(|call| call.identity.as_deref() == Some("stored@acme-prod.iam.gserviceaccount.com")));
    let acting = format!("impersonated:{robot}");
    let others = calls.iter().filter(|call| !call.path.ends_with(":generateAccessToken"));
    assert!(
        others.clone().count() >= 3 && others.clone().all(|call| call.identity.as_deref() == Some(acting.as_str())),
        "{calls:?}"
    );
    let shown = instance.get(&format!("/api/subscriptions/{id}")).await;
    assert!(!shown.to_string().contains("PRIVATE KEY"), "{shown}");
}
