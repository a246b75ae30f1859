//! Jobs as clients poll, wait for, list and cancel them.

use keywright_entities::{audit_outbox, job};
use keywright_tests::{
    app::{PATIENCE, WorkerSettings, eventually},
    database::TestDatabase,
    http::{ASSETS, Answer, Api, Identified, SCAN, column},
    on_both_databases,
};
use keywright_worker::providers::memory::{Call, Operation, secrets_in};
use reqwest::Method;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::{Value, json};
use std::collections::BTreeMap;

on_both_databases!(
    a_job_has_every_member_of_the_contract,
    a_wait_ends_when_the_version_moves,
    a_wait_without_news_ends_with_the_state_so_far,
    lists_are_filtered,
    a_queued_job_is_canceled_at_once,
    a_running_job_is_canceled_after_its_call_and_keeps_what_it_found,
    a_job_that_ended_cannot_be_canceled,
    viewers_cancel_only_what_they_started,
    snapshots_of_a_running_job_add_up_and_grow,
    each_event_is_written_once_with_its_cause,
    rows_of_the_same_millisecond_are_paged_once,
);

const MEMBERS: [&str; 27] = [
    "id",
    "kind",
    "state",
    "done",
    "waitingFor",
    "createdAt",
    "runAt",
    "startedAt",
    "heartbeatAt",
    "completedAt",
    "nextAttemptAt",
    "deadlineAt",
    "priority",
    "attempt",
    "maxAttempts",
    "rescues",
    "progress",
    "counts",
    "scopes",
    "error",
    "result",
    "request",
    "requestedBy",
    "trigger",
    "retryOf",
    "parentId",
    "version",
];

async fn cancel(api: &Api, role: &str, id: &str) -> Answer {
    api.role(role).send(Method::POST, &format!("/api/jobs/{id}/cancel"), None).await
}

async fn get(api: &Api, id: &str) -> Value {
    api.viewer().get(&format!("/api/jobs/{id}")).await.ok(200)
}

fn lists_a_later_page(call: &Call) -> bool {
    matches!(&call.operation, Operation::List { page: Some(_), .. })
}

async fn a_job_has_every_member_of_the_contract(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 2);
    api.subscribe("one").await;
    let queued = api.operator().post(SCAN, json!({})).await.under_way();
    let members: Vec<&str> = queued.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = MEMBERS;
    expected.sort_unstable();
    assert_eq!(members, expected);
    for (member, value) in [
        ("kind", json!("discovery.scan")),
        ("state", json!("queued")),
        ("done", json!(false)),
        ("waitingFor", Value::Null),
        ("priority", json!("normal")),
        ("attempt", json!(0)),
        ("rescues", json!(0)),
        ("error", Value::Null),
        ("trigger", json!("api")),
        ("startedAt", Value::Null),
        ("completedAt", Value::Null),
        ("retryOf", Value::Null),
        ("parentId", Value::Null),
        ("request", json!({"mode": "full", "subscriptions": null})),
        ("counts", json!({"found": 0, "created": 0, "changed": 0, "unchanged": 0, "removed": 0, "warnings": 0})),
    ] {
        assert_eq!(queued[member], value, "{member}");
    }
    assert_eq!((&queued["requestedBy"]["type"], &queued["requestedBy"]["name"]), (&json!("token"), &json!("operator")));
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let done = api.ended(&queued.id()).await;
    assert_eq!(
        (&done["state"], &done["done"], &done["attempt"]),
        (&json!("succeeded"), &json!(true), &json!(1)),
        "{done}"
    );
    assert_eq!((&done["nextAttemptAt"], &done["waitingFor"]), (&Value::Null, &Value::Null));
    for member in ["createdAt", "runAt", "startedAt", "completedAt", "deadlineAt"] {
        assert!(done[member].as_str().is_some_and(|at| at.ends_with("+00:00")), "{member} in {done}");
    }
    assert!(
        done["startedAt"].as_str() <= done["completedAt"].as_str()
            && done["createdAt"].as_str() <= done["startedAt"].as_str()
    );
    assert_eq!(done["progress"]["percent"], 100.0);
    assert!(done["version"].as_i64() > queued["version"].as_i64());
    let parts = api.viewer().get(&format!("/api/jobs?parentId={}", queued.id())).await.ok(200);
    assert_eq!((&parts["data"][0]["parentId"], &parts["data"][0]["scopes"]), (&queued["id"], &Value::Null));
    assert_eq!(api.viewer().get(&format!("/api/jobs/{}", parts["data"][0].id())).await.ok(200), parts["data"][0]);
}

