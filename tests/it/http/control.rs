//! Pausing, resuming and retrying jobs, and asking for a scan at another time or rank, as clients do.

use keywright_entities::{asset_version, clock};
use keywright_tests::{
    app::{WorkerSettings, eventually},
    database::TestDatabase,
    http::{Answer, Api, Identified, SCAN},
    on_both_databases,
};
use keywright_worker::providers::memory::{Call, Operation, secrets_in};
use reqwest::Method;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::{Value, json};
use std::time::Duration;

on_both_databases!(
    a_queued_scan_is_paused_and_resumed,
    a_running_scan_rests_before_its_next_call_and_goes_on_where_it_was,
    an_ended_job_is_neither_paused_nor_resumed,
    only_what_failed_is_done_again,
    all_of_it_is_done_again,
    what_cannot_be_done_again_is_refused,
    a_viewer_steers_only_what_they_started,
    a_scan_begins_when_it_was_asked_to,
    urgent_scans_go_first,
    a_subscription_that_is_throttled_holds_up_no_other,
    what_a_subscription_tells_late_is_scanned_too,
);

async fn ask(api: &Api, role: &str, id: &str, what: &str) -> Answer {
    api.role(role).send(Method::POST, &format!("/api/jobs/{id}/{what}"), None).await
}

async fn retry(api: &Api, id: &str, scope: &str) -> Answer {
    api.operator().post(&format!("/api/jobs/{id}/retry"), json!({"scope": scope})).await
}

fn lists_a_later_page(call: &Call) -> bool {
    matches!(&call.operation, Operation::List { page: Some(_), .. })
}

async fn a_queued_scan_is_paused_and_resumed(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 3);
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let paused = ask(&api, "operator", &id, "pause").await.under_way();
    assert_eq!((&paused["state"], &paused["waitingFor"]), (&json!("waiting"), &json!("pause")));
    assert_eq!(ask(&api, "operator", &id, "pause").await.under_way(), paused, "idempotent");
    let _worker = api.app.worker(WorkerSettings::default()).await;
    // another scan goes by, so the worker had its chance
    let other = api.operator().post(SCAN, json!({"onConflict": "queue"})).await.under_way().id();
    assert_eq!(api.ended(&other).await["state"], "succeeded");
    assert_eq!(api.viewer().get(&format!("/api/jobs/{id}")).await.ok(200)["state"], "waiting");
    let resumed = ask(&api, "operator", &id, "resume").await.under_way();
    assert_eq!(resumed["waitingFor"], Value::Null);
    let done = api.ended(&id).await;
    assert_eq!(
        (&done["state"], &done["attempt"], &done["counts"]["found"]),
        (&json!("succeeded"), &json!(1), &json!(3))
    );
}

async fn a_running_scan_rests_before_its_next_call_and_goes_on_where_it_was(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.page_size(10);
    api.app.cloud.put_secrets("one", &secrets_in("north"), 50);
    api.subscribe("one").await;
    let hold = api.app.cloud.hold(lists_a_later_page);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    api.app.cloud.reached(1, lists_a_later_page).await;
    let paused = ask(&api, "operator", &id, "pause").await.under_way();
    assert_eq!((&paused["state"], &paused["waitingFor"]), (&json!("waiting"), &json!("pause")));
    api.heard(&id).await;
    // the call that was under way is answered; then the part rests
    hold.release();
    let rests = async || {
        let parts = api.viewer().get(&format!("/api/jobs/{id}/scopes")).await.ok(200);
        (parts["data"][0]["state"] == "waiting").then_some(parts)
    };
    keywright_tests::app::eventually("the part rests", rests).await;
    let calls = api.app.cloud.count(|_| true);
    let other = api.operator().post(SCAN, json!({"onConflict": "queue"})).await.under_way().id();
    assert_eq!(api.ended(&other).await["state"], "succeeded", "one that rests holds no lock");
    let in_between = api.app.cloud.count(|_| true);
    assert!(in_between > calls);
    ask(&api, "operator", &id, "resume").await.under_way();
    let done = api.ended(&id).await;
    assert_eq!((&done["state"], &done["counts"]["found"]), (&json!("succeeded"), &json!(50)), "{done}");
    let parts = api.viewer().get(&format!("/api/jobs/{id}/scopes")).await.ok(200);
    assert_eq!((&parts["data"][0]["attempt"], &parts["data"][0]["rescues"]), (&json!(1), &json!(0)));
    assert!(api.app.cloud.count(|_| true) - in_between < 5, "what it had read it does not read again");
}

