//! Rotation over HTTP: plan, read, agree, watch, go back, decide.

use chrono::TimeDelta;
use keywright_entities::{rotation, rotation_plan};
use keywright_jobs::provider::ProviderError;
use keywright_tests::{
    app::{TestWorker, WorkerSettings, eventually},
    database::TestDatabase,
    http::{Answer, Api, Identified},
    licence::{Issuer, Terms},
    on_both_databases,
    people::person,
    rotating::{ENTRY, USER, put_asset},
};
use sea_orm::{EntityTrait, PaginatorTrait, sea_query::Expr};
use serde_json::{Value, json};

on_both_databases!(
    a_plan_is_read_and_then_done,
    what_a_plan_was_made_for_may_not_have_changed,
    somebody_else_approves,
    inside_the_grace_time_it_is_rolled_back,
    before_the_promotion_it_is_canceled_and_after_it_is_not,
    a_full_quota_waits_for_a_person,
    many_who_ask_for_the_same_get_one,
    a_policy_is_written_changed_and_removed,
    bad_requests_are_told_what_is_wrong,
    a_licence_has_so_many_rotations_a_month,
);

const POLICIES: &str = "/api/rotation/policies";
const ROTATE: &str = "/api/rotation/rotate";
const ACCOUNT: &str = "123456789012";

/// An account with a user whose access key an entry holds, and a policy without waits.
struct Scene {
    api: Api,
    _worker: TestWorker,
    asset: String,
    policy: String,
}

impl Scene {
    async fn on(database: TestDatabase, policy: Value) -> Self {
        Self::of(Api::on(database).await, policy).await
    }

    async fn of(api: Api, policy: Value) -> Self {
        let worker = api.app.worker(WorkerSettings::default()).await;
        let subscription = api.subscribe(ACCOUNT).await;
        api.app.cloud.put_access_key(USER, ENTRY);
        let asset = put_asset(api.app.database(), subscription.parse().unwrap(), ENTRY).await.to_string();
        let policy = self::policy(policy);
        let policy = api.operator().post(POLICIES, policy).await.ok(201).id();
        Self { api, _worker: worker, asset, policy }
    }

    async fn plan(&self) -> Value {
        let body = json!({"asset": self.asset, "policy": self.policy});
        let job = self.api.operator().post("/api/rotation/plan", body).await.under_way();
        let ended = self.api.ended(&job.id()).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        let href = ended["result"]["href"].as_str().unwrap().to_owned();
        assert_eq!(ended["result"]["type"], "rotationPlan");
        self.api.viewer().get(&href).await.ok(200)
    }

    async fn rotate(&self, body: Value) -> Answer {
        self.api.operator().post(ROTATE, body).await
    }

    async fn begin(&self) -> String {
        self.rotate(json!({"asset": self.asset, "policy": self.policy})).await.under_way().id()
    }

    async fn rotation(&self, id: &str) -> Value {
        self.api.viewer().get(&format!("/api/rotation/rotations/{id}")).await.ok(200)
    }

    async fn comes_to(&self, id: &str, state: &str) -> Value {
        let there = async || Some(self.rotation(id).await).filter(|rotation| rotation["state"] == state);
        eventually(state, there).await
    }

    fn keys(&self) -> Vec<(String, bool)> {
        self.api.app.cloud.keys_of(USER)
    }

    /// The one key that there is.
    #[track_caller]
    fn key(&self) -> String {
        match self.keys().as_slice() {
            [(key, true)] => key.clone(),
            keys => panic!("not one key: {keys:?}"),
        }
    }

    fn holds(&self, key: &str) -> bool {
        String::from_utf8(self.api.app.cloud.stored(ENTRY).value).unwrap().contains(key)
    }
}

fn policy(other: Value) -> Value {
    let mut policy = json!({
        "name": "keys", "method": {"type": "awsAccessKey"}, "graceSeconds": 0, "holdSeconds": 0, "quietSeconds": 0,
        "verify": {"successes": 1, "spacingSeconds": 0, "deadlineSeconds": 60},
    });
    for (name, value) in other.as_object().unwrap() {
        policy[name] = value.clone();
    }
    policy
}

