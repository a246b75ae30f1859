//! How the queues stand, who works, and who may scrape it.

use keywright_entities::{clock, job, worker};
use keywright_jobs::setup::ids;
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{Api, Identified, SCAN},
    on_both_databases,
    scrape::Scrape,
};
use keywright_worker::providers::memory::secrets_in;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait};
use serde_json::{Value, json};

on_both_databases!(
    queues_are_counted_and_only_live_workers_shown,
    a_scrape_tells_how_the_queues_stand,
    elsewhere_than_on_loopback_a_scrape_needs_a_token,
    a_trace_goes_with_the_job_and_its_parts,
);

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn queue(api: &Api, kind: &str) -> Value {
    let queues = api.viewer().get("/api/queues").await.ok(200);
    queues["queues"].as_array().unwrap().iter().find(|queue| queue["kind"] == kind).unwrap().clone()
}

async fn seen(api: &Api, name: &str, seconds_ago: i64) {
    let now = clock::now(api.app.database().reader()).await.unwrap();
    let row = worker::ActiveModel {
        id: Set(ids::new()),
        name: Set(name.to_owned()),
        version: Set("9.9.9".to_owned()),
        labels: Set(json!(["dmz"])),
        identity: Set(json!({})),
        concurrency: Set(7),
        started_at: Set(now - chrono::TimeDelta::hours(1)),
        last_seen_at: Set(now - chrono::TimeDelta::seconds(seconds_ago)),
        last_claim_at: Set(None),
    };
    row.insert(api.app.database().reader()).await.unwrap();
}

async fn queues_are_counted_and_only_live_workers_shown(database: TestDatabase) {
    let api = Api::on(database).await;
    let nothing = json!({"kind": "discovery.scan", "queued": 0, "running": 0, "waiting": 0, "oldestAgeSeconds": null,
        "ratePerSecond": 0.0});
    assert_eq!(queue(&api, "discovery.scan").await, nothing);
    seen(&api, "alive", 1).await;
    seen(&api, "dead", 3600).await;
    let workers = api.viewer().get("/api/queues").await.ok(200)["workers"].clone();
    assert_eq!(workers.as_array().unwrap().len(), 1, "{workers}");
    let one = &workers[0];
    assert_eq!((&one["name"], &one["version"], &one["labels"]), (&json!("alive"), &json!("9.9.9"), &json!(["dmz"])));
    assert_eq!((&one["concurrency"], &one["lastClaimAt"], &one["identity"]), (&json!(7), &Value::Null, &json!({})));
    api.subscribe("one").await;
    let later = json!({"runAt": "2099-01-01T00:00:00+00:00"});
    if api.operator().post(SCAN, later).await.status == 202 {
        let queue = queue(&api, "discovery.scan").await;
        assert_eq!((&queue["queued"], &queue["oldestAgeSeconds"]), (&json!(1), &Value::Null), "{queue}");
    }
    let job = api.operator().post(SCAN, json!({"onConflict": "queue"})).await.under_way();
    let waiting = queue(&api, "discovery.scan").await;
    assert!(waiting["oldestAgeSeconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{waiting}");
    api.operator().post(&format!("/api/jobs/{}/pause", job.id()), json!({})).await;
    let paused = queue(&api, "discovery.scan").await;
    assert_eq!((&paused["waiting"], &paused["oldestAgeSeconds"]), (&json!(1), &Value::Null), "{paused}");
    api.operator().post(&format!("/api/jobs/{}/resume", job.id()), json!({})).await;
    let worker = api.app.worker(WorkerSettings::default()).await;
    api.ended(&job.id()).await;
    let ended = queue(&api, "discovery.scan").await;
    assert_eq!((&ended["running"], &ended["waiting"]), (&json!(0), &json!(0)), "{ended}");
    assert_eq!(ended["ratePerSecond"], 1.0 / 60.0);
    worker.stop().await;
}

async fn a_scrape_tells_how_the_queues_stand(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    api.operator().post(SCAN, json!({})).await.under_way();
    api.nobody().get("/api/nowhere").await.refused(404, "not_found");
    let answer = api.nobody().get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.status, 200);
    let told = Scrape::parse(&answer.text);
    assert_eq!(told.get("keywright_jobs_queued", &[("kind", "discovery.scan")]), Some(1.0));
    assert_eq!(told.get("keywright_jobs_queued", &[("kind", "discovery.scope")]), Some(0.0));
    assert_eq!(told.get("keywright_workers_live", &[]), Some(0.0));
    assert_eq!(told.get("keywright_database_up", &[]), Some(1.0));
    let scans = [("route", SCAN), ("method", "POST"), ("status", "202")];
    assert!(told.get("keywright_http_requests_total", &scans).unwrap() >= 1.0);
    assert!(told.get("keywright_http_request_duration_seconds_count", &scans[..2]).unwrap() >= 1.0);
    assert!(told.get("keywright_http_requests_total", &[("route", "-"), ("status", "404")]).is_some());
    assert!(!answer.text.contains("nowhere"));
}

async fn elsewhere_than_on_loopback_a_scrape_needs_a_token(database: TestDatabase) {
    let api = Api::believing(database, [0, 0, 0, 0].into()).await;
    api.nobody().get("/metrics").await.refused(401, "token_missing");
    for header in ["X-Forwarded-For", "X-Real-IP", "Forwarded"] {
        api.nobody().with(header, "127.0.0.1").get("/metrics").await.refused(401, "token_missing");
    }
    api.bearing("kw_wrong").get("/metrics").await.refused(401, "token_invalid");
    assert_eq!(api.viewer().get("/metrics").await.status, 200);
}

async fn a_trace_goes_with_the_job_and_its_parts(database: TestDatabase) {
    let api = Api::on(database).await;
    api.app.cloud.put_secrets("one", &secrets_in("north"), 2);
    api.subscribe("one").await;
    let queue = json!({"onConflict": "queue"});
    let traced = api.operator().with("traceparent", TRACE).post(SCAN, queue.clone()).await.under_way().id();
    let garbage = api.operator().with("traceparent", "00-zz\u{2603}").post(SCAN, queue.clone()).await.under_way().id();
    let twice = api.operator().with("traceparent", TRACE).with("traceparent", TRACE);
    let twice = twice.post(SCAN, queue).await.under_way().id();
    let worker = api.app.worker(WorkerSettings::default()).await;
    for id in [&traced, &garbage, &twice] {
        api.ended(id).await;
    }
    worker.stop().await;
    let jobs = job::Entity::find().all(api.app.database().reader()).await.unwrap();
    let mut parts = 0;
    for job in jobs {
        let root = job.parent_id.unwrap_or(job.id).to_string();
        parts += usize::from(job.parent_id.is_some());
        assert_eq!(job.traceparent.as_deref(), (root == traced).then_some(TRACE), "{job:?}");
    }
    assert!(parts >= 3);
}
