//! `Idempotency-Key`: made once, with its record and its audit event, however often and wherever it is asked for.

use chrono::TimeDelta;
use keywright_entities::{api_token, audit_outbox, idempotency, subscription, types::Role};
use keywright_jobs::setup::database::Database;
use keywright_tests::{
    app::WorkerSettings,
    database::TestDatabase,
    http::{ADMIN_PASSWORD, Answer, Api, Client, Identified, SCAN},
    on_both_databases,
    rotating::put_asset,
};
use reqwest::Method;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, sea_query::Expr};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

on_both_databases!(
    every_operation_that_creates_replays,
    a_replay_is_the_first_answer_again,
    principal_and_path_keep_keys_apart,
    keys_have_1_to_255_characters_and_are_ignored_where_nothing_is_made,
    what_is_shown_once_is_not_kept,
    a_refusal_keeps_nothing,
    an_expired_key_is_free_at_once_and_pruned_in_batches,
    a_lost_right_is_a_refusal_and_not_a_replay,
    a_wait_is_honoured_afresh,
    a_joined_job_is_replayed_too,
);

pub(super) const KEY: &str = "Idempotency-Key";
pub(super) const SUBSCRIPTIONS: &str = "/api/subscriptions";

/// POSTs that answer 202 without making anything, or join what they made: asked twice, they do the same as asked once.
const IDEMPOTENT_BY_THEMSELVES: &[&str] = &["cancelJob", "pauseJob", "resumeJob", "testSubscription"];

pub(super) fn subscription(account: &str) -> Value {
    json!({"provider": "aws", "externalId": account, "name": account})
}

pub(super) fn replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

pub(super) async fn records(database: &Database) -> Vec<idempotency::Model> {
    idempotency::Entity::find().all(database.reader()).await.unwrap()
}

pub(super) async fn events(database: &Database, event_type: &str) -> u64 {
    let events = audit_outbox::Entity::find().filter(audit_outbox::Column::EventType.eq(event_type));
    events.count(database.reader()).await.unwrap()
}

/// Operations without a body: there is no other thing to ask for, and asking with another key joins what is under way.
const WITHOUT_BODY: &[&str] = &["listAccounts", "startAuditVerification"];

/// How to ask each operation that creates for the same thing, and for another.
fn samples(
    subscribed: &str,
    ended: &str,
    [one, two]: &[String; 2],
    policy: &str,
) -> BTreeMap<&'static str, (String, [Value; 2])> {
    let user = |name| json!({"name": name, "role": "viewer", "password": "a long enough one for this"});
    let schedule = |name| json!({"name": name, "cron": "30 2 * * *", "kind": "discovery.scan"});
    [
        ("createSchedule", ("/api/schedules".to_owned(), ["a", "b"].map(schedule))),
        ("retryJob", (format!("/api/jobs/{ended}/retry"), ["all", "failed"].map(|scope| json!({"scope": scope})))),
        ("listAccounts", (format!("{SUBSCRIPTIONS}/{subscribed}/accounts"), [json!({}), json!({})])),
        ("startAuditVerification", ("/api/audit/verify".to_owned(), [json!({}), json!({})])),
        (
            "buildEvidence",
            ("/api/evidence".to_owned(), [json!({"onConflict": "queue"}), json!({"sample": {"size": 1}})]),
        ),
        ("createSubscription", (SUBSCRIPTIONS.to_owned(), [subscription("two"), subscription("three")])),
        ("createUser", ("/api/users".to_owned(), ["ada", "bob"].map(user))),
        ("createToken", ("/api/tokens".to_owned(), ["a", "b"].map(|name| json!({"name": name, "role": "viewer"})))),
        ("createRotationPolicy", ("/api/rotation/policies".to_owned(), ["a", "b"].map(|name| json!({"name": name})))),
        ("planRotation", ("/api/rotation/plan".to_owned(), [one, two].map(|asset| json!({"asset": asset})))),
        (
            "rotate",
            ("/api/rotation/rotate".to_owned(), [one, two].map(|asset| json!({"asset": asset, "policy": policy}))),
        ),
        ("startScan", (SCAN.to_owned(), [json!({"onConflict": "queue"}), json!({"mode": "force"})])),
    ]
    .into()
}

