//! Scans as clients ask for them and read them.

use keywright_jobs::provider::ProviderError;
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ASSETS, Answer, Api, Identified, SCAN, SCANS, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{Operation, secret, secrets_in};
use serde_json::{Value, json};
use std::time::Duration;

on_both_databases!(
    what_cannot_be_scanned_is_refused,
    a_scan_under_way_is_joined_queued_or_rejected,
    a_wait_that_is_preferred_is_honoured,
    a_scan_is_read_in_both_spellings,
    four_scans_tell_what_appeared_changed_vanished_and_returned,
    a_scope_that_is_denied_removes_nothing,
    a_scope_that_was_half_listed_removes_nothing,
    nothing_readable_is_a_failure_with_its_reason,
    an_account_that_cannot_be_reached_is_one_failed_scope,
    a_throttled_scope_is_waited_for,
    a_page_token_that_expired_publishes_nothing_twice,
    warnings_of_one_scan_do_not_hide_those_of_another,
);

const RANDOM: &str = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";

async fn what_cannot_be_scanned_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    let operator = api.operator();
    operator.post(SCAN, json!({})).await.refused(400, "no_subscription");
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    let unknown = operator.post(SCAN, json!({"subscriptions": [one, RANDOM, two, RANDOM]})).await;
    assert_eq!(unknown.pointers("validation_failed"), ["/subscriptions/1", "/subscriptions/3"]);
    assert_eq!(operator.post(SCAN, json!({"mode": "fast"})).await.pointers("validation_failed"), ["/mode"]);
    operator.post(SCAN, json!({"subscriptions": []})).await.refused(400, "validation_failed");
    for id in [&one, &two] {
        api.admin().patch(&format!("/api/subscriptions/{id}"), json!({"enabled": false})).await.ok(200);
    }
    operator.post(SCAN, json!({})).await.refused(400, "no_subscription");
    operator.post(SCAN, json!({"subscriptions": [one]})).await.refused(400, "no_subscription");
    api.admin().patch(&format!("/api/subscriptions/{two}"), json!({"enabled": true})).await.ok(200);
    let job = operator.post(SCAN, json!({"subscriptions": [one, two]})).await.under_way();
    let scan = api.viewer().get(&format!("{SCANS}/{}", job.id())).await.ok(200);
    assert_eq!(scan["subscriptions"], json!([two]));
    assert_eq!(api.viewer().get("/api/jobs").await.ok(200)["data"].as_array().unwrap().len(), 1);
}

async fn a_scan_under_way_is_joined_queued_or_rejected(database: TestDatabase) {
    let api = Api::on(database).await;
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    let operator = api.operator();
    let deduplicated = |answer: &Answer| answer.header("keywright-deduplicated").map(str::to_owned);
    let first = operator.post(SCAN, json!({})).await;
    assert_eq!(deduplicated(&first), None);
    let first = first.under_way().id();
    for same in [json!({}), json!({"mode": "full"}), json!({"onConflict": "join"})] {
        let joined = operator.post(SCAN, same).await;
        assert_eq!(deduplicated(&joined).as_deref(), Some("true"));
        assert_eq!(joined.under_way().id(), first);
    }
    let rejected = operator.post(SCAN, json!({"onConflict": "reject"})).await.refused(409, "conflict");
    assert_eq!(rejected["jobId"], json!(first));
    let queued = operator.post(SCAN, json!({"onConflict": "queue"})).await.under_way().id();
    assert_ne!(queued, first);
    // other requests run beside it; the order of ids makes no other request
    let other = operator.post(SCAN, json!({"subscriptions": [one, two]})).await.under_way().id();
    assert_ne!(other, first);
    let joined = operator.post(SCAN, json!({"subscriptions": [two, one, two]})).await;
    assert_eq!((deduplicated(&joined).as_deref(), joined.under_way().id()), (Some("true"), other));
    let forced = operator.post(SCAN, json!({"mode": "force"})).await.under_way();
    assert_ne!(forced.id(), first);
    assert_eq!(forced["request"]["mode"], "force");
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.ended(&first).await;
    // what has ended is not joined
    let next = operator.post(SCAN, json!({"onConflict": "reject"})).await.under_way().id();
    assert_ne!(next, first);
    for id in [&queued, &forced.id(), &next] {
        api.ended(id).await;
    }
}

