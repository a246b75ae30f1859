//! Evidence packages: what they tell, that they are the same whoever builds them, that nobody ever sees a part of one, and that
//! whatever is done to one is found.

use keywright_entities::{clock, evidence_package, job, scope::Scope, types::JobState};
use keywright_jobs::{
    domain::evidence::{Include, Request, Sample},
    domain::inventory::Warning,
    evidence::{Store, Workshop, objects::Place},
    kinds::{
        discovery::request::OnConflict,
        evidence::request::{self, Surroundings},
    },
    queue::{Enqueued, Requester},
};
use keywright_proof::{
    note::Verifier,
    package::{Inputs, verify},
    verdict::{Fault, Kind},
};
use keywright_tests::{
    app::{TestApp, WorkerSettings, eventually, job as read},
    database::TestDatabase,
    on_both_databases,
};
use keywright_worker::providers::memory::secrets_in;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, IntoActiveModel};
use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Read, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};
use uuid::Uuid;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

on_both_databases!(
    a_package_tells_what_held_and_what_it_cannot_tell,
    two_workers_make_the_same_bytes,
    killed_at_any_step_nothing_partial_is_seen_and_the_next_try_succeeds,
    whatever_is_done_to_a_package_is_found,
    a_worker_with_another_store_says_so,
);

/// Three secrets that can be read, a region that may not, and one file that could not.
pub(crate) async fn scanned(test: TestDatabase) -> (TestApp, Uuid) {
    let app = TestApp::on(test);
    for region in ["north", "south"] {
        app.cloud.put_secrets("one", &secrets_in(region), 3);
    }
    app.cloud.deny("memory:List", |call| call.lists("south"));
    app.cloud.warn(
        "one",
        &secrets_in("north"),
        Warning::new("north/x", "unreadable", "It could \"not\" be read,\nreally."),
    );
    let subscription = app.subscribe("one").await;
    app.subscribe("never-scanned").await;
    let worker = app.worker(WorkerSettings::default()).await;
    let scan = keywright_tests::app::scan(app.database(), Some(vec![subscription])).await;
    assert_eq!(app.ended(scan).await.state, JobState::Partial);
    worker.stop().await;
    (app, subscription)
}

pub(crate) fn wanted(seed: &str) -> Request {
    let sample = Sample { seed: Some(seed.to_owned()), size: 2 };
    Request {
        from: None,
        to: None,
        subscriptions: None,
        frameworks: vec!["SOC 2".to_owned()],
        include: Include::ALL,
        sample,
    }
}

pub(crate) async fn ask(app: &TestApp, visible: &Scope, request: Request) -> Uuid {
    let store = app.workshop().store.objects().await.unwrap().identity().to_owned();
    let surroundings = Surroundings { organisation: "Acme".to_owned(), store };
    let write = app.database().begin().await.unwrap();
    let begun = request::package(&write, visible, Requester::system(), &surroundings, request, OnConflict::Queue).await;
    let (Enqueued::New(job) | Enqueued::Open(job)) = begun.unwrap();
    write.commit().await.unwrap();
    job.id
}

async fn row(app: &TestApp, id: Uuid) -> evidence_package::Model {
    evidence_package::by_id(app.database().reader(), id).await.unwrap().unwrap()
}

/// The package as it lies in the store.
pub(crate) async fn built(app: &TestApp, id: Uuid) -> (evidence_package::Model, Vec<u8>) {
    let ended = app.ended(id).await;
    assert_eq!(ended.state, JobState::Succeeded, "{ended:?}");
    let row = row(app, id).await;
    let bytes = fs::read(app.data().join("evidence").join(row.object_key.as_ref().unwrap())).unwrap();
    assert_eq!(row.size, Some(bytes.len() as i64));
    (row, bytes)
}