async fn every_operation_that_creates_replays(database: TestDatabase) {
    let api = Api::on(database).await;
    let subscribed = api.subscribe("one").await;
    let document = api.nobody().get("/openapi.json").await.ok(200);
    let mut creating = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let keyed =
                parameters.filter(|parameter| parameter["name"] == KEY && parameter["in"] == "header").count() == 1;
            let responses = operation["responses"].as_object().unwrap();
            let creates = method == "post"
                && ["201", "202"].iter().any(|status| responses.contains_key(*status))
                && !IDEMPOTENT_BY_THEMSELVES.contains(&id);
            assert_eq!(keyed, creates, "{id}: answer Made<…>, see docs/adding/endpoint.md");
            if creates {
                assert!(responses.contains_key("409") && responses.contains_key("422"), "{id}");
                creating.insert(id.to_owned());
            }
        }
    }
    let ended = api.operator().post(SCAN, json!({})).await.under_way().id();
    api.operator().post(&format!("/api/jobs/{ended}/cancel"), Value::Null).await.ok(202);
    let mut assets = Vec::new();
    for name in ["one", "two"] {
        assets.push(put_asset(api.app.database(), subscribed.parse().unwrap(), name).await.to_string());
    }
    let policy = api.admin().post("/api/rotation/policies", json!({"name": "texts"})).await.ok(201).id();
    let samples = samples(&subscribed, &ended, &assets.try_into().unwrap(), &policy);
    let tried: BTreeSet<String> = samples.keys().map(|id| (*id).to_owned()).collect();
    assert_eq!(tried, creating, "each operation that creates has its samples");
    for (id, (path, [body, another])) in samples {
        let admin = api.admin().with(KEY, id);
        let (first, second) = (admin.post(&path, body.clone()).await, admin.post(&path, body).await);
        assert!([201, 202].contains(&first.status) && !replayed(&first), "{id}: {}", first.text);
        assert!(second.status == first.status && replayed(&second), "{id}: {}", second.text);
        assert_eq!(second.body().id(), first.body().id(), "{id}");
        if WITHOUT_BODY.contains(&id) {
            let joined = api.admin().with(KEY, format!("{id}-2")).post(&path, another).await;
            assert!(!replayed(&joined) && joined.body().id() == first.body().id(), "{id}: {}", joined.text);
            continue;
        }
        admin.post(&path, another.clone()).await.refused(422, "idempotency_key_reused");
        let other = api.admin().with(KEY, format!("{id}-2")).post(&path, another).await;
        assert!(other.status == first.status && other.body().id() != first.body().id(), "{id}: {}", other.text);
    }
}

async fn a_replay_is_the_first_answer_again(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin().with(KEY, "k");
    let first = admin.post(SUBSCRIPTIONS, subscription("one")).await;
    assert!(first.header("idempotent-replayed").is_none());
    // the same value in another spelling
    let spelled = r#" {"name":"one", "externalId":"\u006fne","provider": "aws"}"#.as_bytes().to_vec();
    for body in [subscription("one").to_string().into_bytes(), spelled] {
        let again = admin.send(Method::POST, SUBSCRIPTIONS, Some(("application/json", body))).await;
        assert!(replayed(&again), "{}", again.text);
        assert_eq!((again.status, &again.text), (201, &first.text));
        for name in ["location", "etag", "content-type"] {
            assert!(again.header(name).is_some() && again.header(name) == first.header(name), "{name}");
        }
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    }
    admin.post(SUBSCRIPTIONS, subscription("two")).await.refused(422, "idempotency_key_reused");
    api.admin().post(SUBSCRIPTIONS, subscription("one")).await.refused(409, "conflict");
    let db = api.app.database();
    assert_eq!(subscription::Entity::find().count(db.reader()).await.unwrap(), 1);
    assert_eq!((events(db, "subscription.created").await, records(db).await.len()), (1, 1));
    // it stays the first answer, whatever became of what was made
    let path = first.header("location").unwrap();
    api.admin().with("If-Match", "*").delete(path).await.ok(204);
    assert_eq!(admin.post(SUBSCRIPTIONS, subscription("one")).await.text, first.text);
}

