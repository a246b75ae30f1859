//! Four eyes: what one person asks for and another decides.

use super::{
    idempotency::events,
    settings::{SETTINGS, set},
};
use chrono::TimeDelta;
use keywright_api::error::{ApiError, Code};
use keywright_entities::{
    approval, clock, job,
    types::{ApprovalState, JobState, WaitingFor},
    user_account,
};
use keywright_jobs::{
    approvals::{self, Ask, Decider, Decision},
    audit::Actor,
    queue::{Enqueued, Requester},
    setup::ids,
};
use keywright_tests::{
    app::{WorkerSettings, eventually},
    database::TestDatabase,
    http::{Api, Client, Identified, SCAN},
    on_both_databases,
    people::{disable, person},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_databases!(
    a_change_of_settings_waits_for_somebody_else,
    what_was_planned_for_another_version_is_stale,
    of_parallel_decisions_one_is_taken,
    a_job_waits_whatever_is_asked_of_it_and_goes_on_when_approved,
    a_denied_job_is_canceled_and_a_canceled_one_needs_no_decision,
    what_nobody_decides_in_time_is_over_and_its_job_canceled,
    a_decision_that_is_not_committed_has_done_nothing,
    whoever_lost_the_right_gets_nothing_done,
    what_cannot_wait_is_a_refusal_and_leaves_no_trace,
);

const APPROVALS: &str = "/api/approvals";

async fn decide(client: &Client<'_>, id: &str, how: &str) -> keywright_tests::http::Answer {
    client.post(&format!("{APPROVALS}/{id}/{how}"), json!({"comment": "seen"})).await
}

async fn under_four_eyes(api: &Api) {
    set(api, json!({"fourEyes": ["settings.update"]})).await.ok(200);
}

/// Asks for it as the administrator and returns the approval.
async fn asked(api: &Api, patch: Value) -> Value {
    let answer = set(api, patch).await;
    let location = answer.header("location").map(str::to_owned);
    let approval = answer.ok(202);
    assert_eq!(location, Some(format!("{APPROVALS}/{}", approval.id())));
    approval
}

async fn a_change_of_settings_waits_for_somebody_else(database: TestDatabase) {
    let api = Api::on(database).await;
    let (bob, eve) = (person(&api, "bob", "operator").await, person(&api, "eve", "viewer").await);
    let (bob, eve) = (api.bearing(&bob), api.bearing(&eve));
    under_four_eyes(&api).await;
    let patch = json!({"thresholds": {"warningDays": 60}});
    let approval = asked(&api, patch.clone()).await;
    assert_eq!((&approval["state"], &approval["action"]), (&json!("pending"), &json!("settings.update")));
    assert_eq!(approval["subject"], json!({"type": "settings", "id": null}));
    assert_eq!((&approval["requestedBy"]["name"], &approval["jobId"]), (&json!("admin"), &Value::Null));
    assert_eq!(approval["plan"]["content"]["thresholds"], patch["thresholds"]);
    let instant = |member: &str| approval[member].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(instant("expiresAt") - instant("createdAt"), TimeDelta::hours(72));
    assert_eq!(asked(&api, patch).await.id(), approval.id(), "asked twice, it is asked once");
    assert_eq!(api.viewer().get(SETTINGS).await.ok(200)["thresholds"]["warningDays"], 30);
    let id = approval.id();
    assert_eq!(eve.get(&format!("{APPROVALS}/{id}")).await.ok(200), approval);
    decide(&eve, &id, "approve").await.refused(403, "permission_denied");
    // through whichever of their credentials
    for own in ["admin", "operator", "session"] {
        for how in ["approve", "deny"] {
            decide(&api.role(own), &id, how).await.refused(403, "self_approval");
        }
    }
    let pending = bob.get(&format!("{APPROVALS}?state=pending&action=settings.update")).await.ok(200);
    assert_eq!(pending["data"], json!([approval]));
    let approved = decide(&bob, &id, "approve").await.ok(200);
    assert_eq!((&approved["state"], &approved["comment"]), (&json!("approved"), &json!("seen")));
    assert_eq!((&approved["decidedBy"]["type"], &approved["decidedBy"]["name"]), (&json!("token"), &json!("bob")));
    let now = api.viewer().get(SETTINGS).await;
    assert_eq!(now.header("etag"), Some("\"3\""));
    assert_eq!(now.ok(200)["thresholds"]["warningDays"], 60);
    for how in ["approve", "deny"] {
        decide(&bob, &id, how).await.refused(409, "conflict");
    }
    assert_eq!(bob.get(&format!("{APPROVALS}?state=pending")).await.ok(200)["data"], json!([]));
    let db = api.app.database();
    for (event, count) in [("approval.requested", 1), ("approval.approved", 1), ("settings.updated", 2)] {
        assert_eq!(events(db, event).await, count, "{event}");
    }
    // nor is the rule itself taken away by one alone
    let away = asked(&api, json!({"fourEyes": null})).await;
    assert_eq!(api.viewer().get(SETTINGS).await.ok(200)["fourEyes"], json!(["settings.update"]));
    decide(&bob, &away.id(), "deny").await.ok(200);
    assert_eq!(api.viewer().get(SETTINGS).await.header("etag"), Some("\"3\""));
    assert_eq!(bob.get(&format!("{APPROVALS}?state=denied")).await.ok(200)["data"][0].id(), away.id());
    decide(&bob, &ids::new().to_string(), "approve").await.refused(404, "not_found");
    let long = json!({"comment": "x".repeat(2001)});
    let pointers = bob.post(&format!("{APPROVALS}/{id}/deny"), long).await.pointers("validation_failed");
    assert_eq!(pointers, ["/comment"]);
}

async fn what_was_planned_for_another_version_is_stale(database: TestDatabase) {
    let api = Api::on(database).await;
    let bob = person(&api, "bob", "admin").await;
    let bob = api.bearing(&bob);
    under_four_eyes(&api).await;
    let first = asked(&api, json!({"thresholds": {"warningDays": 50}})).await;
    let second = asked(&api, json!({"thresholds": {"warningDays": 60}})).await;
    assert_ne!(first["planHash"], second["planHash"]);
    decide(&bob, &second.id(), "approve").await.ok(200);
    decide(&bob, &first.id(), "approve").await.refused(412, "plan_stale");
    assert_eq!(api.viewer().get(SETTINGS).await.ok(200)["thresholds"]["warningDays"], 60);
    decide(&bob, &first.id(), "deny").await.ok(200);
}

async fn of_parallel_decisions_one_is_taken(database: TestDatabase) {
    let api = Api::on(database).await;
    let neighbour = api.neighbour().await;
    let (bob, carol) = (person(&api, "bob", "operator").await, person(&api, "carol", "admin").await);
    under_four_eyes(&api).await;
    let id = asked(&api, json!({"thresholds": {"warningDays": 60}})).await.id();
    let decisions = (0..12).map(|number| {
        let client = if number % 2 == 0 { api.bearing(&bob) } else { api.bearing(&carol).at(neighbour.address) };
        let (id, how) = (&id, if number % 3 == 0 { "deny" } else { "approve" });
        async move { decide(&client, id, how).await }
    });
    let answers = futures::future::join_all(decisions).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(taken.len(), 1);
    refused.into_iter().for_each(|answer| {
        answer.refused(409, "conflict");
    });
    let db = api.app.database();
    assert_eq!(events(db, "approval.approved").await + events(db, "approval.denied").await, 1);
    let state =
        approval::Entity::find_by_id(id.parse::<Uuid>().unwrap()).one(db.reader()).await.unwrap().unwrap().state;
    let changed = events(db, "settings.updated").await == 2;
    assert_eq!(changed, state == ApprovalState::Approved);
}

/// A scan that somebody must approve, asked for by the administrator in one transaction.
async fn waiting_scan(api: &Api) -> (String, Uuid) {
    use keywright_jobs::kinds::discovery::request::{self, OnConflict, ScanRequest};
    let db = api.app.database();
    let admin = user_account::by_name(db.reader(), "admin").await.unwrap().unwrap();
    let requester = Requester {
        actor: keywright_entities::types::ActorType::User,
        id: Some(admin.id.to_string()),
        name: Some(admin.name.clone()),
        request_id: None,
        traceparent: None,
    };
    let wanted = ScanRequest {
        mode: keywright_entities::types::ScanMode::Full,
        subscriptions: None,
        on_conflict: OnConflict::Queue,
        priority: 1,
        run_at: None,
    };
    let write = db.begin().await.unwrap();
    let trigger = keywright_entities::types::Trigger::Api;
    let begun = request::scan(&write, &admin.visible(), requester.clone(), trigger, wanted).await.unwrap();
    let Enqueued::New(job) = begun else { panic!("{begun:?}") };
    let ask = Ask {
        action: "test.scan",
        subject: ("scan", Some(job.id.to_string())),
        plan_hash: "0".repeat(64),
        plan: json!({"mode": "full"}),
        subscription: None,
        job: Some(job.id),
    };
    let approval = approvals::request(&write, ask, &requester, Some(admin.id)).await.unwrap();
    write.commit().await.unwrap();
    (approval.id.to_string(), job.id)
}

async fn a_job_waits_whatever_is_asked_of_it_and_goes_on_when_approved(database: TestDatabase) {
    let api = Api::on(database).await;
    let bob = person(&api, "bob", "operator").await;
    let bob = api.bearing(&bob);
    api.app.cloud.put_secrets("one", &keywright_worker::providers::memory::secrets_in("north"), 3);
    api.subscribe("one").await;
    let (approval, id) = waiting_scan(&api).await;
    let _worker = api.app.worker(WorkerSettings::default()).await;
    let path = format!("/api/jobs/{id}");
    // what came later and is less urgent goes by
    let passed_by = async || {
        api.scan(json!({"onConflict": "queue"})).await;
        let shown = api.viewer().get(&path).await.ok(200);
        assert_eq!((&shown["state"], &shown["startedAt"]), (&json!("waiting"), &Value::Null), "{shown}");
        shown["waitingFor"].clone()
    };
    assert_eq!(passed_by().await, "approval");
    api.operator().post(&format!("{path}/resume"), Value::Null).await.ok(202);
    assert_eq!(passed_by().await, "approval");
    api.operator().post(&format!("{path}/pause"), Value::Null).await.ok(202);
    assert_eq!(passed_by().await, "pause");
    api.operator().post(&format!("{path}/resume"), Value::Null).await.ok(202);
    assert_eq!(passed_by().await, "approval");
    let listed = bob.get(&format!("{APPROVALS}?job={id}")).await.ok(200);
    assert_eq!((listed["data"][0].id(), &listed["data"][0]["jobId"]), (approval.clone(), &json!(id)));
    decide(&api.operator(), &approval, "approve").await.refused(403, "self_approval");
    // approved while it is paused it rests on, and needs no other approval
    api.operator().post(&format!("{path}/pause"), Value::Null).await.ok(202);
    decide(&bob, &approval, "approve").await.ok(200);
    assert_eq!(passed_by().await, "pause");
    api.operator().post(&format!("{path}/resume"), Value::Null).await.ok(202);
    assert_eq!(api.ended(&id.to_string()).await["state"], "succeeded");
    let (approval, id) = waiting_scan(&api).await;
    decide(&bob, &approval, "approve").await.ok(200);
    let done = api.ended(&id.to_string()).await;
    assert_eq!((&done["state"], &done["attempt"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(job::by_id(api.app.database().reader(), id).await.unwrap().unwrap().approval_id, None);
}

async fn a_denied_job_is_canceled_and_a_canceled_one_needs_no_decision(database: TestDatabase) {
    let api = Api::on(database).await;
    let bob = person(&api, "bob", "operator").await;
    let bob = api.bearing(&bob);
    api.subscribe("one").await;
    let (denied, id) = waiting_scan(&api).await;
    decide(&bob, &denied, "deny").await.ok(200);
    assert_eq!(api.ended(&id.to_string()).await["state"], "canceled");
    assert_eq!(bob.get(&format!("{APPROVALS}/{denied}")).await.ok(200)["state"], "denied");
    let (pending, id) = waiting_scan(&api).await;
    api.operator().post(&format!("/api/jobs/{id}/cancel"), Value::Null).await.ok(202);
    assert_eq!(api.ended(&id.to_string()).await["state"], "canceled");
    assert_eq!(bob.get(&format!("{APPROVALS}/{pending}")).await.ok(200)["state"], "expired");
    decide(&bob, &pending, "approve").await.refused(409, "conflict");
    let db = api.app.database();
    assert_eq!((events(db, "approval.denied").await, events(db, "approval.expired").await), (1, 1));
    assert_eq!(job::by_id(db.reader(), id).await.unwrap().unwrap().state, JobState::Canceled);
}

async fn what_nobody_decides_in_time_is_over_and_its_job_canceled(database: TestDatabase) {
    let api = Api::on(database).await;
    let bob = person(&api, "bob", "operator").await;
    let bob = api.bearing(&bob);
    api.subscribe("one").await;
    let (id, job) = waiting_scan(&api).await;
    let db = api.app.database();
    assert_eq!(approvals::expire(db).await.unwrap(), 0);
    let past = clock::now(db.reader()).await.unwrap() - TimeDelta::seconds(1);
    let row = approval::Entity::update_many().filter(approval::Column::Id.eq(id.parse::<Uuid>().unwrap()));
    row.col_expr(approval::Column::ExpiresAt, Expr::value(past)).exec(db.reader()).await.unwrap();
    // nobody has seen yet that it is over, and it is
    assert_eq!(bob.get(&format!("{APPROVALS}/{id}")).await.ok(200)["state"], "expired");
    assert_eq!(bob.get(&format!("{APPROVALS}?state=pending")).await.ok(200)["data"], json!([]));
    assert_eq!(bob.get(&format!("{APPROVALS}?state=expired")).await.ok(200)["data"][0].id(), id);
    decide(&bob, &id, "approve").await.refused(409, "conflict");
    assert_eq!(job::by_id(db.reader(), job).await.unwrap().unwrap().waiting_for, Some(WaitingFor::Approval));
    // any worker ends it
    let _worker = api.app.worker(WorkerSettings::default()).await;
    assert_eq!(api.ended(&job.to_string()).await["state"], "canceled");
    eventually("the row says so", async || {
        let row = approval::Entity::find_by_id(id.parse::<Uuid>().unwrap()).one(db.reader()).await.unwrap().unwrap();
        (row.state == ApprovalState::Expired).then_some(())
    })
    .await;
    assert_eq!(events(db, "approval.expired").await, 1);
    assert_eq!(approvals::expire(db).await.unwrap(), 0);
}

async fn a_decision_that_is_not_committed_has_done_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let bob = person(&api, "bob", "operator").await;
    api.subscribe("one").await;
    let (id, job) = waiting_scan(&api).await;
    let db = api.app.database();
    let user = user_account::by_name(db.reader(), "bob").await.unwrap().unwrap();
    let by = Decider {
        actor: Actor::user(user.id, "bob"),
        user: user.id,
        visible: user.visible(),
        request_id: String::new(),
    };
    // as a process that is killed before its commit
    for decision in [Decision::Approve, Decision::Deny] {
        let write = db.begin().await.unwrap();
        approvals::decide(&write, id.parse().unwrap(), decision, &by, None).await.unwrap();
        drop(write);
        let shown = api.bearing(&bob).get(&format!("{APPROVALS}/{id}")).await.ok(200);
        assert_eq!(shown["state"], "pending");
        let row = job::by_id(db.reader(), job).await.unwrap().unwrap();
        assert_eq!((row.state, row.waiting_for), (JobState::Waiting, Some(WaitingFor::Approval)));
    }
    assert_eq!(events(db, "approval.approved").await + events(db, "approval.denied").await, 0);
    decide(&api.bearing(&bob), &id, "approve").await.ok(200);
    assert_eq!(api.viewer().get(&format!("/api/jobs/{job}")).await.ok(200)["state"], "queued");
    api.operator().post(&format!("/api/jobs/{job}/cancel"), Value::Null).await.ok(202);
    let started = api.operator().post(SCAN, json!({})).await.under_way();
    api.operator().post(&format!("/api/jobs/{}/cancel", started.id()), Value::Null).await.ok(202);
}

async fn whoever_lost_the_right_gets_nothing_done(database: TestDatabase) {
    let api = Api::on(database).await;
    let (bob, carol) = (person(&api, "bob", "operator").await, person(&api, "carol", "admin").await);
    under_four_eyes(&api).await;
    let patch = json!({"thresholds": {"warningDays": 60}});
    let asked = api.bearing(&carol).with("If-Match", "*").patch(SETTINGS, patch).await.ok(202);
    disable(&api, "carol").await;
    decide(&api.bearing(&bob), &asked.id(), "approve").await.refused(409, "conflict");
    assert_eq!(api.viewer().get(SETTINGS).await.ok(200)["thresholds"]["warningDays"], 30);
    decide(&api.bearing(&bob), &asked.id(), "deny").await.ok(200);
}

async fn what_cannot_wait_is_a_refusal_and_leaves_no_trace(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let (_, awaited) = waiting_scan(&api).await;
    let queued = async || api.operator().post(SCAN, json!({"onConflict": "queue"})).await.under_way().id();
    let (done, paused) = (queued().await, queued().await);
    api.operator().post(&format!("/api/jobs/{done}/cancel"), Value::Null).await.ok(202);
    api.operator().post(&format!("/api/jobs/{paused}/pause"), Value::Null).await.ok(202);
    let before = api.viewer().get(&format!("/api/jobs/{paused}")).await.ok(200);
    for (job, code) in [
        (ids::new(), Code::NotFound),
        (done.parse().unwrap(), Code::JobDone),
        (awaited, Code::Conflict),
        (paused.parse().unwrap(), Code::Conflict),
    ] {
        let ask = Ask {
            action: "test.scan",
            subject: ("scan", Some(job.to_string())),
            plan_hash: "1".repeat(64),
            plan: json!({}),
            subscription: None,
            job: Some(job),
        };
        let write = api.app.database().begin().await.unwrap();
        let asked = approvals::request(&write, ask, &Requester::system(), None).await.map_err(ApiError::from);
        let refusal = write.settle(asked).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal:?}");
    }
    let listed = api.viewer().get(APPROVALS).await.ok(200);
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "only what was asked for before: {listed}");
    assert_eq!(api.viewer().get(&format!("/api/jobs/{paused}")).await.ok(200), before);
}