async fn a_wait_ends_when_the_version_moves(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 2);
    api.subscribe("one").await;
    let queued = api.operator().post(SCAN, json!({})).await.under_way();
    let path = format!("/api/jobs/{}?wait=60", queued.id());
    let tag = |job: &Value| format!("\"{}\"", job["version"]);
    // one that the client does not have yet is told at once
    let at_once = api.viewer().with("If-None-Match", "\"999\"").get(&path).await;
    assert_eq!(at_once.header("etag"), Some(tag(&queued).as_str()));
    at_once.ok(200);
    let hold = api.app.cloud.hold(|call| call.lists("north"));
    let waiter = api.viewer().with("If-None-Match", tag(&queued));
    let (moved, _worker) = tokio::join!(waiter.get(&path), api.app.worker(WorkerSettings::default()));
    let moved = moved.ok(200);
    assert!(moved["version"].as_i64() > queued["version"].as_i64() && moved["done"] == false, "{moved}");
    hold.release();
    let done = api.ended(&queued.id()).await;
    assert_eq!(done["state"], "succeeded");
    // of what is done nothing more is to come: neither wait is waited
    let unchanged = api.viewer().with("If-None-Match", tag(&done)).get(&path).await;
    assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""));
    assert_eq!(api.viewer().get(&path).await.ok(200), done);
}

async fn a_wait_without_news_ends_with_the_state_so_far(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let queued = api.operator().post(SCAN, json!({})).await.under_way();
    let path = format!("/api/jobs/{}", queued.id());
    let known = api.viewer().with("If-None-Match", format!("\"{}\"", queued["version"]));
    assert_eq!(known.get(&format!("{path}?wait=1")).await.status, 304);
    assert_eq!(known.get(&format!("{path}?wait=0")).await.status, 304);
    assert_eq!(known.get(&path).await.status, 304);
    assert_eq!(api.viewer().get(&format!("{path}?wait=1")).await.ok(200), queued);
    assert_eq!(api.viewer().get(&format!("{path}?wait=0")).await.ok(200), queued);
    for wrong in ["wait=61", "wait=-1", "wait=x", "wait=1.5", "wait=", "wait=1&wait=2"] {
        assert_eq!(
            api.viewer().get(&format!("{path}?{wrong}")).await.pointers("validation_failed"),
            ["/query/wait"],
            "{wrong}"
        );
    }
}