async fn principal_and_path_keep_keys_apart(database: TestDatabase) {
    let api = Api::on(database).await;
    let login = || async {
        let body = json!({"username": "admin", "password": ADMIN_PASSWORD});
        api.nobody().post("/api/auth/login", body).await.ok(200)["access_token"].as_str().unwrap().to_owned()
    };
    let body = json!({"name": "x", "role": "viewer"});
    let mut ids = BTreeSet::new();
    for role in ["operator", "admin", "session"] {
        let answer = api.role(role).with(KEY, "k").post("/api/tokens", body.clone()).await;
        assert!(!replayed(&answer));
        ids.insert(answer.ok(201).id());
    }
    assert_eq!(ids.len(), 3);
    let elsewhere = api.admin().with(KEY, "k").post(SUBSCRIPTIONS, subscription("one")).await;
    assert!(elsewhere.status == 201 && !replayed(&elsewhere));
    // a session is its user's: after a new login the key is still known
    let again = api.bearing(&login().await).with(KEY, "k").post("/api/tokens", body).await;
    assert!(replayed(&again) && ids.contains(&again.ok(201).id()));
}

async fn keys_have_1_to_255_characters_and_are_ignored_where_nothing_is_made(database: TestDatabase) {
    let api = Api::on(database).await;
    let post = async |client: Client<'_>| client.post(SUBSCRIPTIONS, subscription("one")).await;
    for wrong in
        [api.admin().with(KEY, ""), api.admin().with(KEY, "k".repeat(256)), api.admin().with(KEY, "a").with(KEY, "b")]
    {
        assert_eq!(post(wrong).await.pointers("validation_failed"), ["/header/Idempotency-Key"]);
    }
    let long = api.admin().with(KEY, "k".repeat(255));
    assert_eq!(post(long.clone()).await.status, 201);
    assert!(replayed(&post(long).await));
    let login = json!({"username": "admin", "password": ADMIN_PASSWORD});
    let client = api.nobody().with(KEY, "k".repeat(256));
    let sessions = [client.post("/api/auth/login", login.clone()).await, client.post("/api/auth/login", login).await];
    let [one, other] = sessions.map(|answer| answer.ok(200)["access_token"].clone());
    assert_ne!(one, other);
    assert_eq!(records(api.app.database()).await.len(), 1);
}

async fn what_is_shown_once_is_not_kept(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin().with(KEY, "k");
    let body = json!({"name": "nightly", "role": "viewer"});
    let mut first = admin.post("/api/tokens", body.clone()).await.ok(201);
    let token = first["token"].as_str().unwrap().to_owned();
    api.bearing(&token).get("/api/auth/me").await.ok(200);
    let again = admin.post("/api/tokens", body).await;
    assert!(replayed(&again) && !again.text.contains(&token));
    first["token"] = Value::Null;
    assert_eq!(again.ok(201), first);
    let kept = records(api.app.database()).await;
    assert!(kept.iter().all(|record| !format!("{record:?}").contains(&token)), "the token is in the database");
}

async fn a_refusal_keeps_nothing(database: TestDatabase) {
    let api = Api::on(database).await;
    let operator = api.operator().with(KEY, "k");
    operator.post(SCAN, json!({})).await.refused(400, "no_subscription");
    api.subscribe("one").await;
    api.admin().with(KEY, "k").post(SUBSCRIPTIONS, subscription("one")).await.refused(409, "conflict");
    let db = api.app.database();
    assert_eq!(records(db).await, []);
    assert!(!replayed(&operator.post(SCAN, json!({})).await));
    assert!(replayed(&operator.post(SCAN, json!({})).await));
    // another body would have been refused if the first had been kept
    let other = api.admin().with(KEY, "k").post(SUBSCRIPTIONS, subscription("two")).await;
    assert!(other.status == 201 && !replayed(&other));
}

async fn expire(database: &Database) {
    let past = chrono::DateTime::UNIX_EPOCH + TimeDelta::days(365);
    let update = idempotency::Entity::update_many().col_expr(idempotency::Column::ExpiresAt, Expr::value(past));
    update.exec(database.reader()).await.unwrap();
}

