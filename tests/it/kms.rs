//! The key-encryption key wrapped by a key management service: AWS's as moto plays it, Google's as a double of our own does.

use keywright_entities::{sealing_canary, wrapped_key};
use keywright_jobs::setup::database::Database;
use keywright_tests::{
    database::TestDatabase,
    gcp_kms::{self, GcpKms},
    instance::{MASTER_KEY, READY},
    process::Process,
    rig::{ACCESS_KEY_ID, ACCOUNT, Rig, SECRET_ACCESS_KEY},
};
use sea_orm::EntityTrait;
use serde_json::Value;
use std::time::Duration;

/// Each test on each database.
macro_rules! on_both_databases {
    ($($test:ident),+) => { mod sqlite { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            super::$test(super::TestDatabase::sqlite().await).await;
        }
    )+ } mod postgres { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if let Some(database) = super::TestDatabase::postgres().await {
                super::$test(database).await;
            }
        }
    )+ } };
}

on_both_databases!(
    a_key_of_aws_opens_the_database_and_no_other_does,
    a_key_of_google_opens_the_database_and_no_other_does,
    a_key_in_a_file_gives_way_to_a_service
);

const ENDS_WITHIN: Duration = Duration::from_secs(90);

fn start(binary: &str, arguments: &[&str], test: &TestDatabase, more: &[(&str, &str)]) -> Process {
    let environment = [
        &[
            ("DATABASE_URL", test.url()),
            ("KEYWRIGHT_LISTEN", "127.0.0.1:0"),
            ("KEYWRIGHT_ADMIN_PASSWORD", "correct-horse-battery"),
        ][..],
        more,
    ]
    .concat();
    Process::start_with(binary, arguments, &environment)
}

async fn refused(mut process: Process, code: i32, says: &str) {
    let status = process.ended(ENDS_WITHIN).await;
    let log = process.log();
    assert_eq!(status.code(), Some(code), "{log}");
    assert!(log.contains(says), "{says} is missing in:\n{log}");
}

async fn rows(db: &Database) -> (Vec<sealing_canary::Model>, Vec<wrapped_key::Model>) {
    let canaries = sealing_canary::Entity::find().all(db.reader()).await.unwrap();
    (canaries, wrapped_key::Entity::find().all(db.reader()).await.unwrap())
}