async fn lists_are_filtered(database: TestDatabase) {
    let api = Api::on(database).await;
    let (one, two) = (api.subscribe("one").await, api.subscribe("two").await);
    for account in ["one", "two"] {
        api.app.cloud.put_secrets(account, &secrets_in("north"), 1);
    }
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let first = api.scan(json!({"subscriptions": [one]})).await;
    let second = api.scan(json!({})).await;
    let third = api.scan(json!({"subscriptions": [two]})).await;
    let (first_id, second_id, third_id) = (first.id(), second.id(), third.id());
    let at = second["createdAt"].as_str().unwrap();
    let none: [&String; 0] = [];
    for (query, expected) in [
        ("".to_owned(), &[&third_id, &second_id, &first_id][..]),
        ("kind=discovery.scan".to_owned(), &[&third_id, &second_id, &first_id]),
        ("kind=discovery.scope".to_owned(), &none),
        ("kind=x&kind=discovery.scan&state=succeeded".to_owned(), &[&third_id, &second_id, &first_id]),
        ("state=queued,running,failed".to_owned(), &none),
        ("state=succeeded&state=failed".to_owned(), &[&third_id, &second_id, &first_id]),
        (format!("subscription={one}"), &[&second_id, &first_id]),
        (format!("subscription={two}"), &[&third_id, &second_id]),
        (format!("createdAfter={at}"), &[&third_id]),
        ("createdAfter=1970-01-01T00:00:00Z&sort=createdAt".to_owned(), &[&first_id, &second_id, &third_id]),
    ] {
        let rows = api.walk(&format!("/api/jobs?{query}"), 2).await;
        assert_eq!(column(&rows, "id").iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let parts = api.walk(&format!("/api/jobs?parentId={second_id}&state=succeeded"), 1).await;
    assert_eq!(column(&parts, "kind"), ["discovery.scope", "discovery.scope"]);
    for wrong in ["state=done", "parentId=x", "subscription=1", "createdAfter=yesterday", "sort=state"] {
        api.viewer().get(&format!("/api/jobs?{wrong}")).await.refused(400, "validation_failed");
    }
}

async fn a_queued_job_is_canceled_at_once(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let canceled = cancel(&api, "operator", &id).await.under_way();
    assert_eq!((&canceled["state"], &canceled["done"]), (&json!("canceled"), &json!(true)), "{canceled}");
    assert!(canceled["completedAt"].is_string());
    // again is as good as once
    assert_eq!(cancel(&api, "admin", &id).await.under_way(), canceled);
    assert_eq!(events(&api, "job.canceled").await.len(), 1);
    // what was canceled is not joined
    assert_ne!(api.operator().post(SCAN, json!({})).await.under_way().id(), id);
}

async fn a_running_job_is_canceled_after_its_call_and_keeps_what_it_found(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.page_size(5);
    api.app.cloud.put_secrets("one", &secrets_in("north"), 20);
    api.subscribe("one").await;
    let hold = api.app.cloud.hold(lists_a_later_page);
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    api.app.cloud.reached(1, lists_a_later_page).await;
    eventually("the first page is counted", async || (get(&api, &id).await["counts"]["found"] == 5).then_some(()))
        .await;
    let canceling = cancel(&api, "operator", &id).await.under_way();
    assert_eq!((&canceling["state"], &canceling["done"]), (&json!("canceling"), &json!(false)));
    assert_eq!(cancel(&api, "operator", &id).await.under_way().id(), id);
    // the worker hears of it when it renews its lease, while the call is still under way
    api.heard(&id).await;
    hold.release();
    let done = api.ended(&id).await;
    assert_eq!((&done["state"], &done["counts"]["removed"]), (&json!("canceled"), &json!(0)), "{done}");
    assert_eq!(done["scopes"]["canceled"], 1);
    let kept = api.walk(&format!("{ASSETS}?removed=false"), 50).await.len() as u64;
    assert_eq!(Some(kept), done["counts"]["found"].as_u64());
    assert!((5..20).contains(&kept), "{kept}");
    assert_eq!(cancel(&api, "operator", &id).await.under_way()["state"], "canceled");
    assert_eq!(events(&api, "job.canceled").await.len(), 1);
}

async fn a_job_that_ended_cannot_be_canceled(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let id = api.scan(json!({})).await.id();
    let refused = cancel(&api, "admin", &id).await.refused(409, "job_done");
    assert_eq!(refused["jobId"], json!(id));
    assert_eq!(events(&api, "job.canceled").await.len(), 0);
}

async fn viewers_cancel_only_what_they_started(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    for role in ["viewer", "auditor"] {
        let refused = cancel(&api, role, &id).await.refused(403, "permission_denied");
        assert_eq!(refused["requiredPermission"], "jobs:control");
    }
    assert_eq!(get(&api, &id).await["state"], "queued");
    // the operator who asked for it has become a viewer since
    let all = keywright_entities::api_token::Entity::update_many()
        .col_expr(keywright_entities::api_token::Column::Role, Expr::value("viewer"))
        .filter(keywright_entities::api_token::Column::Name.eq("operator"));
    all.exec(api.app.database().reader()).await.unwrap();
    api.operator().post(SCAN, json!({})).await.refused(403, "permission_denied");
    assert_eq!(cancel(&api, "operator", &id).await.under_way()["state"], "canceled");
}

async fn snapshots_of_a_running_job_add_up_and_grow(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.page_size(10);
    for region in ["a", "b", "c", "d"] {
        api.app.cloud.put_secrets("one", &secrets_in(region), 60);
    }
    api.app.cloud.deny("list", |call| call.lists("d"));
    api.subscribe("one").await;
    let id = api.operator().post(SCAN, json!({})).await.under_way().id();
    let _worker = api.app.worker(WorkerSettings { concurrency: 2, ..WorkerSettings::default() }).await;
    let (mut version, mut found, mut seen) = (0, 0, 0);
    let watching = async {
        loop {
            let watcher = api.viewer().with("If-None-Match", format!("\"{version}\""));
            let answer = watcher.get(&format!("/api/jobs/{id}?wait=20")).await;
            if answer.status == 304 {
                continue;
            }
            let job = answer.ok(200);
            let number = |name: &str| job["scopes"][name].as_u64().unwrap();
            let parts = ["succeeded", "failed", "denied", "canceled", "pending"].map(number);
            assert_eq!(parts.iter().sum::<u64>(), number("total"), "{job}");
            let counts = &job["counts"];
            assert!(counts["found"].as_u64().unwrap() >= found, "{found} before {job}");
            assert_eq!(counts["found"], counts["created"], "{job}");
            assert!(job["version"].as_i64().unwrap() > version);
            (version, found, seen) = (job["version"].as_i64().unwrap(), counts["found"].as_u64().unwrap(), seen + 1);
            if job["done"] == true {
                return job;
            }
        }
    };
    let job = tokio::time::timeout(PATIENCE, watching).await.unwrap();
    assert_eq!(
        (&job["state"], &job["counts"]["found"], &job["scopes"]["denied"]),
        (&json!("partial"), &json!(180), &json!(1))
    );
    assert!(seen > 2, "{seen} states were seen");
}

/// The audit events of this type.
async fn events(api: &Api, event: &str) -> Vec<audit_outbox::Model> {
    let select = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq(event));
    select.all(api.app.database().reader()).await.unwrap()
}

async fn each_event_is_written_once_with_its_cause(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 1);
    let admin = api.admin().with("X-Request-Id", "req-admin");
    let operator = api.operator().with("X-Request-Id", "req-operator");
    let body = json!({"provider": "aws", "externalId": "one", "name": "one"});
    let subscription = admin.post("/api/subscriptions", body.clone()).await.ok(201).id();
    admin.post("/api/subscriptions", body).await.refused(409, "conflict");
    let path = format!("/api/subscriptions/{subscription}");
    admin.patch(&path, json!({"name": "two"})).await.ok(200);
    let canceled = operator.post(SCAN, json!({})).await.under_way().id();
    operator.post(SCAN, json!({})).await.under_way();
    operator.post(SCAN, json!({"onConflict": "reject"})).await.refused(409, "conflict");
    operator.send(Method::POST, &format!("/api/jobs/{canceled}/cancel"), None).await.under_way();
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let job = operator.post(SCAN, json!({})).await.under_way().id();
    api.ended(&job).await;
    admin.clone().with("If-Match", "*").delete(&path).await.ok(204);
    let all = audit_outbox::Entity::find().all(api.app.database().reader()).await.unwrap();
    let mut told: BTreeMap<[Option<String>; 4], usize> = BTreeMap::new();
    for event in all.iter().filter(|event| event.event_type.starts_with("s") || event.event_type.starts_with("job")) {
        // names lie apart from events that have their number
        let event = event.clone();
        let key = [Some(event.event_type), event.subject_id, event.request_id, event.actor_id];
        *told.entry(key).or_default() += 1;
    }
    let expected = |event: &str, subject: &str, request: &str, actor: Option<&str>| {
        ([Some(event), Some(subject), Some(request), actor].map(|text| text.map(str::to_owned)), 1)
    };
    let (admin, operator) = (admin.get("/api/auth/me").await.ok(200), operator.get("/api/auth/me").await.ok(200));
    let (admin, operator) = (admin["credentialId"].as_str(), operator["credentialId"].as_str());
    let wanted = BTreeMap::from([
        expected("subscription.created", &subscription, "req-admin", admin),
        expected("subscription.updated", &subscription, "req-admin", admin),
        expected("subscription.deleted", &subscription, "req-admin", admin),
        expected("scan.requested", &canceled, "req-operator", operator),
        expected("scan.requested", &job, "req-operator", operator),
        expected("job.canceled", &canceled, "req-operator", operator),
        expected("job.ended", &canceled, "req-operator", None),
        expected("job.started", &job, "req-operator", None),
        expected("job.ended", &job, "req-operator", None),
    ]);
    assert_eq!(told, wanted);
    assert!(all.iter().all(|event| event.actor_type.as_str() != "token" || event.actor_id.is_some()));
}

