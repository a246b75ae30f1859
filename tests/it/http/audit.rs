//! The audit log over HTTP: read, exported, verified, proved, and who may.

use keywright_entities::{audit_outbox, clock, types::Outcome};
use keywright_jobs::{
    audit::{
        Actor, Event, EventType,
        proof::{
            checkpoint::Checkpoint,
            export::{Inputs, verify},
            keys,
            note::{Note, Verifier},
            tree,
        },
        sequencer::Sequencer,
    },
    metrics,
    setup::database::Database,
};
use keywright_tests::{
    app::{WorkerSettings, sealing},
    database::TestDatabase,
    http::{Api, Identified, SCAN},
    on_both_databases,
    rig::Rig,
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

on_both_databases!(
    the_log_is_read_and_that_it_was_read_is_in_it,
    an_export_is_verified_with_the_open_keys,
    an_event_is_proved_and_so_is_growth,
    a_verifier_that_others_wrote_agrees,
    a_job_verifies_the_log_and_tells_what_is_wrong,
    a_deleted_user_is_known_by_id_alone,
    what_cannot_be_asked_is_refused,
);

const AUDIT: &str = "/api/audit";

/// Numbers and signs all that happened so far.
async fn sequence(database: &Database) {
    let mut sequencer = Sequencer::new(database.clone(), sealing(database).await, Duration::from_millis(1));
    while sequencer.step(true).await.unwrap() > 0 {}
}

async fn the_log_is_read_and_that_it_was_read_is_in_it(database: TestDatabase) {
    let api = Api::on(database).await;
    let made = api.admin().post("/api/users", json!({"name": "Ada", "role": "viewer"})).await.ok(201);
    sequence(api.app.database()).await;
    let shown = api.role("auditor").get(&format!("{AUDIT}?type=user.created&subject={}", made.id())).await.ok(200);
    let [event] = shown["data"].as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!((&event["subject"]["name"], &event["actor"]["name"]), (&json!("Ada"), &json!("admin")));
    assert_eq!((&event["outcome"], &event["details"]["name"]), (&json!("success"), &Value::Null));
    // newest first, in pages that do not overlap
    let all = api.admin().get(AUDIT).await.ok(200);
    let seqs: Vec<i64> = all["data"].as_array().unwrap().iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert!(seqs.len() > 2 && seqs.is_sorted_by(|a, b| a > b), "{seqs:?}");
    let first = api.admin().get(&format!("{AUDIT}?limit=2")).await.ok(200);
    let cursor = first["meta"]["nextCursor"].as_str().unwrap();
    let second = api.admin().get(&format!("{AUDIT}?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!(second["data"][0]["seq"].as_i64().unwrap(), first["data"][1]["seq"].as_i64().unwrap() - 1);
    sequence(api.app.database()).await;
    let reads = api.admin().get(&format!("{AUDIT}?type=audit.read")).await.ok(200);
    assert_eq!(reads["data"].as_array().unwrap().len(), 4, "{reads}");
}

async fn an_export_is_verified_with_the_open_keys(database: TestDatabase) {
    let api = Api::on(database).await;
    api.admin().get(&format!("{AUDIT}/export")).await.refused(409, "conflict");
    sequence(api.app.database()).await;
    let exported = api.role("auditor").get(&format!("{AUDIT}/export")).await;
    assert_eq!((exported.status, exported.header("content-type")), (200, Some("application/x-ndjson")));
    let open = api.nobody().get("/api/evidence/keys").await;
    let given = Inputs { keys: keys::read(&open.text).expect("keys as the verifier reads them"), ..Inputs::default() };
    let report = verify(exported.text.as_bytes(), &given).unwrap();
    assert_eq!(report.from, 0);
    let part = api.admin().get(&format!("{AUDIT}/export?from=1&to=2")).await;
    verify(part.text.as_bytes(), &Inputs { part: true, ..given }).unwrap();
    let csv = api.admin().get(&format!("{AUDIT}/export?format=csv")).await;
    assert_eq!(csv.text.lines().count() as u64, report.to + 1);
    let verified = api.admin().get(&format!("{AUDIT}/verify")).await.ok(200);
    assert_eq!((&verified["valid"], &verified["fault"]), (&json!(true), &Value::Null));
    sequence(api.app.database()).await;
    let told = api.admin().get(&format!("{AUDIT}?type=audit.exported&type=audit.verified")).await.ok(200);
    assert_eq!(told["data"].as_array().unwrap().len(), 4, "{told}");
}

async fn an_event_is_proved_and_so_is_growth(database: TestDatabase) {
    let api = Api::on(database).await;
    sequence(api.app.database()).await;
    let old = api.admin().get(&format!("{AUDIT}/checkpoint")).await.ok(200);
    sequence(api.app.database()).await;
    let new = api.admin().get(&format!("{AUDIT}/checkpoint")).await.ok(200);
    assert_eq!(new["size"].as_i64().unwrap(), old["size"].as_i64().unwrap() + 1, "the first reading");
    let hashes = |proof: &Value| -> Vec<_> {
        proof["hashes"].as_array().unwrap().iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
    };
    let root = |checkpoint: &Value| checkpoint["root"].as_str().unwrap().parse().unwrap();
    let (from, to) = (old["size"].as_u64().unwrap(), new["size"].as_u64().unwrap());
    let proof = api.admin().get(&format!("{AUDIT}/proof?from={from}&to={to}")).await.ok(200);
    assert!(tree::verify_consistency(from, to, &root(&old), &root(&new), &hashes(&proof)));
    let proof = api.admin().get(&format!("{AUDIT}/proof?event=0")).await.ok(200);
    let leaf = tree::leaf(proof["event"].as_str().unwrap().as_bytes());
    let note: Note = proof["checkpoint"].as_str().unwrap().parse().unwrap();
    let keys = keys::read(&api.nobody().get("/api/evidence/keys").await.text).unwrap();
    let (checkpoint, _) = Checkpoint::verify(&note, &keys).unwrap();
    assert!(tree::verify_inclusion(0, checkpoint.size, &leaf, &checkpoint.root, &hashes(&proof)));
    assert!(proof["tlogProof"].as_str().unwrap().starts_with("c2sp.org/tlog-proof@v1\nindex 0\n"));
    let id = serde_json::from_str::<Value>(proof["event"].as_str().unwrap()).unwrap().id();
    let same = api.admin().get(&format!("{AUDIT}/proof?event={id}")).await.ok(200);
    assert_eq!(same["leaf"], proof["leaf"]);
}

async fn a_verifier_that_others_wrote_agrees(database: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let api = Api::on(database).await;
    let get = async |path: String| api.admin().get(&path).await.ok(200);
    let mut checkpoints = Vec::new();
    for count in [1, 6, 260] {
        let write = api.app.database().begin().await.unwrap();
        let event = |n: usize| Event::new(EventType::UserUpdated, Actor::SYSTEM, "user").subject(n).detail("count", n);
        Event::write_all((0..count).map(event), &*write).await.unwrap();
        write.commit().await.unwrap();
        sequence(api.app.database()).await;
        checkpoints.push(get(format!("{AUDIT}/checkpoint")).await);
    }
    let (first, last) = (checkpoints[0]["size"].as_u64().unwrap(), checkpoints[2]["size"].as_u64().unwrap());
    let mut events = Vec::new();
    for event in [0, 1, 6, 7, 255, 256, last - 1] {
        events.push(get(format!("{AUDIT}/proof?event={event}")).await);
    }
    let notes: Vec<&Value> = checkpoints.iter().map(|checkpoint| &checkpoint["note"]).collect();
    let growth = get(format!("{AUDIT}/proof?from={first}&to={last}")).await;
    let keys = api.nobody().get("/api/evidence/keys").await.body();
    let told = json!({"keys": keys, "checkpoints": notes, "events": events, "growth": growth});
    let verdict = rig.judge_log(&told).await.unwrap();
    assert!(verdict.starts_with(&format!("3 checkpoints, 7 events, growth from {first} to {last}")), "{verdict}");
    // it would notice
    let other = Verifier::new("keywright", &[9; 32]).unwrap().to_string();
    let forged = |pointer: &str, value: Value| {
        let mut told = told.clone();
        *told.pointer_mut(pointer).unwrap() = value;
        told
    };
    let another = events[5]["leaf"].clone();
    for forgery in [
        forged("/keys/keys/0/verifierKey", json!(other)),
        forged("/events/4/event", events[3]["event"].clone()),
        forged("/growth/hashes/0", another),
        forged("/checkpoints/0", told["checkpoints"][1].clone()),
    ] {
        rig.judge_log(&forgery).await.unwrap_err();
    }
}

async fn a_job_verifies_the_log_and_tells_what_is_wrong(database: TestDatabase) {
    let api = Api::on(database).await;
    let (auditor, verify) = (api.role("auditor"), format!("{AUDIT}/verify"));
    let begun = auditor.post(&verify, Value::Null).await.under_way();
    assert_eq!(begun["kind"], "audit.verify");
    let path = format!("{AUDIT}/verifications/{}", begun.id());
    auditor.get(&path).await.refused(409, "conflict");
    assert_eq!(auditor.post(&verify, Value::Null).await.under_way().id(), begun.id(), "one at a time");
    let worker = api.app.worker(WorkerSettings::default()).await;
    let ended = api.ended(&begun.id()).await;
    assert_eq!((&ended["state"], &ended["result"]["href"]), (&json!("succeeded"), &json!(path)));
    let found = auditor.get(&path).await.ok(200);
    assert_eq!((&found["valid"], &found["fault"]), (&json!(true), &Value::Null));
    api.viewer().get(&path).await.refused(403, "permission_denied");
    let other = api.subscribe("one").await;
    let scan = api.scan(json!({"subscriptions": [other]})).await.id();
    auditor.get(&format!("{AUDIT}/verifications/{scan}")).await.refused(404, "not_found");
    worker.stop().await;
    // a job has ended, and no event tells of it
    let lost = api.operator().post(SCAN, json!({"subscriptions": [other]})).await.under_way().id();
    const END: &str =
        "UPDATE job SET state = 'succeeded', completed_at = {now}, due_at = NULL, turn = NULL WHERE id = $1";
    let db = api.app.database();
    db.reader().execute_raw(clock::statement(db.backend(), END, [lost.parse::<Uuid>().unwrap().into()])).await.unwrap();
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let again = auditor.post(&verify, Value::Null).await.under_way().id();
    assert_eq!(api.ended(&again).await["state"], "succeeded", "the check came to its end");
    let found = auditor.get(&format!("{AUDIT}/verifications/{again}")).await.ok(200);
    assert_eq!((&found["valid"], &found["fault"]["code"]), (&json!(false), &json!("event_never_logged")));
    // the log, the metrics and the operator's log tell of it
    let told = audit_outbox::Entity::find().filter(audit_outbox::Column::JobId.eq(again.parse::<Uuid>().unwrap()));
    let told = told.filter(audit_outbox::Column::EventType.eq("audit.verified")).all(db.reader()).await.unwrap();
    assert_eq!((told.len(), told[0].outcome), (1, Outcome::Failure));
    let metrics = metrics::text(&metrics::Gauges::default()).unwrap();
    assert!(metrics.contains("keywright_audit_verifications_total{verdict=\"broken\"}"), "{metrics}");
}

async fn a_deleted_user_is_known_by_id_alone(database: TestDatabase) {
    let api = Api::on(database).await;
    let made = api.admin().post("/api/users", json!({"name": "Zenobia", "role": "viewer"})).await.ok(201);
    sequence(api.app.database()).await;
    let path = format!("/api/users/{}", made.id());
    api.admin().with("If-Match", "*").delete(&path).await.ok(204);
    sequence(api.app.database()).await;
    let shown = api.admin().get(&format!("{AUDIT}?subject={}", made.id())).await;
    assert!(shown.text.contains("user.deleted") && !shown.text.contains("Zenobia"), "{}", shown.text);
    assert_eq!(api.admin().get(&format!("{AUDIT}/verify")).await.ok(200)["valid"], json!(true));
}

async fn what_cannot_be_asked_is_refused(database: TestDatabase) {
    let api = Api::on(database).await;
    api.admin().get(&format!("{AUDIT}/checkpoint")).await.refused(404, "not_found");
    sequence(api.app.database()).await;
    for (query, pointer) in [
        ("proof", "/query"),
        ("proof?event=1&from=1&to=1", "/query"),
        ("proof?from=1", "/query"),
        ("proof?event=x", "/query/event"),
        ("proof?from=1&to=1000000", "/query/to"),
        ("proof?from=0&to=1", "/query/from"),
        ("export?to=1000000", "/query/to"),
        ("export?from=-1", "/query/from"),
        ("export?format=pdf", "/query/format"),
    ] {
        let refused = api.admin().get(&format!("{AUDIT}/{query}")).await;
        assert_eq!(refused.pointers("validation_failed"), [pointer], "{query}");
    }
    api.admin().get(&format!("{AUDIT}/proof?event=999999")).await.refused(404, "not_found");
}