async fn an_expired_key_is_free_at_once_and_pruned_in_batches(database: TestDatabase) {
    let api = Api::on(database).await;
    let db = api.app.database();
    let admin = api.admin().with(KEY, "k");
    admin.post(SUBSCRIPTIONS, subscription("one")).await.ok(201);
    let life = records(db).await.pop().map(|record| record.expires_at - record.created_at).unwrap();
    assert_eq!(life, TimeDelta::hours(24));
    expire(db).await;
    let second = admin.post(SUBSCRIPTIONS, subscription("two")).await;
    assert!(second.status == 201 && !replayed(&second), "{}", second.text);
    assert!(replayed(&admin.post(SUBSCRIPTIONS, subscription("two")).await));
    assert_eq!(records(db).await.len(), 1);
    for account in ["three", "four"] {
        api.admin().with(KEY, account).post(SUBSCRIPTIONS, subscription(account)).await.ok(201);
    }
    expire(db).await;
    api.admin().with(KEY, "five").post(SUBSCRIPTIONS, subscription("five")).await.ok(201);
    for (removed, left) in [(2, 2), (1, 1), (0, 1)] {
        let write = db.begin().await.unwrap();
        assert_eq!(idempotency::prune(&*write, 2).await.unwrap(), removed);
        write.commit().await.unwrap();
        assert_eq!(records(db).await.len(), left);
    }
    assert!(replayed(&api.admin().with(KEY, "five").post(SUBSCRIPTIONS, subscription("five")).await));
}

async fn a_lost_right_is_a_refusal_and_not_a_replay(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let token = api.operator().post("/api/tokens", json!({"name": "x", "role": "operator"})).await.ok(201);
    let client = api.bearing(token["token"].as_str().unwrap()).with(KEY, "k");
    let made = json!({"name": "y", "role": "operator"});
    client.post(SCAN, json!({})).await.under_way();
    client.post("/api/tokens", made.clone()).await.ok(201);
    let demote = api_token::Entity::update_many()
        .col_expr(api_token::Column::Role, Expr::value(Role::Viewer.as_str()))
        .filter(api_token::Column::Id.eq(token.id().parse::<uuid::Uuid>().unwrap()));
    demote.exec(api.app.database().reader()).await.unwrap();
    client.post(SCAN, json!({})).await.refused(403, "permission_denied");
    client.post("/api/tokens", made).await.refused(403, "permission_denied");
    api.admin().delete(&format!("/api/tokens/{}", token.id())).await.ok(204);
    client.post(SCAN, json!({})).await.refused(401, "token_revoked");
}

async fn a_wait_is_honoured_afresh(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let operator = api.operator().with(KEY, "k");
    let first = operator.post(SCAN, json!({})).await;
    let in_vain = operator.clone().with("Prefer", "wait=0").post(SCAN, json!({})).await;
    assert!(replayed(&in_vain) && in_vain.header("preference-applied") == Some("wait=0"));
    assert_eq!(in_vain.under_way().id(), first.body().id());
    let worker = api.app.worker(WorkerSettings::default()).await;
    let waited = operator.clone().with("Prefer", "wait=60").post(SCAN, json!({})).await;
    assert!(replayed(&waited) && waited.header("preference-applied") == Some("wait=60"));
    let done = waited.ok(200);
    assert_eq!((done.id(), &done["state"]), (first.body().id(), &json!("succeeded")));
    // without a wait it is the 202 as first made
    let again = operator.post(SCAN, json!({})).await;
    assert_eq!((again.status, &again.text, again.header("retry-after")), (202, &first.text, Some("2")));
    assert!(again.header("preference-applied").is_none());
    // also when the first answer was a 200
    let other = api.operator().with(KEY, "other");
    let done = other.clone().with("Prefer", "wait=60").post(SCAN, json!({})).await;
    assert!(!replayed(&done));
    let done = done.ok(200);
    let kept = other.post(SCAN, json!({})).await.under_way();
    assert_eq!((kept.id(), &kept["state"]), (done.id(), &json!("queued")));
    worker.stop().await;
}

async fn a_joined_job_is_replayed_too(database: TestDatabase) {
    let api = Api::on(database).await;
    api.subscribe("one").await;
    let job = api.operator().post(SCAN, json!({})).await.under_way();
    let operator = api.operator().with(KEY, "k");
    let joined = operator.post(SCAN, json!({})).await;
    assert!(joined.header("keywright-deduplicated") == Some("true") && !replayed(&joined));
    api.operator().post(&format!("/api/jobs/{}/cancel", job.id()), Value::Null).await.ok(202);
    // without the key it would be a new job by now
    for again in [operator.clone(), operator.with("Prefer", "wait=0")] {
        let again = again.post(SCAN, json!({})).await;
        assert!(replayed(&again) && again.header("keywright-deduplicated") == Some("true"));
        assert_eq!(again.body().id(), job.id());
    }
}