async fn rows_of_the_same_millisecond_are_paged_once(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    for _ in 0..9 {
        api.operator().post(SCAN, json!({"onConflict": "queue"})).await.under_way();
    }
    // as the database's clock writes a full second, which happens to one row in a thousand
    let second = "2026-05-20T10:30:00";
    let db = api.app.database();
    let clock = keywright_entities::clock::sql(db.backend(), 0);
    let at = match db.backend() {
        sea_orm::DbBackend::Sqlite => clock.replace("'now'", &format!("'{second}'")),
        _ => format!("timestamptz '{second}+00'"),
    };
    let rows = job::Entity::update_many().col_expr(job::Column::CreatedAt, Expr::cust(at));
    rows.exec(db.reader()).await.unwrap();
    for sort in ["createdAt", "-createdAt"] {
        let rows = api.walk(&format!("/api/jobs?sort={sort}"), 2).await;
        let ids: std::collections::BTreeSet<String> = column(&rows, "id").into_iter().collect();
        assert_eq!((rows.len(), ids.len()), (9, 9), "{sort}");
        assert_eq!(rows[0]["createdAt"], format!("{second}+00:00"));
    }
    let after = api.viewer().get(&format!("/api/jobs?createdAfter={second}Z")).await.ok(200);
    assert_eq!(after["data"], json!([]));
}
