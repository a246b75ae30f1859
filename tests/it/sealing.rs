//! The key-encryption key over whole processes: a wrong one, two at once, a lost one, and another that takes its place under load.

use keywright_entities::{sealing_canary, signing_key, subscription_credential};
use keywright_jobs::setup::{
    config::MasterKeySource,
    database::Database,
    ids,
    sealing::{Sealing, places},
};
use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    instance::{Instance, MASTER_KEY, READY},
    on_both_databases,
    process::Process,
    stub::{Signer, Stub},
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, Set};
use secrecy::ExposeSecret;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

on_both_databases!(
    a_wrong_key_is_refused_by_both_programs_and_nothing_is_overwritten,
    of_two_first_starts_with_different_keys_one_is_refused,
    a_worker_logs_in_with_what_a_subscription_stores,
    another_key_takes_over_under_load_and_after_a_kill,
);

const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const BAD_CONFIG: Option<i32> = Some(2);

fn environment<'a>(url: &'a str, key: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("DATABASE_URL", url),
        ("KEYWRIGHT_MASTER_KEY", key),
        ("KEYWRIGHT_LISTEN", "127.0.0.1:0"),
        ("KEYWRIGHT_ADMIN_PASSWORD", "correct-horse-battery"),
    ]
}

async fn sealed(db: &Database) -> (Vec<sealing_canary::Model>, Vec<signing_key::Model>) {
    let canaries = sealing_canary::Entity::find().all(db.reader()).await.unwrap();
    (canaries, signing_key::Entity::find().all(db.reader()).await.unwrap())
}

/// It ends by itself as a wrong configuration does, and says this.
async fn refused(mut process: Process, says: &[&str]) {
    let status = process.ended(ENDS_WITHIN).await;
    let log = process.log();
    assert_eq!(status.code(), BAD_CONFIG, "{log}");
    for text in says {
        assert!(log.contains(text), "{text} is missing in:\n{log}");
    }
    assert!(!log.contains(MASTER_KEY) && !log.contains(OTHER_KEY), "{log}");
}

async fn a_wrong_key_is_refused_by_both_programs_and_nothing_is_overwritten(test: TestDatabase) {
    let mut right = Process::start("keywright-api", &environment(test.url(), MASTER_KEY));
    right.logged(READY).await;
    let before = sealed(&test.database).await;
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    for binary in ["keywright-api", "keywright-worker"] {
        let wrong = Process::start(binary, &environment(test.url(), OTHER_KEY));
        refused(
            wrong,
            &["is not the one this database was sealed with", "KEYWRIGHT_MASTER_KEY", "Nothing was changed"],
        )
        .await;
        assert_eq!(sealed(&test.database).await, before, "{binary}");
    }
    let mut again = Process::start("keywright-worker", &environment(test.url(), MASTER_KEY));
    again.logged("worker ready").await;
}

async fn of_two_first_starts_with_different_keys_one_is_refused(test: TestDatabase) {
    let mut started = [MASTER_KEY, OTHER_KEY].map(|key| Process::start("keywright-api", &environment(test.url(), key)));
    let ended = eventually("one is ready and one has ended", async || {
        let ready = started.iter().filter(|process| process.log().contains(READY)).count();
        let ended = started.iter_mut().position(Process::has_ended);
        ended.filter(|_| ready == 1)
    });
    let ended = ended.await;
    let [first, second] = started;
    let (loser, mut winner, key) = if ended == 0 { (first, second, OTHER_KEY) } else { (second, first, MASTER_KEY) };
    refused(loser, &["is not the one this database was sealed with"]).await;
    assert!(!winner.has_ended(), "{}", winner.log());
    // the winner's key opens everything that there is
    let sealing = Sealing::start(&test.database, &MasterKeySource::Given(key.into())).await.unwrap();
    let (_, keys) = sealed(&test.database).await;
    for row in &keys {
        sealing.open(&places::signing_key(&row.kid), &row.sealed_private).unwrap();
    }
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn a_lost_local_key_is_told_and_not_made_anew() {
    let folder = TempDir::new().unwrap();
    let (data, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
    let url = format!("sqlite://{}/k.db", folder.path().display());
    let environment = |data: &'static str| {
        [
            ("DATABASE_URL", url.clone()),
            ("KEYWRIGHT_LISTEN", "127.0.0.1:0".to_owned()),
            ("KEYWRIGHT_DATA_DIR", folder.path().join(data).display().to_string()),
        ]
    };
    let start = |binary: &str, arguments: &[&str], data: &'static str| {
        let environment = environment(data);
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start_with(binary, arguments, &environment)
    };
    // a worker that is there first waits for the API's schema and key
    let mut worker = start("keywright-worker", &[], "data");
    worker.logged("waiting for the database").await;
    let mut api = start("keywright-api", &["--migrate"], "data");
    api.logged(READY).await;
    worker.logged("worker ready").await;
    refused(start("keywright-worker", &[], "elsewhere"), &["there is no key in", "KEYWRIGHT_DATA_DIR"]).await;
    assert!(!elsewhere.join("master.key").exists());
    api.kill();
    std::fs::remove_file(data.join("master.key")).unwrap();
    for binary in ["keywright-api", "keywright-worker"] {
        refused(start(binary, &[], "data"), &["there is no key in", "Restore the file from its backup"]).await;
    }
    assert!(!data.join("master.key").exists());
}