async fn a_wait_that_is_preferred_is_honoured(database: TestDatabase) {
    let api = Api::on(database).await;
    let north = secrets_in("north");
    api.app.cloud.put_secrets("one", &north, 3);
    api.subscribe("one").await;
    // nobody works: the wait is in vain, and short
    let waiting = api.operator().with("Prefer", "respond-async, wait=1").post(SCAN, json!({})).await;
    assert_eq!(waiting.header("preference-applied"), Some("wait=1"));
    let job = waiting.under_way();
    assert_eq!(job["state"], "queued");
    let none = api.operator().with("Prefer", "wait=0").post(SCAN, json!({})).await;
    assert_eq!(none.status, 202);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    api.ended(&job.id()).await;
    let done = api.operator().with("Prefer", "wait=60").post(SCAN, json!({})).await;
    assert_eq!(done.header("preference-applied"), Some("wait=60"));
    let location = done.header("location").unwrap().to_owned();
    let done = done.ok(200);
    assert_eq!(
        (&done["state"], &done["done"], location),
        (&json!("succeeded"), &json!(true), format!("/api/jobs/{}", done.id()))
    );
    assert_eq!(done["counts"]["unchanged"], 3);
    // no wait of ours
    let other = api.operator().with("Prefer", "return=minimal").post(SCAN, json!({})).await;
    assert_eq!((other.status, other.header("preference-applied")), (202, None));
    api.ended(&other.under_way().id()).await;
}

async fn a_scan_is_read_in_both_spellings(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 12);
    let subscription = api.subscribe("one").await;
    let queued = api.operator().post(SCAN, json!({})).await.under_way();
    let id = queued.id();
    let scan = api.viewer().get(&format!("{SCANS}/{id}")).await.ok(200);
    for member in ["startedAt", "completedAt", "providerFloorSeconds", "efficiency"] {
        assert!(scan.as_object().unwrap().contains_key(member) && scan[member].is_null(), "{member} in {scan}");
    }
    assert_eq!(
        (&scan["state"], &scan["mode"], &scan["subscriptions"]),
        (&json!("queued"), &json!("full"), &json!([subscription]))
    );
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let job = api.ended(&id).await;
    let scan = api.viewer().get(&format!("{SCANS}/{id}")).await.ok(200);
    for member in ["state", "counts", "scopes", "startedAt", "completedAt"] {
        assert_eq!(scan[member], job[member], "{member}");
    }
    let status = api.viewer().get(&format!("{SCAN}/{id}/status")).await.ok(200);
    assert_eq!(status, job);
    assert_eq!(job["result"], json!({"type": "scan", "href": format!("{SCANS}/{id}"), "test": null, "accounts": null}));
    let results = api.walk(&format!("{SCANS}/{id}/results?change=created"), 5).await;
    let older = api.walk(&format!("{SCAN}/{id}/results?change=created"), 5).await;
    assert_eq!((results.len(), &results), (12, &older));
    let second = api.scan(json!({})).await.id();
    let scans = api.walk(&format!("{SCANS}?sort=-createdAt"), 1).await;
    assert_eq!(column(&scans, "id"), [second.clone(), id.clone()]);
    let scans = api.walk(&format!("{SCANS}?sort=createdAt"), 1).await;
    assert_eq!(column(&scans, "id"), [id.clone(), second]);
    api.viewer().get(&format!("{SCANS}/{id}/results?change=lost")).await.refused(400, "validation_failed");
}