/// Has moto make a key, and returns its ARN.
async fn make_key(moto: &str, region: &str) -> String {
    let scope =
        format!("Credential={ACCESS_KEY_ID}/20261124/{region}/kms/aws4_request, SignedHeaders=host, Signature=0");
    let request = reqwest::Client::builder().no_proxy().build().unwrap().post(moto);
    let answer = request
        .header("Content-Type", "application/x-amz-json-1.1")
        .header("X-Amz-Target", "TrentService.CreateKey")
        .header("Authorization", format!("AWS4-HMAC-SHA256 {scope}"))
        .body("{}")
        .send()
        .await
        .unwrap();
    let made: Value = answer.json().await.unwrap();
    made["KeyMetadata"]["Arn"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

async fn a_key_of_aws_opens_the_database_and_no_other_does(test: TestDatabase) {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    // a name tells the region by itself: the environment's is another one
    let (key, other) = (make_key(moto.url(), "eu-west-1").await, make_key(moto.url(), "eu-west-1").await);
    assert!(key.starts_with(&format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/")), "{key}");
    let (name, other) = (format!("aws-kms:{key}"), format!("aws-kms:{other}"));
    let aws = [
        ("AWS_ENDPOINT_URL", moto.url()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let with = |name| [&aws[..], &[("KEYWRIGHT_MASTER_KEY_KMS", name)]].concat();
    // two first starts make one key
    let mut both = [start("keywright-api", &[], &test, &with(&name)), start("keywright-api", &[], &test, &with(&name))];
    for api in &mut both {
        api.logged(READY).await;
    }
    let before = rows(&test.database).await;
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    assert_eq!((&before.1[0].kek_id, &before.1[0].kms), (&before.0[0].key_id, &name));
    start("keywright-worker", &[], &test, &with(&name)).logged("worker ready").await;
    refused(start("keywright-api", &[], &test, &with(&other)), 2, "no key-encryption key that").await;
    refused(start("keywright-worker", &[], &test, &with(&other)), 2, "no key-encryption key that").await;
    let gone = "aws-kms:arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000";
    rename(&test, &name, gone).await;
    refused(start("keywright-api", &[], &test, &with(gone)), 2, "does not give the key-encryption key").await;
    rename(&test, gone, &name).await;
    let away = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9")];
    let away = [&with(&name)[..], &away].concat();
    refused(start("keywright-api", &[], &test, &away), 1, "did not answer").await;
    assert_eq!(rows(&test.database).await, before);
}

/// As if the row had been made for another key.
async fn rename(test: &TestDatabase, from: &str, to: &str) {
    use sea_orm::{ColumnTrait, QueryFilter, sea_query::Expr};
    let renamed = wrapped_key::Entity::update_many()
        .col_expr(wrapped_key::Column::Kms, Expr::value(to))
        .filter(wrapped_key::Column::Kms.eq(from))
        .exec(test.database.reader())
        .await
        .unwrap();
    assert_eq!(renamed.rows_affected, 1);
}

async fn a_key_of_google_opens_the_database_and_no_other_does(test: TestDatabase) {
    let kms = GcpKms::start(&["main", "other"]).await;
    let identity = gcp_kms::service_account();
    let google = [("GOOGLE_APPLICATION_CREDENTIALS", identity.path()), ("KEYWRIGHT_GCP_ENDPOINT", kms.url())];
    let (main, other) = (gcp_kms::name("main"), gcp_kms::name("other"));
    let with = |name| [&google[..], &[("KEYWRIGHT_MASTER_KEY_KMS", name)]].concat();
    start("keywright-api", &[], &test, &with(&main)).logged(READY).await;
    let before = rows(&test.database).await;
    assert_eq!((before.1.len(), &before.1[0].kms), (1, &main));
    kms.journal();
    start("keywright-worker", &[], &test, &with(&main)).logged("worker ready").await;
    // once for the process, not once for a record
    assert_eq!(kms.journal(), ["decrypt main"]);
    refused(start("keywright-api", &[], &test, &with(&other)), 2, "no key-encryption key that").await;
    rename(&test, &main, &other).await;
    refused(start("keywright-api", &[], &test, &with(&other)), 2, "was not wrapped by this key").await;
    rename(&test, &other, &main).await;
    kms.answer_with(403);
    refused(start("keywright-api", &[], &test, &with(&main)), 2, "refuses this process (403)").await;
    kms.answer_with(503);
    kms.journal();
    refused(start("keywright-api", &[], &test, &with(&main)), 1, "did not answer (503)").await;
    assert_eq!(kms.journal().len(), 3, "it is asked again before that");
    assert_eq!(rows(&test.database).await, before);
}

async fn a_key_in_a_file_gives_way_to_a_service(test: TestDatabase) {
    let kms = GcpKms::start(&["main"]).await;
    let identity = gcp_kms::service_account();
    let main = gcp_kms::name("main");
    let google = [("GOOGLE_APPLICATION_CREDENTIALS", identity.path()), ("KEYWRIGHT_GCP_ENDPOINT", kms.url())];
    let old = [("KEYWRIGHT_MASTER_KEY", MASTER_KEY)];
    let both =
        [&google[..], &[("KEYWRIGHT_MASTER_KEY_KMS", main.as_str()), ("KEYWRIGHT_MASTER_KEY_PREVIOUS", MASTER_KEY)]]
            .concat();
    let new = [&google[..], &[("KEYWRIGHT_MASTER_KEY_KMS", main.as_str())]].concat();
    start("keywright-api", &[], &test, &old).logged(READY).await;
    // not without the key that it was sealed with
    refused(start("keywright-api", &[], &test, &new), 2, "KEYWRIGHT_MASTER_KEY_PREVIOUS").await;
    let mut api = start("keywright-api", &[], &test, &both);
    api.logged(READY).await;
    let mut rewrap = start("keywright-api", &["rewrap"], &test, &both);
    assert!(rewrap.ended(ENDS_WITHIN).await.success(), "{}", rewrap.log());
    refused(start("keywright-api", &[], &test, &old), 2, "is not the one this database was sealed with").await;
    start("keywright-worker", &[], &test, &new).logged("worker ready").await;
    // and back
    let back = [&google[..], &[("KEYWRIGHT_MASTER_KEY", MASTER_KEY), ("KEYWRIGHT_MASTER_KEY_PREVIOUS", main.as_str())]]
        .concat();
    let mut rewrap = start("keywright-api", &["rewrap"], &test, &back);
    assert!(rewrap.ended(ENDS_WITHIN).await.success(), "{}", rewrap.log());
    start("keywright-api", &[], &test, &old).logged(READY).await;
}