pub(crate) fn checked(row: &evidence_package::Model, bytes: &[u8]) -> Result<String, Fault> {
    let key: Verifier = row.signing_key.as_ref().unwrap().parse().unwrap();
    let inputs = Inputs { keys: vec![key], ..Inputs::default() };
    verify(|| Ok(Cursor::new(bytes)), &inputs).map(|report| report.to_string())
}

pub(crate) fn unzipped(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..zip.len())
        .map(|number| {
            let mut file = zip.by_index(number).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            (file.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

pub(crate) fn zipped(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

async fn a_package_tells_what_held_and_what_it_cannot_tell(test: TestDatabase) {
    let (app, subscription) = scanned(test).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    // what comes after the package was asked for is not in it, whenever it is built
    app.cloud.put_secrets("one", &secrets_in("north"), 9);
    let (row, bytes) = built(&app, id).await;
    checked(&row, &bytes).unwrap();
    let files = unzipped(&bytes);
    let lines = |name: &str| String::from_utf8(files[&format!("population/{name}.jsonl")].clone()).unwrap();
    let rows = |name: &str| -> Vec<serde_json::Value> {
        lines(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(rows("assets").len(), 3);
    assert_eq!(rows("assets")[0]["subscription"], subscription.to_string());
    assert_eq!((rows("subscriptions").len(), rows("scans").len(), rows("scopes").len()), (2, 1, 2));
    let gaps: Vec<String> = rows("gaps").iter().map(|gap| gap["gap"].as_str().unwrap().to_owned()).collect();
    assert_eq!(gaps, ["denied", "not_scanned", "skipped"]);
    assert_eq!(rows("gaps")[0]["requiredPermission"], "memory:List");
    let scope: serde_json::Value = serde_json::from_slice(&files["scope.json"]).unwrap();
    assert_eq!(scope["gaps"]["byGap"], serde_json::json!({"denied": 1, "not_scanned": 1, "skipped": 1}));
    assert_eq!(scope["sections"][4], serde_json::json!({"section": "score", "standing": "not_in_this_version"}));
    assert_eq!(scope["frameworks"][0]["framework"], "SOC 2");
    let sample = String::from_utf8(files["sample/assets.csv"].clone()).unwrap();
    assert_eq!(sample.lines().count(), 3, "the names, and two rows: {sample}");
    // somebody who may see the other subscription alone is told of nothing else
    let other: Vec<Uuid> = row.subscription_ids().into_iter().filter(|id| *id != subscription).collect();
    let id = ask(&app, &Scope::Subscriptions(other.clone()), wanted("s")).await;
    let (restricted, bytes) = built(&app, id).await;
    checked(&restricted, &bytes).unwrap();
    assert!(restricted.restricted && restricted.subscription_ids() == other);
    for (name, bytes) in unzipped(&bytes) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&subscription.to_string()) && !name.contains("users"), "{name}: {text}");
    }
}

async fn two_workers_make_the_same_bytes(test: TestDatabase) {
    let (app, _) = scanned(test).await;
    let worker = app.worker(WorkerSettings::default()).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let (first, bytes) = built(&app, id).await;
    worker.stop().await;
    // as if the first had never been: the world has gone on meanwhile
    let place = app.data().join("evidence").join(first.object_key.as_ref().unwrap());
    fs::remove_dir_all(place.parent().unwrap()).unwrap();
    let mut unbuilt = first.clone().into_active_model();
    unbuilt.built_at = Set(None);
    unbuilt.object_key = Set(None);
    unbuilt.sha256 = Set(None);
    unbuilt.update(app.database().reader()).await.unwrap();
    const AGAIN: &str = "UPDATE job SET state = 'queued', completed_at = NULL, due_at = {now}, turn = NULL, attempt = 0, \
         deadline_at = NULL, unique_key = NULL WHERE id = $1";
    let again = clock::statement(app.database().backend(), AGAIN, [id.into()]);
    app.database().reader().execute_raw(again).await.unwrap();
    app.cloud.put_secrets("one", &secrets_in("north"), 30);
    let elsewhere = tempfile::tempdir().unwrap();
    let workshop = Workshop { room: elsewhere.path().to_owned(), ..app.workshop() };
    let _other = app.worker(WorkerSettings { evidence: Some(workshop), ..WorkerSettings::default() }).await;
    keywright_tests::app::scan(app.database(), None).await;
    eventually("the package is built again", async || row(&app, id).await.built_at).await;
    let (second, again) = built(&app, id).await;
    assert_eq!(first.sha256, second.sha256);
    assert!(bytes == again, "the same sum of other bytes");
    assert_eq!(first.report_sha256, second.report_sha256);
}

/// A workshop that hears of each step and panics once at the one of this number.
fn dying_at(app: &TestApp, step: usize, told: Arc<Mutex<Vec<String>>>) -> Workshop {
    let observer = move |name: &str| {
        let mut told = told.lock().unwrap();
        told.push(name.to_owned());
        let now = told.len();
        drop(told);
        assert!(now != step + 1, "killed before {name}");
    };
    Workshop { observer: Some(Arc::new(observer)), ..app.workshop() }
}

fn visible(app: &TestApp, id: Uuid) -> usize {
    let folder: PathBuf = app.data().join("evidence/packages").join(id.to_string());
    fs::read_dir(folder).map_or(0, Iterator::count)
}

async fn killed_at_any_step_nothing_partial_is_seen_and_the_next_try_succeeds(test: TestDatabase) {
    let (app, _) = scanned(test).await;
    let mut step = 0;
    loop {
        let told = Arc::new(Mutex::new(Vec::new()));
        let workshop = dying_at(&app, step, Arc::clone(&told));
        let worker = app.worker(WorkerSettings { evidence: Some(workshop), ..WorkerSettings::default() }).await;
        let id = ask(&app, &Scope::All, wanted(&step.to_string())).await;
        let hit = eventually("the build dies or ends", async || {
            let job = read(app.database(), id).await;
            // what waits until its events have numbers has no error
            let died = job.state == JobState::Waiting && job.error_code.is_some();
            (died || job.state.is_done()).then_some(died)
        })
        .await;
        if hit {
            assert_eq!(row(&app, id).await.built_at, None);
            let before: Vec<String> = told.lock().unwrap().clone();
            let stored = before.iter().filter(|name| name.starts_with("store ")).count();
            assert!(visible(&app, id) <= stored, "before {:?} there are {} files", before.last(), visible(&app, id));
            const DUE: &str = "UPDATE job SET due_at = {now} WHERE id = $1";
            let due = clock::statement(app.database().backend(), DUE, [id.into()]);
            app.database().reader().execute_raw(due).await.unwrap();
        }
        let (row, bytes) = built(&app, id).await;
        checked(&row, &bytes).unwrap();
        assert_eq!(visible(&app, id), 2);
        worker.stop().await;
        assert_eq!(fs::read_dir(app.data().join("building")).unwrap().count(), 0, "nothing stays behind");
        if !hit {
            assert!(step > 20, "there are more steps than {step}: {told:?}");
            return;
        }
        step += 1;
    }
}

type Tamper = fn(&mut BTreeMap<String, Vec<u8>>);
/// What is done, what is said of it, the file and the row that are named, and how it is done.
type Case = (&'static str, &'static str, Option<&'static str>, Option<u64>, Tamper);

async fn whatever_is_done_to_a_package_is_found(test: TestDatabase) {
    let (app, _) = scanned(test).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let (row, bytes) = built(&app, id).await;
    let files = unzipped(&bytes);
    let whole = checked(&row, &zipped(&files)).unwrap();
    assert!(whole.contains("package"), "{whole}");
    // one byte in any file
    for name in files.keys() {
        let mut changed = files.clone();
        let bytes = changed.get_mut(name).unwrap();
        let middle = bytes.len() / 2;
        match bytes.get_mut(middle) {
            Some(byte) => *byte ^= 1,
            None => bytes.push(b'x'),
        }
        let fault = checked(&row, &zipped(&changed)).unwrap_err();
        let named = if name == "manifest.sig" { "manifest.json" } else { name };
        assert_eq!((fault.kind, fault.file.as_deref()), (Kind::Tampered, Some(named)), "{name}: {fault}");
    }
    let text = |files: &BTreeMap<String, Vec<u8>>, name: &str| String::from_utf8(files[name].clone()).unwrap();
    let rows = "population/assets.csv";
    let cases: [Case; 8] = [
        ("a file removed", "file_removed", Some("scope.json"), None, |files| drop(files.remove("scope.json"))),
        ("a file added", "file_added", Some("population/more.csv"), None, |files| {
            files.insert("population/more.csv".to_owned(), b"id\n1\n".to_vec());
        }),
        ("rows reordered", "file_changed", Some(rows), Some(2), |files| {
            let text = String::from_utf8(files["population/assets.csv"].clone()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let order = [lines[0], lines[2], lines[1], lines[3]];
            files.insert("population/assets.csv".to_owned(), (order.join("\n") + "\n").into_bytes());
        }),
        ("a row removed", "file_changed", Some(rows), Some(4), |files| {
            let text = String::from_utf8(files["population/assets.csv"].clone()).unwrap();
            let lines: Vec<&str> = text.lines().take(3).collect();
            files.insert("population/assets.csv".to_owned(), (lines.join("\n") + "\n").into_bytes());
        }),
        ("a count edited", "signature_wrong", Some("manifest.json"), None, |files| {
            let text = String::from_utf8(files["manifest.json"].clone()).unwrap();
            files.insert("manifest.json".to_owned(), text.replacen("\"rows\": 3", "\"rows\": 2", 1).into_bytes());
        }),
        ("no signature", "not_signed", Some("manifest.sig"), None, |files| drop(files.remove("manifest.sig"))),
        ("no manifest", "not_signed", Some("manifest.json"), None, |files| drop(files.remove("manifest.json"))),
        ("a swapped signature", "signature_wrong", Some("manifest.json"), None, |files| {
            files.insert("manifest.sig".to_owned(), vec![7; 64]);
        }),
    ];
    assert_eq!(text(&files, rows).lines().count(), 4);
    for (what, code, file, row_number, tamper) in cases {
        let mut changed = files.clone();
        tamper(&mut changed);
        assert_ne!(changed, files, "{what}");
        let fault = checked(&row, &zipped(&changed)).unwrap_err();
        assert_eq!((fault.code, fault.file.as_deref(), fault.row), (code, file, row_number), "{what}: {fault}");
    }
    // another package's key, another package's signature, a tail that is gone, and data that no file has
    let mut other = row.clone();
    other.signing_key = Some(Verifier::new("keywright", &[9; 32]).unwrap().to_string());
    assert_eq!(checked(&other, &bytes).unwrap_err().code, "other_key");
    for length in [0, 21, bytes.len() / 2, bytes.len() - 1] {
        let fault = checked(&row, &bytes[..length]).unwrap_err();
        assert_eq!((fault.kind, fault.code), (Kind::Incomplete, "not_whole"), "{length} bytes: {fault}");
    }
    let mut padded = b"PK".to_vec();
    padded.extend_from_slice(&bytes);
    assert!(checked(&row, &padded).is_err());
}

async fn a_worker_with_another_store_says_so(test: TestDatabase) {
    let app = TestApp::on(test);
    let elsewhere = tempfile::tempdir().unwrap();
    let workshop = Workshop::new(Store::new(Place::Local, elsewhere.path(), None), elsewhere.path(), None);
    let _worker = app.worker(WorkerSettings { evidence: Some(workshop), ..WorkerSettings::default() }).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let job: job::Model = eventually("the worker looks", async || {
        Some(read(app.database(), id).await).filter(|job| job.error_code.is_some())
    })
    .await;
    assert_eq!(job.error_code.as_deref(), Some("evidence_store_not_shared"));
    assert_eq!(row(&app, id).await.built_at, None);
}