async fn a_plan_is_read_and_then_done(database: TestDatabase) {
    let scene = Scene::on(database, json!({})).await;
    let old = scene.key();
    let plan = scene.plan().await;
    assert_eq!(plan["current"]["credential"], old.as_str(), "{plan}");
    assert_eq!((&plan["gap"], &plan["problems"]), (&json!(false), &json!([])));
    assert!(plan["steps"].as_array().unwrap().len() > 4 && plan["calls"].as_array().unwrap().len() > 5, "{plan}");
    assert!(scene.keys().len() == 1 && scene.holds(&old), "a plan changes nothing");
    let job = scene.rotate(json!({"planHash": plan["planHash"]})).await.under_way();
    let ended = scene.api.ended(&job.id()).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["result"]["href"], format!("/api/rotation/rotations/{}", job.id()));
    let rotation = scene.rotation(&job.id()).await;
    assert_eq!((&rotation["state"], &rotation["planHash"]), (&json!("DONE"), &plan["planHash"]), "{rotation}");
    assert_eq!(rotation["previous"]["credential"], old.as_str());
    let new = scene.key();
    assert!(new != old && scene.holds(&new) && rotation["candidate"]["credential"] == new.as_str());
    let history = rotation["history"].as_array().unwrap();
    let whats: Vec<_> = history.iter().filter(|step| step["outcome"] == "done").map(|step| &step["what"]).collect();
    assert_eq!(whats, ["mint", "stage", "promote", "push", "disable previous", "delete previous"], "{rotation}");
    assert_eq!(scene.api.app.cloud.broken(), [] as [String; 0]);
    scene.rotate(json!({"planHash": plan["planHash"]})).await.refused(412, "plan_stale");
    let listed =
        scene.api.viewer().get(&format!("/api/rotation/rotations?state=DONE&asset={}", scene.asset)).await.ok(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let none = scene.api.viewer().get("/api/rotation/rotations?state=NEEDS_HUMAN&state=DRAINING").await.ok(200);
    assert_eq!(none["data"], json!([]));
    // of a rotation a retry makes a new plan
    let retry = format!("/api/jobs/{}/retry", job.id());
    let again = scene.api.operator().post(&retry, json!({"scope": "all"})).await.under_way();
    assert_eq!((&again["kind"], &again["retryOf"]), (&json!("rotation.plan"), &json!(job.id())));
}

async fn what_a_plan_was_made_for_may_not_have_changed(database: TestDatabase) {
    let scene = Scene::on(database, json!({})).await;
    let plan = scene.plan().await;
    let hash = json!({"planHash": plan["planHash"]});
    let path = format!("{POLICIES}/{}", scene.policy);
    scene.api.operator().patch(&path, json!({"graceSeconds": 5})).await.ok(200);
    scene.rotate(hash.clone()).await.refused(412, "plan_stale");
    scene.api.operator().patch(&path, json!({"graceSeconds": 0, "enabled": false})).await.ok(200);
    scene.rotate(hash.clone()).await.refused(409, "policy_disabled");
    scene.api.operator().patch(&path, json!({"enabled": true})).await.ok(200);
    // a person rotates by hand: the provider tells
    let strange = scene.api.app.cloud.put_strange_key(USER, true);
    let value = json!({"accessKeyId": strange, "secretAccessKey": "secret-of-2"}).to_string();
    scene.api.app.cloud.overwrite(ENTRY, &value);
    let job = scene.rotate(hash.clone()).await.under_way();
    let ended = scene.api.ended(&job.id()).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("failed"), &json!("plan_stale")), "{ended}");
    let rotation = scene.rotation(&job.id()).await;
    assert_eq!((&rotation["state"], &rotation["reason"]["code"]), (&json!("ROLLED_BACK"), &json!("plan_stale")));
    assert!(scene.holds(&strange), "what the person did stays");
    // and a plan has its time
    let long_ago = scene.api.now() - TimeDelta::hours(1);
    let late = rotation_plan::Entity::update_many().col_expr(rotation_plan::Column::ExpiresAt, Expr::value(long_ago));
    late.exec(scene.api.app.database().reader()).await.unwrap();
    scene.rotate(hash).await.refused(412, "plan_stale");
}