/// What a scan tells: its counts, and the names by change.
async fn told(api: &Api, job: &Value) -> [Vec<String>; 4] {
    let mut told = [vec![], vec![], vec![], vec![]];
    for (change, names) in ["created", "changed", "unchanged", "removed"].into_iter().zip(&mut told) {
        let rows = api.walk(&format!("{SCANS}/{}/results?change={change}", job.id()), 2).await;
        assert!(rows.iter().all(|row| row["change"] == change), "{rows:?}");
        *names = rows.iter().map(|row| row["asset"]["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
    }
    told
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

async fn four_scans_tell_what_appeared_changed_vanished_and_returned(database: TestDatabase) {
    let api = Api::on(database).await;
    let (north, cloud) = (secrets_in("north"), &api.app.cloud);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let at_size = |name: &str, size: u32| {
        let mut asset = secret(&north, name);
        asset.attributes.insert("size".to_owned(), json!(size));
        asset
    };
    cloud.page_size(2);
    api.subscribe("one").await;
    for name in ["changing", "leaving", "staying"] {
        cloud.put("one", &north, at_size(name, 1));
    }
    let first = api.scan(json!({})).await;
    cloud.put("one", &north, at_size("changing", 2));
    cloud.put("one", &north, at_size("appearing", 1));
    cloud.remove("one", &north, "memory:north:leaving");
    let second = api.scan(json!({})).await;
    cloud.put("one", &north, at_size("leaving", 1));
    let third = api.scan(json!({})).await;
    cloud.remove("one", &north, "memory:north:changing");
    let fourth = api.scan(json!({})).await;
    let counts = |job: &Value| {
        ["found", "created", "changed", "unchanged", "removed"].map(|name| job["counts"][name].as_u64().unwrap())
    };
    // told after all four: an older scan still tells what it saw
    assert_eq!(counts(&first), [3, 3, 0, 0, 0]);
    assert_eq!(told(&api, &first).await, [names(["changing", "leaving", "staying"]), vec![], vec![], vec![]]);
    assert_eq!(counts(&second), [3, 1, 1, 1, 1]);
    assert_eq!(
        told(&api, &second).await,
        [names(["appearing"]), names(["changing"]), names(["staying"]), names(["leaving"])]
    );
    assert_eq!(counts(&third), [4, 1, 0, 3, 0]);
    assert_eq!(
        told(&api, &third).await,
        [names(["leaving"]), vec![], names(["appearing", "changing", "staying"]), vec![]]
    );
    assert_eq!(counts(&fourth), [3, 0, 0, 3, 1]);
    assert_eq!(
        told(&api, &fourth).await,
        [vec![], vec![], names(["appearing", "leaving", "staying"]), names(["changing"])]
    );
    // each as the scan saw it
    let of =
        async |job: &Value, change: &str| api.walk(&format!("{SCANS}/{}/results?change={change}", job.id()), 50).await;
    let sizes = |rows: &[Value]| {
        rows.iter().map(|row| row["asset"]["attributes"]["size"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&of(&first, "created").await), [1, 1, 1]);
    assert_eq!(sizes(&of(&second, "changed").await), [2]);
    let without = api.viewer().get(&format!("{SCANS}/{}/results?includeTotal=true", second.id())).await.ok(200);
    assert_eq!(without["meta"]["total"], 3, "unchanged is told only when asked for");
    // it came back as what it was
    let leaving =
        |rows: &[Value]| rows.iter().find(|row| row["asset"]["name"] == "leaving").unwrap()["asset"]["id"].clone();
    assert_eq!(leaving(&of(&first, "created").await), leaving(&of(&third, "created").await));
    assert_eq!(api.walk(&format!("{ASSETS}?removed=any"), 50).await.len(), 4);
}

/// An account with two regions of three secrets, scanned once, then one secret of each taken away.
async fn two_regions(api: &Api) {
    for region in ["north", "south"] {
        api.app.cloud.put_secrets("one", &secrets_in(region), 3);
    }
    api.subscribe("one").await;
    assert_eq!(api.scan(json!({})).await["counts"]["created"], 6);
    for region in ["north", "south"] {
        assert!(api.app.cloud.remove("one", &secrets_in(region), &format!("memory:{region}:secret-0001")));
    }
}

async fn a_scope_that_is_denied_removes_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    two_regions(&api).await;
    api.app.cloud.deny("secretsmanager:ListSecrets", |call| call.lists("south"));
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["counts"]["removed"], &job["error"]), (&json!("partial"), &json!(1), &Value::Null));
    assert_eq!(
        job["scopes"],
        json!({"total": 2, "succeeded": 1, "failed": 0, "denied": 1, "canceled": 0, "pending": 0})
    );
    let scopes = api.walk(&format!("/api/jobs/{}/scopes?sort=region", job.id()), 1).await;
    assert_eq!(column(&scopes, "region"), ["north", "south"]);
    assert_eq!((&scopes[0]["state"], &scopes[0]["reason"]), (&json!("succeeded"), &Value::Null));
    assert_eq!((&scopes[1]["state"], &scopes[1]["kind"]), (&json!("failed"), &json!("memory.secret")));
    assert_eq!(scopes[1]["reason"]["requiredPermission"], "secretsmanager:ListSecrets");
    let failed = api.viewer().get(&format!("/api/jobs/{}/scopes?state=failed", job.id())).await.ok(200);
    assert_eq!(failed["data"], json!([scopes[1]]));
    let south = api.walk(&format!("{ASSETS}?region=south"), 50).await;
    assert!(south.len() == 3 && south.iter().all(|asset| asset["stale"] == false), "{south:?}");
    // the scan does not claim to have seen what it could not read
    assert_eq!(told(&api, &job).await[2].len(), 2);
}

async fn a_scope_that_was_half_listed_removes_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    two_regions(&api).await;
    api.app.cloud.page_size(1);
    let broken = ProviderError::Rejected { code: "unexpected_reply".to_owned(), detail: "no JSON".to_owned() };
    api.app.cloud.fail(
        None,
        broken,
        |call| matches!(&call.operation, Operation::List { scope, page: Some(_) } if scope.region == "south"),
    );
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["counts"]["removed"]), (&json!("partial"), &json!(1)));
    // what was read is published
    assert_eq!((&job["counts"]["found"], &job["counts"]["unchanged"]), (&json!(3), &json!(3)));
    assert_eq!(api.walk(&format!("{ASSETS}?region=south"), 50).await.len(), 3);
    let scopes = api.walk(&format!("/api/jobs/{}/scopes?state=failed", job.id()), 50).await;
    assert_eq!(scopes[0]["reason"]["code"], "unexpected_reply");
}

