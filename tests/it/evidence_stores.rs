//! The stores of evidence packages against servers that nobody here wrote: whole or not at all, whatever happens.

use keywright_tests::{
    gcp_kms,
    rig::{ACCESS_KEY_ID, Rig, SECRET_ACCESS_KEY},
    spoiled_wire::{Spoil, SpoiledWire},
};
use reqwest::{Client, StatusCode};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Output,
};
use tempfile::TempDir;
use tokio::process::Command;

const BUCKET: &str = "acme-evidence";
/// Goes in three parts to S3, and in parts to Google.
const LARGE: usize = 20 << 20;

/// A file of this size that no compression makes small, and no two seeds the same.
fn file(folder: &Path, name: &str, size: usize, seed: u64) -> PathBuf {
    let path = folder.join(name);
    let mut state = seed;
    let bytes: Vec<u8> = (0..size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Puts a file into a store as a process of its own, which reads its environment as the SDKs do.
async fn put(place: &str, key: &str, file: &Path, gcp: Option<&str>, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywright-test-store"));
    command.args([place, key]).arg(file).args(gcp).env_clear();
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    command.env("AWS_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(environment.iter().copied()).output().await.unwrap()
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

/// Why it was not done.
fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "it was done");
    said(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn status(url: String) -> StatusCode {
    Client::new().get(url).send().await.unwrap().status()
}

#[tokio::test]
async fn s3_has_whole_objects_or_none() {
    let Some(rig) = Rig::find() else { return };
    let moto = rig.moto().await.unwrap();
    let proxy = rig.proxy(moto.url()).await.unwrap();
    let folder = TempDir::new().unwrap();
    let (small, large) = (file(folder.path(), "small", 9_000, 1), file(folder.path(), "large", LARGE, 2));
    let other = file(folder.path(), "other", LARGE, 3);
    let place = format!("s3://{BUCKET}/prod");
    let environment = [("AWS_ENDPOINT_URL", proxy.url())];
    let to = async |key: &str, file: &Path| put(&place, key, file, None, &environment).await;
    let object = |key: &str| format!("{}/{BUCKET}/prod/{key}", moto.url());
    // no bucket
    assert!(refused(&to("a.zip", &small).await).contains("bucket or directory is not there"));
    assert!(refused(&to("a.zip", &large).await).contains("bucket or directory is not there"));
    Client::new().put(format!("{}/{BUCKET}", moto.url())).send().await.unwrap().error_for_status().unwrap();
    // as it should be, again, and with other bytes
    done(&to("a.zip", &small).await);
    done(&to("b.zip", &large).await);
    done(&to("b.zip", &large).await);
    assert!(refused(&to("a.zip", &large).await).contains("already has an object"));
    assert!(refused(&to("b.zip", &other).await).contains("already has an object"));
    // a part that never arrives: nothing is visible, and what was begun is taken back
    proxy.rules(json!([{"contains": "partNumber=2", "status": 503, "code": "SlowDown"}])).await.unwrap();
    assert!(refused(&to("c.zip", &large).await).contains("did not answer"));
    assert_eq!(status(object("c.zip")).await, StatusCode::NOT_FOUND);
    let calls = proxy.calls().unwrap();
    let last = calls.last().unwrap();
    assert!(last.operation.starts_with("DELETE") && last.operation.contains("uploadId="), "{last:?}");
    // one that arrives the third time
    proxy.rules(json!([{"contains": "partNumber=2", "status": 503, "code": "SlowDown", "times": 2}])).await.unwrap();
    done(&to("c.zip", &large).await);
    // bytes that arrived as others
    proxy.rules(json!([{"contains": "partNumber=1", "status": 400, "code": "BadDigest"}])).await.unwrap();
    assert!(refused(&to("d.zip", &large).await).contains("not those that were sent"));
    assert_eq!(status(object("d.zip")).await, StatusCode::NOT_FOUND);
    proxy.rules(json!([{"contains": "PUT", "status": 403, "code": "AccessDenied"}])).await.unwrap();
    assert!(refused(&to("e.zip", &small).await).contains("refuses this process"));
}

#[tokio::test]
async fn google_cloud_storage_has_whole_objects_or_none() {
    let Some(rig) = Rig::find() else { return };
    let gcs = rig.gcs().await.unwrap();
    let folder = TempDir::new().unwrap();
    let (small, large) = (file(folder.path(), "small", 9_000, 1), file(folder.path(), "large", LARGE, 2));
    let account = gcp_kms::service_account();
    let place = format!("gs://{BUCKET}/prod");
    let environment = [("GOOGLE_APPLICATION_CREDENTIALS", account.path())];
    let to = async |key: &str, file: &Path| put(&place, key, file, Some(gcs.url()), &environment).await;
    assert!(refused(&to("a.zip", &small).await).contains("bucket or directory is not there"));
    let bucket = json!({"name": BUCKET});
    let made = Client::new().post(format!("{}/storage/v1/b?project=p", gcs.url())).json(&bucket).send().await.unwrap();
    made.error_for_status().unwrap();
    done(&to("a.zip", &small).await);
    done(&to("b.zip", &large).await);
    done(&to("b.zip", &large).await);
    assert!(refused(&to("a.zip", &large).await).contains("already has an object"));
    assert!(refused(&to("b.zip", &small).await).contains("already has an object"));
    // a connection that breaks in the middle of the file, a service that is away: nothing is visible afterwards, and what is sent again
    // is whole
    let object = |key: &str| format!("{}/storage/v1/b/{BUCKET}/o/prod%2F{key}", gcs.url());
    assert_eq!(status(object("b.zip")).await, StatusCode::OK);
    let spoiled = async |key: &str, spoil| {
        let wire = SpoiledWire::to(gcs.url(), spoil).await;
        refused(&put(&place, key, &large, Some(&wire.url()), &environment).await)
    };
    for (key, spoil) in [("c.zip", Spoil::Cut(LARGE / 2)), ("d.zip", Spoil::Refuse)] {
        let refusal = spoiled(key, spoil).await;
        assert!(refusal.contains("did not answer"), "{spoil:?}: {refusal}");
        assert_eq!(status(object(key)).await, StatusCode::NOT_FOUND, "{spoil:?}");
        done(&to(key, &large).await);
    }
    // a byte that arrives as another one: Google's service would not keep it, this one does, and it is not taken for ours
    let refusal = spoiled("e.zip", Spoil::Flip(LARGE / 2)).await;
    assert!(refusal.contains("not those that were sent"), "{refusal}");
    assert!(refused(&to("e.zip", &large).await).contains("already has an object"));
}
