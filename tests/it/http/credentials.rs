//! Credentials that subscriptions store: taken once, sealed, used by workers alone, never told.

use keywright_entities::{audit_outbox, idempotency, subscription_credential};
use keywright_jobs::setup::sealing::places;
use keywright_tests::{
    app::sealing,
    database::TestDatabase,
    http::{Answer, Api, Identified},
    on_both_databases,
};
use sea_orm::{EntityTrait, PaginatorTrait};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

on_both_databases!(
    a_stored_credential_is_sealed_and_never_told,
    another_mode_another_key_and_removal_take_the_old_one_away,
    what_cannot_be_a_credential_is_refused_without_being_repeated,
    a_value_put_back_or_moved_does_not_open,
    of_a_service_account_s_key_only_what_signs_is_kept,
);

const PATH: &str = "/api/subscriptions";
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn stored(secret: &str) -> Value {
    json!({"mode": "stored", "accessKeyId": ID, "secretAccessKey": secret})
}

fn subscription(account: &str, auth: Value) -> Value {
    json!({"provider": "aws", "externalId": account, "name": account, "auth": auth})
}

async fn row(api: &Api, id: &str) -> Option<subscription_credential::Model> {
    let id: Uuid = id.parse().unwrap();
    subscription_credential::of(api.app.database().reader(), id).await.unwrap()
}

async fn opened(api: &Api, id: &str) -> Value {
    let row = row(api, id).await.unwrap();
    let sealing = sealing(api.app.database()).await;
    let secret = sealing.open(&places::credential(id, row.version), &row.sealed).unwrap();
    serde_json::from_slice(secret.expose_secret()).unwrap()
}

#[track_caller]
fn tells_nothing(answer: &Answer) {
    for secret in [ID, SECRET, "session-canary"] {
        assert!(!answer.text.contains(secret), "{}", answer.text);
        assert!(!format!("{:?}", answer.headers).contains(secret));
    }
}