async fn nothing_readable_is_a_failure_with_its_reason(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    two_regions(&api).await;
    api.app.cloud.deny("secretsmanager:ListSecrets", |call| call.lists("south") || call.lists("north"));
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("all_scopes_denied")), "{job}");
    assert_eq!(job["scopes"]["denied"], 2);
    api.app.cloud.heal();
    let broken = ProviderError::Rejected { code: "unexpected_reply".to_owned(), detail: "no JSON".to_owned() };
    api.app.cloud.fail(None, broken, |call| call.lists("south") || call.lists("north"));
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("all_scopes_failed")), "{job}");
    assert_eq!(job["scopes"]["failed"], 2);
    assert_eq!(api.walk(&format!("{ASSETS}?removed=false"), 50).await.len(), 6);
    let subscription = api.viewer().get("/api/subscriptions").await.ok(200);
    assert_eq!(subscription["data"][0]["lastScanState"], "failed");
}

async fn an_account_that_cannot_be_reached_is_one_failed_scope(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    two_regions(&api).await;
    let two = api.subscribe("two").await;
    let rejected = ProviderError::Unauthenticated { detail: "the key was revoked".to_owned() };
    api.app.cloud.fail(None, rejected, |call| call.account == "two" && call.operation == Operation::Connect);
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["counts"]["removed"]), (&json!("partial"), &json!(2)));
    let scopes = api.walk(&format!("/api/jobs/{}/scopes?state=failed", job.id()), 50).await;
    assert_eq!(
        (scopes.len(), &scopes[0]["subscription"], &scopes[0]["reason"]["code"]),
        (1, &json!(two), &json!("not_authenticated"))
    );
    // an account without anything in it is not a failure
    api.app.cloud.heal();
    let job = api.scan(json!({"subscriptions": [two]})).await;
    assert_eq!((&job["state"], &job["scopes"]["total"]), (&json!("succeeded"), &json!(0)), "{job}");
}

async fn a_throttled_scope_is_waited_for(database: TestDatabase) {
    let api = Api::on(database).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    two_regions(&api).await;
    api.app.cloud.throttle(1, Duration::from_secs(1), |call| call.lists("south"));
    let job = api.scan(json!({})).await;
    assert_eq!((&job["state"], &job["counts"]["removed"]), (&json!("succeeded"), &json!(2)), "{job}");
    let scopes = api.walk(&format!("/api/jobs/{}/scopes?sort=-region", job.id()), 50).await;
    assert_eq!((&scopes[0]["attempt"], &scopes[1]["attempt"]), (&json!(1), &json!(1)), "it costs no attempt");
}

async fn a_page_token_that_expired_publishes_nothing_twice(database: TestDatabase) {
    let api = Api::on(database).await;
    let (north, cloud) = (secrets_in("north"), &api.app.cloud);
    cloud.page_size(2);
    cloud.put_secrets("one", &north, 7);
    api.subscribe("one").await;
    let third = |call: &keywright_worker::providers::memory::Call| matches!(&call.operation, Operation::List { page: Some(page), .. } if page.contains("0003"));
    cloud.fail(Some(1), ProviderError::PageExpired, third);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let job = api.scan(json!({})).await;
    assert_eq!(
        (&job["state"], &job["counts"]["found"], &job["counts"]["created"]),
        (&json!("succeeded"), &json!(7), &json!(7)),
        "{job}"
    );
    assert_eq!(told(&api, &job).await[0].len(), 7);
}

async fn warnings_of_one_scan_do_not_hide_those_of_another(database: TestDatabase) {
    let api = Api::on(database).await;
    let north = secrets_in("north");
    api.app.cloud.scope("one", &north);
    for number in 0..1001 {
        api.app.cloud.warn(
            "one",
            &north,
            keywright_jobs::domain::inventory::Warning::new(format!("/{number}"), "unreadable", "no"),
        );
    }
    api.subscribe("one").await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    for _ in 0..2 {
        let job = api.scan(json!({})).await;
        assert_eq!(job["counts"]["warnings"], 1001);
    }
    let scans = api.viewer().get(SCANS).await.ok(200);
    let shown = |n: usize| scans["data"][n]["warnings"].as_array().unwrap().len();
    assert_eq!((shown(0), shown(1)), (1000, 1000));
}