async fn somebody_else_approves(database: TestDatabase) {
    let scene = Scene::on(database, json!({"approval": true})).await;
    let unplanned = json!({"asset": scene.asset, "policy": scene.policy});
    scene.rotate(unplanned).await.refused(409, "plan_required");
    let plan = scene.plan().await;
    let job = scene.rotate(json!({"planHash": plan["planHash"]})).await.under_way();
    assert_eq!((&job["state"], &job["waitingFor"]), (&json!("waiting"), &json!("approval")));
    let approvals = scene.api.viewer().get(&format!("/api/approvals?job={}", job.id())).await.ok(200);
    let approval = &approvals["data"][0];
    assert_eq!((&approval["action"], &approval["planHash"]), (&json!("rotation.rotate"), &plan["planHash"]));
    assert_eq!(approval["plan"]["current"], plan["current"], "whoever decides reads what will be done");
    let approve = format!("/api/approvals/{}/approve", approval.id());
    scene.api.operator().post(&approve, json!({})).await.refused(403, "self_approval");
    let bob = person(&scene.api, "bob", "operator").await;
    scene.api.bearing(&bob).post(&approve, json!({})).await.ok(200);
    assert_eq!(scene.api.ended(&job.id()).await["state"], "succeeded");
    // what is denied was never begun
    let plan = scene.plan().await;
    let job = scene.rotate(json!({"planHash": plan["planHash"]})).await.under_way();
    let approvals = scene.api.viewer().get(&format!("/api/approvals?job={}", job.id())).await.ok(200);
    let deny = format!("/api/approvals/{}/deny", approvals["data"][0].id());
    scene.api.bearing(&bob).post(&deny, json!({})).await.ok(200);
    assert_eq!(scene.api.ended(&job.id()).await["state"], "canceled");
    let rotation = scene.rotation(&job.id()).await;
    assert_eq!((&rotation["state"], &rotation["reason"]["code"]), (&json!("ROLLED_BACK"), &json!("canceled")));
    assert_eq!(scene.keys().len(), 1);
}

async fn inside_the_grace_time_it_is_rolled_back(database: TestDatabase) {
    let scene = Scene::on(database, json!({"graceSeconds": 3600})).await;
    let old = scene.key();
    let id = scene.begin().await;
    let draining = scene.comes_to(&id, "DRAINING").await;
    assert_eq!((&draining["canCancel"], &draining["canRollBack"]), (&json!(false), &json!(true)));
    assert!(scene.keys().len() == 2 && !scene.holds(&old), "both work, the new one is current");
    let cancel = format!("/api/jobs/{id}/cancel");
    scene.api.operator().post(&cancel, Value::Null).await.refused(409, "past_point_of_no_return");
    let back = format!("/api/rotation/rotations/{id}/rollback");
    assert_eq!(scene.api.operator().post(&back, Value::Null).await.ok(200)["reversed"], true);
    // it is the other one's turn to drain: an hour as well, which nobody waits for here
    let drains = scene.comes_to(&id, "DRAINING").await;
    assert_eq!((&drains["reversed"], &drains["candidate"]["credential"]), (&json!(true), &json!(old)), "{drains}");
    assert!(scene.holds(&old), "the former one is current again");
    scene.api.operator().post(&back, Value::Null).await.refused(409, "rotation_state");
    assert_eq!(scene.api.app.cloud.broken(), [] as [String; 0]);
    let steps = drains["history"].as_array().unwrap();
    let asked = steps.iter().find(|step| step["what"] == "roll back").expect("who asked is told");
    assert_eq!((&asked["before"], &asked["after"]), (&json!("DRAINING"), &json!("MINT_INTENT")));
}

async fn before_the_promotion_it_is_canceled_and_after_it_is_not(database: TestDatabase) {
    let scene = Scene::on(database, json!({})).await;
    let old = scene.key();
    let hold = scene.api.app.cloud.hold(|call| call.rotates("prove"));
    let id = scene.begin().await;
    scene.comes_to(&id, "STAGED").await;
    let cancel = format!("/api/jobs/{id}/cancel");
    scene.api.operator().post(&cancel, Value::Null).await.under_way();
    scene.api.operator().post(&cancel, Value::Null).await.under_way();
    hold.release();
    let ended = scene.api.ended(&id).await;
    assert_eq!(ended["state"], "canceled", "{ended}");
    let rotation = scene.rotation(&id).await;
    assert_eq!((&rotation["state"], &rotation["reason"]["code"]), (&json!("ROLLED_BACK"), &json!("canceled")));
    assert_eq!(scene.keys(), [(old.clone(), true)], "what was made is taken away");
    assert!(scene.holds(&old) && scene.api.app.cloud.stored(ENTRY).pending.is_none());
    scene.api.operator().post(&cancel, Value::Null).await.under_way();
    let back = format!("/api/rotation/rotations/{id}/rollback");
    scene.api.operator().post(&back, Value::Null).await.refused(409, "rotation_state");
}