async fn an_ended_job_is_neither_paused_nor_resumed(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    ask(&api, "operator", &id, "cancel").await.under_way();
    for what in ["pause", "resume"] {
        assert_eq!(ask(&api, "operator", &id, what).await.refused(409, "job_done")["jobId"], id.as_str());
        let nobody = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
        ask(&api, "operator", nobody, what).await.refused(404, "not_found");
    }
}

async fn only_what_failed_is_done_again(database: TestDatabase) {
    let api = Api::on(database).await;
    for region in ["a", "b", "c"] {
        api.app.cloud.put_secrets("one", &secrets_in(region), 2);
    }
    api.app.cloud.deny("list", |call| call.lists("b"));
    api.subscribe("one").await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let first = api.scan(json!({})).await;
    assert_eq!((&first["state"], &first["scopes"]["denied"]), (&json!("partial"), &json!(1)), "{first}");
    api.app.cloud.heal();
    let before = api.app.cloud.count(|call| call.lists("a"));
    let again = retry(&api, &first.id(), "failed").await.under_way();
    assert_ne!(again["id"], first["id"]);
    assert_eq!((&again["retryOf"], &again["trigger"]), (&first["id"], &json!("retry")));
    let done = api.ended(&again.id()).await;
    assert_eq!((&done["state"], &done["scopes"]["total"]), (&json!("succeeded"), &json!(1)), "{done}");
    assert_eq!(api.app.cloud.count(|call| call.lists("a")), before, "what was read is not read again");
    let scan = api.viewer().get(&format!("/api/assets/discovery/scans/{}", done.id())).await.ok(200);
    assert_eq!((&scan["state"], &scan["counts"]["created"]), (&json!("succeeded"), &json!(2)));
    let refused = retry(&api, &done.id(), "failed").await.refused(409, "nothing_to_retry");
    assert_eq!(refused["jobId"], done["id"]);
    // the part itself can be done again too
    let parts = api.viewer().get(&format!("/api/jobs?parentId={}&state=failed", first.id())).await.ok(200);
    let part = retry(&api, &parts["data"][0].id(), "failed").await.under_way();
    assert_eq!(api.ended(&part.id()).await["scopes"]["total"], 1);
}