fn stored(secret: &str) -> serde_json::Value {
    json!({"mode": "stored", "accessKeyId": "AKIASTORED0000000001", "secretAccessKey": secret, "sessionToken": "t0ken"})
}

fn account(name: &str) -> serde_json::Value {
    json!({"provider": "aws", "externalId": name, "name": name, "regions": ["eu-west-1"], "auth": stored("secret/key")})
}

fn signer() -> Signer {
    Signer { access_key: "AKIASTORED0000000001".to_owned(), session: Some("t0ken".to_owned()) }
}

async fn a_worker_logs_in_with_what_a_subscription_stores(test: TestDatabase) {
    let stub = Stub::start(3).await;
    // the worker has a key of its own, which must not be used
    let instance = Instance::start(&test, &keywright_tests::instance::aws_environment(stub.url())).await;
    let id = instance.subscribe(&account("111111111111")).await;
    let job = instance.scan(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(stub.signers(), [signer()]);
    assert!(!job.to_string().contains("secret/key"));

    let (status, changed) =
        instance.patch(&format!("/api/subscriptions/{id}"), &json!({"auth": {"mode": "ambient"}})).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(instance.scan(&id).await["state"], "succeeded");
    let own = Signer { access_key: keywright_tests::rig::ACCESS_KEY_ID.to_owned(), session: None };
    assert_eq!(stub.signers(), [own]);

    // one that does not open fails its scope in words, and no request is made
    let (status, _) = instance.patch(&format!("/api/subscriptions/{id}"), &json!({"auth": stored("x")})).await;
    assert_eq!(status, 200);
    let broken = subscription_credential::Column::Sealed;
    subscription_credential::Entity::update_many()
        .col_expr(broken, sea_orm::sea_query::Expr::value(vec![2_u8; 200]))
        .exec(test.database.reader())
        .await
        .unwrap();
    let job = instance.scan(&id).await;
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(instance.scopes(&job).await[0]["reason"]["code"], "credential_unreadable");
    assert_eq!(stub.signers(), []);
}

/// Rows enough that a run can be killed in their middle.
const MANY: usize = 4000;

async fn fill(db: &Database) {
    let sealing = Sealing::start(db, &MasterKeySource::Given(MASTER_KEY.into())).await.unwrap();
    let write = db.begin().await.unwrap();
    let now = keywright_entities::clock::now(&*write).await.unwrap();
    let one = sealing.seal(&*write, &places::INSTANCE, b"x").await.unwrap();
    let kek = keywright_jobs::setup::sealing::KeyEncryptionKey::new(&(0..32).collect::<Vec<u8>>().try_into().unwrap())
        .unwrap();
    assert_eq!(kek.id(), one.key_id, "MASTER_KEY is these bytes");
    let mut rows = Vec::new();
    for number in 0..MANY {
        let id = ids::new();
        let sealed = kek.seal(&places::credential(&id.to_string(), 1), number.to_string().as_bytes()).unwrap();
        rows.push(subscription_credential::ActiveModel {
            subscription_id: Set(id),
            version: Set(1),
            key_id: Set(sealed.key_id),
            sealed: Set(sealed.bytes),
            stored_at: Set(now),
        });
    }
    for chunk in rows.chunks(500) {
        subscription_credential::Entity::insert_many(chunk.to_vec()).exec_without_returning(&*write).await.unwrap();
    }
    write.commit().await.unwrap();
}

async fn under(db: &Database, key: &str) -> u64 {
    let rows = subscription_credential::Entity::find().filter(subscription_credential::Column::KeyId.eq(key));
    rows.count(db.reader()).await.unwrap()
}

async fn another_key_takes_over_under_load_and_after_a_kill(test: TestDatabase) {
    let db = &test.database;
    let stub = Stub::start(3).await;
    let aws = keywright_tests::instance::aws_environment(stub.url());
    // the first start seals with the old key; then every process is started with both
    let first = Instance::start(&test, &aws).await;
    let old = sealed(db).await.0[0].key_id.clone();
    drop(first);
    fill(db).await;
    let keys = [("KEYWRIGHT_MASTER_KEY", OTHER_KEY), ("KEYWRIGHT_MASTER_KEY_PREVIOUS", MASTER_KEY)];
    let instance = Arc::new(Instance::start_with(&test, &keys, &aws).await);
    let id = instance.subscribe(&account("111111111111")).await;
    assert_eq!(sealed(db).await.0[0].key_id, old, "another key is not in force before it is asked for");

    let over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (instance, over, id) = (Arc::clone(&instance), Arc::clone(&over), id.clone());
        async move {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                instance.get("/api/auth/jwks.json").await;
                let patch = json!({"auth": stored(&format!("secret{rounds}"))});
                let (status, body) = instance.patch(&format!("/api/subscriptions/{id}"), &patch).await;
                assert_eq!(status, 200, "{body}");
                let job = instance.scan(&id).await;
                assert_eq!(job["state"], "succeeded", "{job}");
                rounds += 1;
            }
            rounds
        }
    });
    let rewrap = || {
        let environment =
            [&environment(test.url(), OTHER_KEY)[..], &[("KEYWRIGHT_MASTER_KEY_PREVIOUS", MASTER_KEY)]].concat();
        Process::start_with("keywright-api", &["rewrap"], &environment)
    };
    let mut killed = rewrap();
    eventually("some are re-wrapped", async || {
        assert!(!killed.has_ended(), "it was to be killed in the middle: {}", killed.log());
        (under(db, &old).await <= MANY as u64 - 100).then_some(())
    })
    .await;
    killed.kill();
    let left = under(db, &old).await;
    assert!(left > 0, "nothing was left for the second run");

    // in between the old key alone is refused already, and the new one alone is not enough yet
    refused(Process::start("keywright-worker", &environment(test.url(), MASTER_KEY)), &["is not the one"]).await;
    refused(
        Process::start("keywright-api", &environment(test.url(), OTHER_KEY)),
        &["still sealed with", "KEYWRIGHT_MASTER_KEY_PREVIOUS", "keywright-api rewrap"],
    )
    .await;

    let mut second = rewrap();
    let status = second.ended(ENDS_WITHIN).await;
    assert!(status.success(), "{}", second.log());
    assert!(second.log().contains("re-wrapped: ") && !second.log().contains("re-wrapped: 0"), "{}", second.log());
    over.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
    assert_eq!(under(db, &old).await, 0);
    let (canaries, signing) = sealed(db).await;
    assert!(canaries[0].key_id != old && signing.iter().all(|row| row.key_id == canaries[0].key_id));
    // every value is still what it was
    let new = Sealing::start(db, &MasterKeySource::Given(OTHER_KEY.into())).await.unwrap();
    let rows = subscription_credential::Entity::find().all(db.reader()).await.unwrap();
    let mut numbers: Vec<usize> = rows
        .iter()
        .filter_map(|row| {
            let record = row.subscription_id.to_string();
            let secret = new.open(&places::credential(&record, row.version), &row.sealed).unwrap();
            std::str::from_utf8(secret.expose_secret()).unwrap().parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..MANY));
    // those who have both go on; then the new one alone is enough
    assert_eq!(instance.scan(&id).await["state"], "succeeded");
    refused(Process::start("keywright-api", &environment(test.url(), MASTER_KEY)), &["is not the one"]).await;
    let mut alone = Process::start("keywright-api", &environment(test.url(), OTHER_KEY));
    alone.logged(READY).await;
}