async fn a_full_quota_waits_for_a_person(database: TestDatabase) {
    let scene = Scene::on(database, json!({})).await;
    let strange = scene.api.app.cloud.put_strange_key(USER, true);
    let plan = scene.plan().await;
    assert_eq!(plan["problems"][0]["code"], "quota_full", "{plan}");
    let id = scene.begin().await;
    let stands = scene.comes_to(&id, "NEEDS_HUMAN").await;
    assert_eq!(stands["stopped"]["reason"]["code"], "quota_full", "{stands}");
    assert!(stands["stopped"]["runbook"].as_str().is_some_and(|text| text.contains("resume")), "{stands}");
    let waits = async || {
        let job = scene.api.viewer().get(&format!("/api/jobs/{id}")).await.ok(200);
        (job["waitingFor"] == "human").then_some(())
    };
    eventually("the job waits for a person", waits).await;
    assert_eq!(scene.keys().len(), 2, "a stranger's key is never touched");
    let resolve = format!("/api/rotation/rotations/{id}/resolve");
    let say = async |action: &str| {
        scene.api.operator().post(&resolve, json!({"action": action, "reason": "looked at"})).await
    };
    scene.api.operator().post(&resolve, json!({"action": "resume"})).await.refused(400, "validation_failed");
    say("resume").await.ok(200);
    scene.comes_to(&id, "NEEDS_HUMAN").await;
    scene.api.app.cloud.remove_key(USER, &strange);
    // whoever decides twice finds it decided, or stopped once more
    say("resume").await.ok(200);
    let ended = scene.api.ended(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(scene.keys().len(), 1);
    say("abandon").await.refused(409, "rotation_state");
    // another is left as it is
    scene.api.app.cloud.put_strange_key(USER, true);
    let id = scene.begin().await;
    scene.comes_to(&id, "NEEDS_HUMAN").await;
    let resolve = format!("/api/rotation/rotations/{id}/resolve");
    let body = json!({"action": "abandon", "reason": "not now"});
    assert_eq!(scene.api.operator().post(&resolve, body).await.ok(200)["state"], "ABANDONED");
    assert_eq!(scene.api.ended(&id).await["error"]["code"], "abandoned");
}

async fn many_who_ask_for_the_same_get_one(database: TestDatabase) {
    let scene = Scene::on(database, json!({"graceSeconds": 3600})).await;
    let ask = || scene.begin();
    let jobs = futures::future::join_all((0..50).map(|_| ask())).await;
    assert!(jobs.iter().all(|job| *job == jobs[0]), "{jobs:?}");
    scene.comes_to(&jobs[0], "DRAINING").await;
    assert_eq!(rotation::Entity::find().count(scene.api.app.database().reader()).await.unwrap(), 1);
    assert_eq!(scene.api.app.cloud.stored(ENTRY).promoted.len(), 1);
    // another entry with a key of the same user: one at a time, whichever is asked
    let other = format!("{ENTRY}-other");
    let held = String::from_utf8(scene.api.app.cloud.stored(ENTRY).value).unwrap();
    scene.api.app.cloud.put_entry(&other, &held, false);
    let subscription = scene.rotation(&jobs[0]).await["subscription"].as_str().unwrap().parse().unwrap();
    let asset = put_asset(scene.api.app.database(), subscription, &other).await;
    let job = scene.rotate(json!({"asset": asset, "policy": scene.policy})).await.under_way();
    let ended = scene.api.ended(&job.id()).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("failed"), &json!("busy")), "{ended}");
}

async fn a_policy_is_written_changed_and_removed(database: TestDatabase) {
    let scene = Scene::on(database, json!({"graceSeconds": 3600})).await;
    let operator = scene.api.operator();
    operator.post(POLICIES, policy(json!({}))).await.refused(409, "conflict");
    let made = operator.post(POLICIES, json!({"name": "texts"})).await.ok(201);
    let method = json!({"type": "generated", "length": 32, "characters": "alphanumeric", "jsonKey": null});
    assert_eq!((&made["method"], &made["graceSeconds"]), (&method, &json!(3600)), "the defaults");
    let path = format!("{POLICIES}/{}", made.id());
    let patch = json!({"method": {"type": "generated", "length": 64, "characters": "hex", "jsonKey": "password"}});
    let changed = operator.clone().with("If-Match", "\"1\"").patch(&path, patch.clone()).await;
    assert_eq!(changed.header("etag"), Some("\"2\""));
    assert_eq!(changed.ok(200)["method"], patch["method"]);
    operator.clone().with("If-Match", "\"1\"").patch(&path, json!({})).await.refused(412, "precondition_failed");
    operator.delete(&path).await.refused(428, "precondition_required");
    assert_eq!(operator.clone().with("If-Match", "\"2\"").delete(&path).await.status, 204);
    scene.api.viewer().get(&path).await.refused(404, "not_found");
    let names = scene.api.viewer().get(POLICIES).await.ok(200);
    assert_eq!((names["data"].as_array().unwrap().len(), &names["data"][0]["name"]), (1, &json!("keys")));
    // not one that is at work
    let id = scene.begin().await;
    scene.comes_to(&id, "DRAINING").await;
    let own = format!("{POLICIES}/{}", scene.policy);
    operator.with("If-Match", "*").delete(&own).await.refused(409, "conflict");
}