async fn all_of_it_is_done_again(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("a"), 2);
    api.subscribe("one").await;
    let first = api.operator().post(SCAN, json!({})).await.under_way();
    ask(&api, "operator", &first.id(), "cancel").await.under_way();
    let again = retry(&api, &first.id(), "all").await.under_way();
    let twice = retry(&api, &first.id(), "all").await;
    assert_eq!(twice.header("keywright-deduplicated"), Some("true"));
    assert_eq!(twice.under_way()["id"], again["id"], "asked twice, done once");
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let done = api.ended(&again.id()).await;
    assert_eq!((&done["state"], &done["counts"]["created"]), (&json!("succeeded"), &json!(2)));
    let path = format!("/api/jobs/{}/retry", done.id());
    let waited = api.operator().with("Prefer", "wait=30").post(&path, json!({"scope": "all"})).await.ok(200);
    assert_eq!((&waited["state"], &waited["counts"]["unchanged"]), (&json!("succeeded"), &json!(2)));
    let versions = asset_version::Entity::find().filter(asset_version::Column::ValidTo.is_null());
    assert_eq!(versions.count(api.app.database().reader()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_gives_way_is_done_again() {
    let Some(database) = TestDatabase::postgres().await else { return };
    let other = database.another().await;
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 3);
    api.subscribe("one").await;
    let hold = api.app.cloud.hold(|call| call.lists("north"));
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    api.app.cloud.reached(1, |call| call.lists("north")).await;
    // whoever locks the parent first and then a part meets a cancel head on; it never gives way itself
    let rude = other.begin().await.unwrap();
    rude.execute_unprepared("SET LOCAL deadlock_timeout = '1h'").await.unwrap();
    rude.execute_unprepared(&format!("SELECT 1 FROM job WHERE id = '{id}' FOR UPDATE")).await.unwrap();
    let meet = async {
        let waits = "SELECT 1 AS one FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() \
            AND query LIKE 'UPDATE job SET state = ''canceling''%'";
        let blocked = async || {
            let row = other.reader().query_one_raw(clock::statement(other.backend(), waits, [])).await.unwrap();
            row.map(|_| ())
        };
        keywright_tests::app::eventually("the cancel waits for the parent", blocked).await;
        rude.execute_unprepared(&format!("SELECT 1 FROM job WHERE parent_id = '{id}' FOR UPDATE")).await.unwrap();
        rude.rollback().await.unwrap();
    };
    let (canceled, ()) = tokio::join!(ask(&api, "operator", &id, "cancel"), meet);
    assert_eq!(canceled.under_way()["state"], "canceling");
    hold.release();
    // the part may have been past its last call
    api.ended(&id).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let told = async || {
        let row = other.reader().query_one_raw(clock::statement(other.backend(), deadlocks, [])).await.unwrap();
        (row.unwrap().try_get::<i64>("", "deadlocks").unwrap() > 0).then_some(())
    };
    keywright_tests::app::eventually("there was a deadlock", told).await;
}

async fn what_cannot_be_done_again_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    let subscription = api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    assert_eq!(retry(&api, &id, "all").await.refused(409, "conflict")["jobId"], id.as_str());
    assert_eq!(retry(&api, &id, "some").await.pointers("validation_failed"), ["/scope"]);
    let path = format!("/api/jobs/{id}/retry");
    assert_eq!(api.operator().post(&path, json!({})).await.pointers("validation_failed"), ["/scope"]);
    ask(&api, "operator", &id, "cancel").await.under_way();
    api.admin().with("If-Match", "*").delete(&format!("/api/subscriptions/{subscription}")).await.ok(204);
    retry(&api, &id, "all").await.refused(409, "nothing_to_retry");
}

async fn a_viewer_steers_only_what_they_started(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    for what in ["pause", "resume"] {
        let refused = ask(&api, "viewer", &id, what).await.refused(403, "permission_denied");
        assert_eq!(refused["requiredPermission"], "jobs:control");
    }
    ask(&api, "admin", &id, "cancel").await.under_way();
    let refused = api.viewer().post(&format!("/api/jobs/{id}/retry"), json!({"scope": "all"})).await;
    assert_eq!(refused.refused(403, "permission_denied")["requiredPermission"], "jobs:control");
}

async fn a_scan_begins_when_it_was_asked_to(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 1);
    api.subscribe("one").await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let now = clock::now(api.app.database().reader()).await.unwrap();
    let later = (now + chrono::Duration::hours(2)).format("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    let body = json!({"runAt": later});
    let queued = api.operator().post(SCAN, body.clone()).await.under_way();
    assert_eq!(
        (&queued["state"], &queued["runAt"], &queued["waitingFor"]),
        (&json!("queued"), &json!(later), &Value::Null)
    );
    assert_eq!(queued["request"]["runAt"], later.as_str());
    assert_eq!(api.operator().post(SCAN, body).await.under_way()["id"], queued["id"], "the same is joined");
    assert_eq!(api.scan(json!({})).await["state"], "succeeded", "one for now is another");
    assert_eq!(api.viewer().get(&format!("/api/jobs/{}", queued.id())).await.ok(200)["state"], "queued");
    let db = api.app.database();
    let due = clock::sql(db.backend(), 0);
    let text = format!("UPDATE job SET due_at = {due} WHERE due_at IS NOT NULL");
    db.reader().execute_raw(clock::statement(db.backend(), &text, [])).await.unwrap();
    assert_eq!(api.ended(&queued.id()).await["state"], "succeeded");
    for wrong in ["tomorrow", "2026-05-20T10:30:00", "9999-01-01T00:00:00Z"] {
        assert_eq!(api.operator().post(SCAN, json!({"runAt": wrong})).await.pointers("validation_failed"), ["/runAt"]);
    }
    assert_eq!(
        api.operator().post(SCAN, json!({"priority": "urgent"})).await.pointers("validation_failed"),
        ["/priority"]
    );
}