async fn a_stored_credential_is_sealed_and_never_told(database: TestDatabase) {
    let api = Api::on(database).await;
    let mut auth = stored(SECRET);
    auth["sessionToken"] = "session-canary".into();
    let admin = api.admin().with("Idempotency-Key", "once");
    let made = admin.post(PATH, subscription("one", auth.clone())).await;
    tells_nothing(&made);
    let made = made.ok(201);
    assert_eq!(made["auth"].as_object().unwrap().keys().collect::<Vec<_>>(), ["mode", "updatedAt"]);
    assert_eq!(made["auth"]["mode"], "stored");
    let again = admin.post(PATH, subscription("one", auth)).await;
    tells_nothing(&again);
    assert_eq!(again.ok(201).id(), made.id());
    for answer in [api.admin().get(&format!("{PATH}/{}", made.id())).await, api.admin().get(PATH).await] {
        tells_nothing(&answer);
        answer.ok(200);
    }
    let sealed = row(&api, &made.id()).await.unwrap();
    assert!(!sealed.sealed.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
    assert_eq!(
        opened(&api, &made.id()).await,
        json!({"accessKeyId": ID, "secretAccessKey": SECRET, "sessionToken": "session-canary"})
    );
    let db = api.app.database().reader();
    let kept = format!(
        "{:?}{:?}",
        idempotency::Entity::find().all(db).await.unwrap(),
        audit_outbox::Entity::find().all(db).await.unwrap()
    );
    assert!(kept.contains("subscription.created") && !kept.contains(SECRET) && !kept.contains(ID));
}

async fn another_mode_another_key_and_removal_take_the_old_one_away(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin();
    let made = admin.post(PATH, subscription("one", stored(SECRET))).await.ok(201);
    let path = format!("{PATH}/{}", made.id());
    let first = row(&api, &made.id()).await.unwrap();

    // what says nothing of the credential leaves it
    let renamed = admin.patch(&path, json!({"name": "x", "auth": {"mode": "stored"}})).await.ok(200);
    assert_eq!(renamed["auth"], made["auth"]);
    assert_eq!(row(&api, &made.id()).await.unwrap(), first);

    let replaced = admin.patch(&path, json!({"auth": stored("another/secret+key=")})).await.ok(200);
    assert_ne!(replaced["auth"]["updatedAt"], made["auth"]["updatedAt"]);
    assert_eq!(opened(&api, &made.id()).await["secretAccessKey"], "another/secret+key=");
    assert!(row(&api, &made.id()).await.unwrap().version > first.version);
    // refused as a whole
    let stale = admin.clone().with("If-Match", "\"1\"").patch(&path, json!({"auth": {"mode": "ambient"}})).await;
    stale.refused(412, "precondition_failed");
    assert!(row(&api, &made.id()).await.is_some());

    for auth in [json!({"mode": "ambient"}), Value::Null] {
        let changed = admin.patch(&path, json!({"auth": auth})).await.ok(200);
        assert_eq!((&changed["auth"]["mode"], row(&api, &made.id()).await), (&json!("ambient"), None));
        // the mode alone brings nothing back
        let bare = admin.patch(&path, json!({"auth": {"mode": "stored"}})).await;
        assert_eq!(bare.pointers("validation_failed"), ["/auth/accessKeyId", "/auth/secretAccessKey"]);
        admin.patch(&path, json!({"auth": stored(SECRET)})).await.ok(200);
    }
    let version = admin.get(&path).await.header("etag").unwrap().to_owned();
    admin.clone().with("If-Match", version).delete(&path).await.ok(204);
    assert_eq!(subscription_credential::Entity::find().count(api.app.database().reader()).await.unwrap(), 0);
}

async fn what_cannot_be_a_credential_is_refused_without_being_repeated(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin();
    let mut foreign = stored(SECRET);
    foreign["mode"] = "ambient".into();
    let mut quoted = stored("quote\"and\\backslash");
    quoted["accessKeyId"] = "AKIA\"".into();
    for (auth, pointers) in [
        (json!({"mode": "stored"}), vec!["/auth/accessKeyId", "/auth/secretAccessKey"]),
        (json!({"mode": "stored", "accessKeyId": ID}), vec!["/auth/secretAccessKey"]),
        (json!({"mode": "stored", "secretAccessKey": SECRET}), vec!["/auth/accessKeyId"]),
        (foreign, vec!["/auth/accessKeyId", "/auth/secretAccessKey"]),
        (quoted, vec!["/auth/accessKeyId", "/auth/accessKeyId", "/auth/secretAccessKey"]),
        (json!({"mode": "stored", "accessKeyId": ID, "secretAccessKey": 7}), vec!["/auth/secretAccessKey"]),
        (
            json!({"mode": "stored", "accessKeyId": ID, "secretAccessKey": SECRET, "sessionToken": null}),
            vec!["/auth/sessionToken"],
        ),
    ] {
        let answer = admin.post(PATH, subscription("one", auth.clone())).await;
        tells_nothing(&answer);
        assert!(!answer.text.contains("backslash"), "{}", answer.text);
        assert_eq!(answer.pointers("validation_failed"), pointers, "{auth}");
    }
    let unknown = admin.post(PATH, subscription("one", json!({"mode": "stored", "clientSecret": SECRET}))).await;
    tells_nothing(&unknown);
    assert_eq!(unknown.pointers("unknown_field"), ["/auth/clientSecret"]);
    // only what a provider can use is taken
    for provider in ["local", "gcp", "azure"] {
        let mut body = subscription("one", stored(SECRET));
        body["provider"] = provider.into();
        let answer = admin.post(PATH, body).await;
        tells_nothing(&answer);
        assert!(!answer.pointers("validation_failed").is_empty());
    }
    let mut foreign = subscription("acme-prod", stored(SECRET));
    foreign["provider"] = "gcp".into();
    assert_eq!(
        admin.post(PATH, foreign).await.pointers("validation_failed"),
        ["/auth/accessKeyId", "/auth/secretAccessKey", "/auth/serviceAccountKey"]
    );
    assert_eq!(subscription_credential::Entity::find().count(api.app.database().reader()).await.unwrap(), 0);
    api.operator().post(PATH, subscription("one", stored(SECRET))).await.refused(403, "permission_denied");
}

async fn a_value_put_back_or_moved_does_not_open(database: TestDatabase) {
    let api = Api::on(database).await;
    let (one, two) = (
        api.admin().post(PATH, subscription("one", stored(SECRET))).await.ok(201).id(),
        api.admin().post(PATH, subscription("two", stored(SECRET))).await.ok(201).id(),
    );
    let before = row(&api, &one).await.unwrap();
    api.admin().patch(&format!("{PATH}/{one}"), json!({"auth": stored("new")})).await.ok(200);
    let after = row(&api, &one).await.unwrap();
    let sealing = sealing(api.app.database()).await;
    assert!(sealing.open(&places::credential(&one, after.version), &after.sealed).is_ok());
    assert!(sealing.open(&places::credential(&one, after.version), &before.sealed).is_err());
    assert!(sealing.open(&places::credential(&two, before.version), &before.sealed).is_err());
}

async fn of_a_service_account_s_key_only_what_signs_is_kept(database: TestDatabase) {
    let api = Api::on(database).await;
    let admin = api.admin();
    let pem = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n";
    let file = json!({
        "type": "service_account", "project_id": "acme-prod", "private_key_id": "0f", "private_key": pem,
        "client_email": "audit@acme-prod.iam.gserviceaccount.com", "client_id": "1",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/audit", "universe_domain": "googleapis.com",
    });
    let of = |file: &Value| json!({"provider": "gcp", "externalId": "acme-prod", "name": "x", "auth": {"mode": "stored", "serviceAccountKey": file}});
    let made = admin.post(PATH, of(&file)).await;
    assert!(!made.text.contains("PRIVATE KEY"), "{}", made.text);
    let id = made.ok(201).id();
    let kept = opened(&api, &id).await;
    let names = ["project_id", "private_key_id", "private_key", "client_email"];
    assert_eq!(kept, names.iter().map(|name| ((*name).to_owned(), file[name].clone())).collect::<Value>());

    for (member, value, pointers) in [
        ("token_uri", json!("https://oauth2.evil.example/token"), vec!["/auth/serviceAccountKey/token_uri"]),
        ("token_uri", json!("http://169.254.169.254/token"), vec!["/auth/serviceAccountKey/token_uri"]),
        ("auth_uri", json!("file:///etc/passwd"), vec!["/auth/serviceAccountKey/auth_uri"]),
        ("universe_domain", json!("evil.example"), vec!["/auth/serviceAccountKey/universe_domain"]),
        ("type", json!("external_account"), vec!["/auth/serviceAccountKey/type"]),
        ("private_key", json!("quote\"and\\backslash"), vec!["/auth/serviceAccountKey/private_key"]),
        ("client_email", json!("me@example.com"), vec!["/auth/serviceAccountKey/client_email"]),
        ("project_id", json!(null), vec!["/auth/serviceAccountKey/project_id"]),
    ] {
        let mut file = file.clone();
        file[member] = value;
        let answer =
            admin.patch(&format!("{PATH}/{id}"), json!({"auth": {"mode": "stored", "serviceAccountKey": file}})).await;
        assert!(!answer.text.contains("bm90IGEga2V5") && !answer.text.contains("backslash"), "{}", answer.text);
        assert_eq!(answer.pointers("validation_failed"), pointers, "{member}");
    }
    // what names other places is no key
    let mut workload = file;
    workload["credential_source"] = json!({"url": "http://169.254.169.254/"});
    let unknown = admin.post(PATH, of(&workload)).await.pointers("unknown_field");
    assert_eq!(unknown, ["/auth/serviceAccountKey/credential_source"]);
    assert_eq!(opened(&api, &id).await, kept);
}
