//! Schedules as their clients meet them: their life, what is refused, who owns them, and what they show of their firing.

use chrono::{DateTime, Utc};
use keywright_entities::{audit_outbox, clock, schedule, types::Role, user_account};
use keywright_jobs::{schedules, setup::ids};
use keywright_tests::{
    database::TestDatabase,
    http::{Answer, Api, Identified, column},
    on_both_databases,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, ModelTrait, PaginatorTrait, QueryFilter, QueryOrder,
    sea_query::Expr,
};
use serde_json::{Value, json};
use uuid::Uuid;

on_both_databases!(
    they_are_made_read_changed_and_removed,
    what_cannot_be_is_refused_with_its_place,
    a_patch_merges_and_versions_guard_changes,
    they_are_listed,
    what_fired_is_shown,
    an_owner_without_the_right_blocks,
    a_change_of_the_timing_counts_from_now_on,
);

const PATH: &str = "/api/schedules";

fn nightly() -> Value {
    json!({"name": "nightly", "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "kind": "discovery.scan"})
}

fn with(mut body: Value, member: &str, value: Value) -> Value {
    body[member] = value;
    body
}

fn instants(times: &Value) -> Vec<DateTime<Utc>> {
    times.as_array().unwrap().iter().map(|at| at.as_str().unwrap().parse().unwrap()).collect()
}

async fn they_are_made_read_changed_and_removed(database: TestDatabase) {
    let api = Api::on(database).await;
    let body = with(nightly(), "body", json!({"mode": "force", "onConflict": "queue"}));
    let made = api.operator().post(PATH, body.clone()).await;
    assert_eq!(made.header("etag"), Some("\"1\""));
    let location = made.header("location").unwrap().to_owned();
    let made = made.ok(201);
    assert_eq!(location, format!("{PATH}/{}", made.id()));
    for member in ["name", "cron", "timeZone", "kind", "body"] {
        assert_eq!(made[member], body[member], "{member}");
    }
    assert_eq!((&made["enabled"], &made["catchUp"]), (&json!(true), &json!("last")));
    assert_eq!(made["owner"]["name"], "admin", "a token's owner is its user");
    let object = made.as_object().unwrap();
    assert!(object.contains_key("lastRun") && made["lastRun"].is_null() && made["blockedReason"].is_null(), "{made}");
    let times = instants(&made["nextFireTimes"]);
    assert!(made["nextFireTimes"][0].as_str().unwrap().ends_with("+00:00"), "{made}");
    let now = clock::now(api.app.database().reader()).await.unwrap();
    assert!(times.len() == 5 && times[0] > now && times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?} at {now}");
    let got = api.viewer().get(&location).await;
    assert_eq!(got.header("etag"), Some("\"1\""));
    assert_eq!(got.ok(200), made);
    let off = api.operator().patch(&location, json!({"enabled": false})).await;
    assert_eq!(off.header("etag"), Some("\"2\""));
    assert_eq!(off.ok(200)["nextFireTimes"], json!([]));
    let on = api.operator().patch(&location, json!({"enabled": true})).await.ok(200);
    assert_eq!(instants(&on["nextFireTimes"]).len(), 5);
    api.operator().delete(&location).await.refused(428, "precondition_required");
    api.operator().with("If-Match", "\"2\"").delete(&location).await.refused(412, "precondition_failed");
    api.operator().with("If-Match", "\"3\"").delete(&location).await.ok(204);
    api.viewer().get(&location).await.refused(404, "not_found");
    api.operator().patch(&location, json!({})).await.refused(404, "not_found");
    let events = audit_outbox::Entity::find()
        .filter(audit_outbox::Column::SubjectId.eq(made.id()))
        .order_by_asc(audit_outbox::Column::At)
        .order_by_asc(audit_outbox::Column::Id)
        .all(api.app.database().reader())
        .await
        .unwrap();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["schedule.created", "schedule.updated", "schedule.updated", "schedule.deleted"]);
    assert!(events.iter().all(|event| event.request_id.is_some()), "{events:?}");
}

async fn what_cannot_be_is_refused_with_its_place(database: TestDatabase) {
    let api = Api::on(database).await;
    let one = api.subscribe("one").await;
    let nobody = "0198f3c2-5d1c-7a3b-9c57-2f1d6b0e4a99";
    let invalid = "validation_failed";
    let cases = [
        (with(nightly(), "cron", json!("0 0 30 2 *")), invalid, vec!["/cron"]),
        (with(nightly(), "cron", json!("0 0 31 4,6,9,11 *")), invalid, vec!["/cron"]),
        (with(nightly(), "cron", json!("@daily")), invalid, vec!["/cron"]),
        (with(nightly(), "cron", json!("0 30 2 * * *")), invalid, vec!["/cron"]),
        (with(nightly(), "cron", json!("")), invalid, vec!["/cron"]),
        (with(nightly(), "cron", json!("0 ".repeat(200))), invalid, vec!["/cron"]),
        (with(nightly(), "cron", json!(5)), invalid, vec!["/cron"]),
        (with(nightly(), "timeZone", json!("Mars/Olympus")), invalid, vec!["/timeZone"]),
        (with(nightly(), "timeZone", Value::Null), invalid, vec!["/timeZone"]),
        (with(with(nightly(), "cron", json!("x")), "timeZone", json!("y")), invalid, vec!["/cron", "/timeZone"]),
        (with(nightly(), "kind", json!("discovery.scope")), invalid, vec!["/kind"]),
        (with(nightly(), "kind", json!("rotation.plan")), invalid, vec!["/kind"]),
        (with(nightly(), "catchUp", json!("some")), invalid, vec!["/catchUp"]),
        (with(nightly(), "name", json!("")), invalid, vec!["/name"]),
        (with(nightly(), "body", json!([])), invalid, vec!["/body"]),
        (with(nightly(), "body", json!({"mode": "fast"})), invalid, vec!["/body/mode"]),
        (with(nightly(), "body", json!({"mode": "ful"})), invalid, vec!["/body/mode"]),
        (with(nightly(), "body", json!({"subscriptions": []})), invalid, vec!["/body/subscriptions"]),
        (with(nightly(), "body", json!({"subscriptions": [one, nobody]})), invalid, vec!["/body/subscriptions/1"]),
        (with(nightly(), "body", json!({"subscriptions": ["x"]})), invalid, vec!["/body/subscriptions/0"]),
        (with(nightly(), "body", json!({"onConflict": "fail"})), invalid, vec!["/body/onConflict"]),
        (with(nightly(), "body", json!({"runAt": "2027-01-01T00:00:00Z"})), invalid, vec!["/body/runAt"]),
        (with(nightly(), "body", json!({"priority": "urgent"})), invalid, vec!["/body/priority"]),
        (with(nightly(), "body", json!({"x": 1})), "unknown_field", vec!["/body/x"]),
        (with(nightly(), "x", json!(1)), "unknown_field", vec!["/x"]),
        (with(nightly(), "nextFireTimes", json!([])), "unknown_field", vec!["/nextFireTimes"]),
        (with(with(nightly(), "cron", json!("x")), "body", json!({"mode": 1})), invalid, vec!["/body/mode", "/cron"]),
        (json!({}), invalid, vec!["/cron", "/kind", "/name"]),
    ];
    let path = format!("{PATH}/{}", api.operator().post(PATH, nightly()).await.ok(201).id());
    let before = api.viewer().get(&path).await.ok(200);
    for (body, code, pointers) in cases {
        let mut found = api.operator().post(PATH, body.clone()).await.pointers(code);
        found.sort();
        found.dedup();
        assert_eq!(found, pointers, "{body}");
        // a patch to the same is refused as well, but for what a patch may leave out or take away
        if body != json!({}) && !body["timeZone"].is_null() {
            let mut found = api.operator().patch(&path, body.clone()).await.pointers(code);
            found.sort();
            found.dedup();
            assert_eq!(found, pointers, "{body}");
        }
    }
    assert_eq!(api.viewer().get(&path).await.ok(200), before);
    assert_eq!(schedule::Entity::find().count(api.app.database().reader()).await.unwrap(), 1);
}

async fn a_patch_merges_and_versions_guard_changes(database: TestDatabase) {
    let api = Api::on(database).await;
    let one = api.subscribe("one").await;
    let body = with(nightly(), "body", json!({"mode": "force", "subscriptions": [one]}));
    let path = format!("{PATH}/{}", api.operator().post(PATH, body).await.ok(201).id());
    let operator = api.operator();
    let merged = operator.patch(&path, json!({"body": {"mode": "full", "onConflict": "reject"}})).await.ok(200);
    assert_eq!(merged["body"], json!({"mode": "full", "subscriptions": [one], "onConflict": "reject"}));
    let merged = operator.patch(&path, json!({"body": {"subscriptions": null, "mode": null}})).await.ok(200);
    assert_eq!(merged["body"], json!({"onConflict": "reject"}));
    let cleared = operator.patch(&path, json!({"body": null, "timeZone": null, "catchUp": "all"})).await.ok(200);
    assert_eq!(
        (&cleared["body"], &cleared["timeZone"], &cleared["catchUp"]),
        (&json!({}), &json!("UTC"), &json!("all"))
    );
    for wrong in ["name", "cron", "kind", "enabled"] {
        let pointers = operator.patch(&path, json!({wrong: null})).await.pointers("validation_failed");
        assert!(pointers.iter().all(|pointer| *pointer == format!("/{wrong}")), "{pointers:?}");
    }
    let guarded = operator.clone().with("If-Match", "\"4\"");
    guarded.patch(&path, json!({"name": "five"})).await.ok(200);
    guarded.patch(&path, json!({"name": "six"})).await.refused(412, "precondition_failed");
    assert_eq!(api.viewer().get(&path).await.ok(200)["name"], "five");
    // of a body that has become impossible, the rest can still be changed
    operator.patch(&path, json!({"body": {"subscriptions": [one]}})).await.ok(200);
    api.admin().with("If-Match", "*").delete(&format!("/api/subscriptions/{one}")).await.ok(204);
    operator.patch(&path, json!({"enabled": false})).await.ok(200);
    let wrong = operator.patch(&path, json!({"body": {"mode": "force"}})).await;
    assert_eq!(wrong.pointers("validation_failed"), ["/body/subscriptions/0"]);
}

async fn they_are_listed(database: TestDatabase) {
    let api = Api::on(database).await;
    for name in ["c", "a", "b"] {
        let body = with(with(nightly(), "name", json!(name)), "enabled", json!(name != "b"));
        api.operator().post(PATH, body).await.ok(201);
    }
    assert_eq!(column(&api.walk(&format!("{PATH}?sort=-name"), 2).await, "name"), ["c", "b", "a"]);
    assert_eq!(column(&api.walk(&format!("{PATH}?kind=discovery.scan"), 1).await, "name"), ["c", "a", "b"]);
    assert_eq!(column(&api.walk(&format!("{PATH}?enabled=false"), 9).await, "name"), ["b"]);
    assert_eq!(api.viewer().get(&format!("{PATH}?kind=x")).await.pointers("validation_failed"), ["/query/kind"]);
    assert_eq!(api.viewer().get(&format!("{PATH}?sort=cron")).await.pointers("validation_failed"), ["/query/sort"]);
    api.viewer().get(&format!("{PATH}?state=x")).await.refused(400, "unknown_parameter");
}

/// Makes it due since this many seconds, and lets it fire.
async fn fire(api: &Api, id: &str, seconds_ago: i64) {
    make_due(api, id, seconds_ago).await;
    schedules::fire_due(api.app.database()).await.unwrap();
}

async fn make_due(api: &Api, id: &str, seconds_ago: i64) {
    let db = api.app.database();
    let due = clock::micros(clock::now(db.reader()).await.unwrap()) - chrono::TimeDelta::seconds(seconds_ago);
    let changed = schedule::Entity::update_many()
        .col_expr(schedule::Column::NextFireAt, Expr::value(due))
        .filter(schedule::Column::Id.eq(id.parse::<Uuid>().unwrap()))
        .exec(db.reader())
        .await
        .unwrap();
    assert_eq!(changed.rows_affected, 1);
}

async fn shown(api: &Api, id: &str) -> Value {
    api.viewer().get(&format!("{PATH}/{id}")).await.ok(200)
}

async fn what_fired_is_shown(database: TestDatabase) {
    let api = Api::on(database).await;
    let made = api.operator().post(PATH, with(nightly(), "body", json!({"mode": "force"}))).await.ok(201);
    let id = made.id();
    fire(&api, &id, 5).await;
    let refused = shown(&api, &id).await;
    assert_eq!(refused["lastRun"]["outcome"], "refused", "{refused}");
    assert_eq!(refused["lastRun"]["reason"]["code"], "no_subscription");
    assert_eq!(refused["lastRun"]["job"], Value::Null);
    assert_eq!(refused["nextFireTimes"], made["nextFireTimes"], "it goes on");
    api.subscribe("one").await;
    fire(&api, &id, 4).await;
    let started = shown(&api, &id).await;
    assert_eq!((&started["lastRun"]["outcome"], &started["lastRun"]["reason"]), (&json!("started"), &Value::Null));
    let job = api.viewer().get(&format!("/api/jobs/{}", started["lastRun"]["job"].as_str().unwrap())).await.ok(200);
    assert_eq!((&job["kind"], &job["trigger"]), (&json!("discovery.scan"), &json!("schedule")));
    assert_eq!(job["requestedBy"], json!({"type": "schedule", "id": id, "name": "nightly"}));
    assert_eq!(job["request"]["mode"], "force");
    assert_eq!(column(&api.walk("/api/assets/discovery/scans?sort=-createdAt", 5).await, "id"), [job.id()]);
    fire(&api, &id, 3).await;
    let joined = shown(&api, &id).await;
    assert_eq!((&joined["lastRun"]["outcome"], &joined["lastRun"]["job"]), (&json!("joined"), &job["id"]));
    let path = format!("{PATH}/{id}");
    api.operator().patch(&path, json!({"body": {"onConflict": "reject"}})).await.ok(200);
    fire(&api, &id, 2).await;
    let rejected = shown(&api, &id).await;
    assert_eq!(rejected["lastRun"]["reason"]["code"], "conflict");
    assert_eq!((&rejected["lastRun"]["outcome"], &rejected["lastRun"]["job"]), (&json!("refused"), &job["id"]));
    api.operator().patch(&path, json!({"catchUp": "none"})).await.ok(200);
    fire(&api, &id, 3600).await;
    let missed = shown(&api, &id).await;
    assert_eq!((&missed["lastRun"]["outcome"], &missed["lastRun"]["job"]), (&json!("missed"), &Value::Null));
    // firing is no change of the definition
    assert_eq!(api.viewer().get(&path).await.header("etag"), Some("\"3\""));
    let fired = audit_outbox::Entity::find()
        .filter(audit_outbox::Column::EventType.eq("schedule.fired"))
        .filter(audit_outbox::Column::SubjectId.eq(&id))
        .all(api.app.database().reader())
        .await
        .unwrap();
    assert_eq!(fired.len(), 4, "{fired:?}");
    assert!(fired.iter().all(|event| event.actor_id.as_deref() == Some(&id)));
    api.operator().with("If-Match", "*").delete(&path).await.ok(204);
    api.viewer().get(&format!("/api/jobs/{}", job.id())).await.ok(200);
}

/// A user with a token of this role.
async fn user(api: &Api, name: &str, role: Role) -> (user_account::Model, String) {
    let db = api.app.database();
    let now = clock::now(db.reader()).await.unwrap();
    let row = user_account::ActiveModel {
        id: Set(ids::new()),
        name: Set(name.to_owned()),
        name_key: Set(user_account::name_key(name)),
        password_hash: Set(None),
        password_generated: Set(false),
        role: Set(role),
        disabled: Set(false),
        subscriptions: Set(None),
        sso_issuer: Set(None),
        sso_subject: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    let row = row.insert(db.reader()).await.unwrap();
    let operator = keywright_api::auth::operator::create_token(db, name, role, Some(name), None).await.unwrap();
    use secrecy::ExposeSecret;
    (row, operator.expose_secret().to_owned())
}

async fn set(api: &Api, user: &user_account::Model, column: user_account::Column, value: impl Into<sea_orm::Value>) {
    user_account::Entity::update_many()
        .col_expr(column, Expr::value(value))
        .filter(user_account::Column::Id.eq(user.id))
        .exec(api.app.database().reader())
        .await
        .unwrap();
}

async fn an_owner_without_the_right_blocks(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let (ada, token) = user(&api, "ada", Role::Operator).await;
    let made = api.bearing(&token).post(PATH, with(nightly(), "body", json!({"onConflict": "queue"}))).await.ok(201);
    let (id, path) = (made.id(), format!("{PATH}/{}", made.id()));
    assert_eq!(made["owner"], json!({"id": ada.id, "name": "ada"}));
    let jobs = async || api.walk("/api/jobs?kind=discovery.scan", 50).await.len();
    let blocked = async |code: &str| {
        let now = shown(&api, &id).await;
        assert_eq!(now["blockedReason"]["code"], code, "{now}");
        let before = now["lastRun"].clone();
        for seconds in [20, 10] {
            fire(&api, &id, seconds).await;
        }
        let now = shown(&api, &id).await;
        assert_eq!((&now["lastRun"], &now["blockedReason"]["code"]), (&before, &json!(code)));
        assert_eq!(instants(&now["nextFireTimes"]).len(), 5);
        now
    };
    set(&api, &ada, user_account::Column::Disabled, true).await;
    blocked("owner_disabled").await;
    set(&api, &ada, user_account::Column::Disabled, false).await;
    // it unblocks by itself
    assert_eq!(shown(&api, &id).await["blockedReason"], Value::Null);
    fire(&api, &id, 5).await;
    assert_eq!((&shown(&api, &id).await["lastRun"]["outcome"], jobs().await), (&json!("started"), 1));
    set(&api, &ada, user_account::Column::Role, "viewer").await;
    let lacking = blocked("owner_lacks_permission").await;
    assert_eq!(lacking["blockedReason"]["requiredPermission"], "jobs:start");
    // whoever changes it becomes its owner, and it fires with their rights
    let taken = api.admin().patch(&path, json!({})).await.ok(200);
    assert_eq!((&taken["owner"]["name"], &taken["blockedReason"]), (&json!("admin"), &Value::Null));
    fire(&api, &id, 4).await;
    assert_eq!(jobs().await, 2);
    set(&api, &ada, user_account::Column::Role, "operator").await;
    api.bearing(&token).patch(&path, json!({})).await.ok(200);
    ada.delete(api.app.database().reader()).await.unwrap();
    let missing = blocked("owner_missing").await;
    assert_eq!(missing["owner"]["name"], Value::Null);
    assert_eq!(jobs().await, 2);
    let told = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq("schedule.blocked"));
    assert_eq!(told.count(api.app.database().reader()).await.unwrap(), 3, "once per time that it was blocked");
}

async fn a_change_of_the_timing_counts_from_now_on(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let (id, path) = {
        let made = api.operator().post(PATH, with(nightly(), "catchUp", json!("all"))).await.ok(201);
        (made.id(), format!("{PATH}/{}", made.id()))
    };
    let runs = async || shown(&api, &id).await["lastRun"].clone();
    let patch = async |body: Value| -> Answer { api.operator().patch(&path, body).await };
    make_due(&api, &id, 3600).await;
    patch(json!({"enabled": false})).await.ok(200);
    schedules::fire_due(api.app.database()).await.unwrap();
    patch(json!({"enabled": true})).await.ok(200);
    schedules::fire_due(api.app.database()).await.unwrap();
    assert_eq!(runs().await, Value::Null, "the time in which it was disabled is not made up for");
    make_due(&api, &id, 3600).await;
    patch(json!({"cron": "45 3 * * *"})).await.ok(200);
    schedules::fire_due(api.app.database()).await.unwrap();
    assert_eq!(runs().await, Value::Null, "nor the instants of another expression");
    make_due(&api, &id, 3600).await;
    patch(json!({"name": "other"})).await.ok(200);
    schedules::fire_due(api.app.database()).await.unwrap();
    assert_eq!(runs().await["outcome"], "started", "another name changes nothing about what is due");
}