async fn urgent_scans_go_first(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 1);
    api.subscribe("one").await;
    let mut ids = Vec::new();
    for priority in ["low", "normal", "high"] {
        let job = api.operator().post(SCAN, json!({"priority": priority, "onConflict": "queue"})).await.under_way();
        assert_eq!(job["priority"], priority);
        ids.push(job.id());
    }
    let settings = WorkerSettings { concurrency: 1, lease: Duration::from_secs(8), ..WorkerSettings::default() };
    let _worker = api.app.worker(settings).await;
    let mut ends = Vec::new();
    for id in &ids {
        ends.push(api.ended(id).await["completedAt"].as_str().unwrap().to_owned());
    }
    assert!(ends[2] < ends[1] && ends[1] < ends[0], "{ends:?}");
}

fn scopes_of(account: &'static str) -> impl Fn(&Call) -> bool + Send {
    move |call| call.account == account && call.operation == Operation::Scopes
}

/// Two accounts with three secrets each, and a scan of both.
async fn two_accounts(api: &Api) -> String {
    for account in ["one", "two"] {
        api.app.cloud.put_secrets(account, &secrets_in("north"), 3);
        api.subscribe(account).await;
    }
    api.operator().post(SCAN, json!({})).await.under_way().id()
}

async fn scopes(api: &Api, id: &str) -> Vec<Value> {
    let mut rows = api.walk(&format!("/api/jobs/{id}/scopes?sort=region"), 50).await;
    rows.sort_by_key(|row| (row["subscription"].to_string(), row["region"].to_string()));
    rows
}

async fn a_subscription_that_is_throttled_holds_up_no_other(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.throttle(u32::MAX, Duration::from_secs(600), scopes_of("two"));
    let id = two_accounts(&api).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let waiting = eventually("one is listed, and the other waits", async || {
        let rows = scopes(&api, &id).await;
        let state = |region: &str| rows.iter().find(|row| row["region"] == region).map(|row| row["state"].clone());
        (state("north") == Some(json!("succeeded")) && state("*") == Some(json!("waiting"))).then_some(rows)
    })
    .await;
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    let parts = api.viewer().get(&format!("/api/jobs?parentId={id}&state=waiting")).await.ok(200);
    assert_eq!((&parts["data"][0]["waitingFor"], &parts["data"][0]["attempt"]), (&json!("quota"), &json!(0)));
    let job = api.viewer().get(&format!("/api/jobs/{id}")).await.ok(200);
    assert_eq!(
        (&job["state"], &job["scopes"]["pending"], &job["counts"]["found"]),
        (&json!("running"), &json!(1), &json!(3))
    );
    ask(&api, "operator", &id, "cancel").await.under_way();
    let done = api.ended(&id).await;
    assert_eq!((&done["state"], &done["counts"]["found"]), (&json!("canceled"), &json!(3)));
    // what was not read is read by the retry
    api.app.cloud.heal();
    let again = retry(&api, &id, "failed").await.under_way().id();
    let again = api.ended(&again).await;
    assert_eq!((&again["state"], &again["counts"]["created"]), (&json!("succeeded"), &json!(3)), "{again}");
}

async fn what_a_subscription_tells_late_is_scanned_too(database: TestDatabase) {
    let api = Api::on(database).await;
    // when the scan is planned, and once more
    api.app.cloud.throttle(2, Duration::ZERO, scopes_of("two"));
    let id = two_accounts(&api).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let done = api.ended(&id).await;
    assert_eq!((&done["state"], &done["counts"]["found"]), (&json!("succeeded"), &json!(6)), "{done}");
    let expected = json!({"total": 3, "succeeded": 3, "failed": 0, "denied": 0, "canceled": 0, "pending": 0});
    assert_eq!(done["scopes"], expected);
    let rows = scopes(&api, &id).await;
    assert!(rows.iter().all(|row| row["attempt"] == 1 && row["state"] == "succeeded"), "{rows:?}");
}