async fn bad_requests_are_told_what_is_wrong(database: TestDatabase) {
    let scene = Scene::on(database, json!({})).await;
    let operator = scene.api.operator();
    let pointers = async |path: &str, body: Value| operator.post(path, body).await.pointers("validation_failed");
    let nobodys = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
    assert_eq!(pointers("/api/rotation/plan", json!({"asset": nobodys})).await, ["/asset"]);
    let body = json!({"asset": scene.asset, "policy": nobodys});
    assert_eq!(pointers("/api/rotation/plan", body.clone()).await, ["/policy"]);
    assert_eq!(pointers(ROTATE, body).await, ["/policy"]);
    assert_eq!(pointers(ROTATE, json!({"planHash": "no such"})).await, ["/planHash"]);
    assert_eq!(pointers(ROTATE, json!({})).await, ["/asset"]);
    assert_eq!(pointers(ROTATE, json!({"asset": scene.asset})).await, ["/policy"]);
    assert_eq!(pointers(ROTATE, json!({"planHash": "x", "policy": scene.policy})).await, ["/policy"]);
    let odd = json!({"name": "odd", "method": {"type": "awsAccessKey", "length": 8, "jsonKey": "x"}});
    assert_eq!(pointers(POLICIES, odd).await, ["/method/length", "/method/jsonKey"]);
    for (member, value) in [
        ("graceSeconds", json!(-1)),
        ("holdSeconds", json!(99_999_999)),
        ("method/length", json!(7)),
        ("verify/successes", json!(0)),
    ] {
        let mut body = policy(json!({"name": "odd", "method": {"type": "generated"}}));
        match member.split_once('/') {
            Some((object, member)) => body[object][member] = value,
            None => body[member] = value,
        }
        assert_eq!(pointers(POLICIES, body).await, [format!("/{member}")]);
    }
    // what an entry holds is no access key, which shows when it is looked at, and is not shown
    scene.api.app.cloud.put_entry(ENTRY, "hunter2-plain", false);
    let id = scene.begin().await;
    let ended = scene.api.ended(&id).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("failed"), &json!("unknown_credential")), "{ended}");
    assert!(!ended.to_string().contains("hunter2"));
    assert_eq!(scene.rotation(&id).await["state"], "ROLLED_BACK");
    // what may not be called is told by its permission
    scene.api.app.cloud.deny("secretsmanager:GetSecretValue", |call| call.rotates("read"));
    let id = scene.begin().await;
    let ended = scene.api.ended(&id).await;
    assert_eq!(ended["error"]["requiredPermission"], "secretsmanager:GetSecretValue", "{ended}");
    scene.api.app.cloud.heal();
    let away = ProviderError::Unavailable { detail: "503".to_owned() };
    scene.api.app.cloud.fail(Some(1), away, |call| call.rotates("held"));
    // it passes
    scene.api.app.cloud.put_access_key(USER, ENTRY);
    let id = scene.begin().await;
    assert_eq!(scene.api.ended(&id).await["state"], "succeeded");
    scene.api.viewer().get(&format!("/api/rotation/plans/{nobodys}")).await.refused(404, "not_found");
    scene.api.viewer().get(&format!("/api/rotation/rotations/{nobodys}")).await.refused(404, "not_found");
}

async fn a_licence_has_so_many_rotations_a_month(database: TestDatabase) {
    let issuer = Issuer::default();
    let api = Api::licensed(database, Terms { file: None, ..issuer.terms() }).await;
    let scene = Scene::of(api, json!({})).await;
    for _ in 0..3 {
        let id = scene.begin().await;
        assert_eq!(scene.api.ended(&id).await["state"], "succeeded");
    }
    let body = json!({"asset": scene.asset, "policy": scene.policy});
    let refused = scene.rotate(body).await.refused(403, "limit_reached");
    assert_eq!(refused["requiredTier"], "PRO");
    assert_eq!(rotation::Entity::find().count(scene.api.app.database().reader()).await.unwrap(), 3);
}
