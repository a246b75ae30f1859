//! The audit log's events in packages: bound to signed checkpoints, compared with the jobs, and what is done to them.

use crate::evidence::{ask, built, checked, scanned, unzipped, wanted, zipped};
use keywright_entities::{clock, evidence_package, scope::Scope};
use keywright_jobs::{
    audit::{
        keys, log,
        proof::{
            Hash,
            checkpoint::Checkpoint,
            note::{Signer, Verifier},
            package::{Inputs, verify},
            tree,
            verdict::{Fault, Kind},
        },
    },
    setup::ids,
};
use keywright_tests::{
    app::{TestApp, WorkerSettings, sealing},
    database::TestDatabase,
    on_both_databases,
};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::Cursor};

on_both_databases!(
    a_package_holds_the_events_of_its_period_and_their_proof,
    whatever_is_done_to_events_is_found_even_if_it_is_signed_anew,
    a_job_whose_end_nobody_logged_is_found,
);

const EVENTS: &str = "audit/events.ndjson";

type Files = BTreeMap<String, Vec<u8>>;

fn scope_of(files: &Files) -> Value {
    serde_json::from_slice(&files["scope.json"]).unwrap()
}

fn with_checkpoint(
    row: &evidence_package::Model,
    files: &Files,
    kept: &Checkpoint,
    signer: &Signer,
) -> Result<(), Fault> {
    let key: Verifier = row.signing_key.as_ref().unwrap().parse().unwrap();
    let kept = vec![("kept".to_owned(), kept.sign(signer).unwrap())];
    let inputs = Inputs { keys: vec![key], checkpoints: kept, ..Inputs::default() };
    let bytes = zipped(files);
    verify(|| Ok(Cursor::new(bytes.as_slice())), &inputs).map(|_| ())
}

async fn a_package_holds_the_events_of_its_period_and_their_proof(test: TestDatabase) {
    let (app, subscription) = scanned(test).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let (row, bytes) = built(&app, id).await;
    let report = checked(&row, &bytes).unwrap();
    assert!(!report.contains("not in the package"), "{report}");
    let files = unzipped(&bytes);
    let told = scope_of(&files)["auditEvents"].clone();
    assert_eq!((&told["standing"], &told["file"], &told["from"]), (&json!("included"), &json!(EVENTS), &json!("0")));
    let text = String::from_utf8(files[EVENTS].clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&Value> = lines.iter().filter_map(|line| line.get("event")).collect();
    assert_eq!(told["events"], json!(events.len()));
    // the scan that came before is told, the download that comes after is not
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(types.contains(&"scan.requested") && types.contains(&"job.ended"), "{types:?}");
    // a period that ended before anything happened has no events, and says so
    let mut before = wanted("s");
    let first = clock::now(app.database().reader()).await.unwrap() - chrono::TimeDelta::days(30);
    (before.from, before.to) = (Some(first), Some(first + chrono::TimeDelta::days(1)));
    let id = ask(&app, &Scope::All, before).await;
    let (row, bytes) = built(&app, id).await;
    checked(&row, &bytes).unwrap();
    assert_eq!(scope_of(&unzipped(&bytes))["auditEvents"]["events"], 0);
    // who does not ask gets none, and who may not see the log neither
    let mut without = wanted("s");
    without.include.audit = false;
    for (scope, request, standing) in [
        (Scope::All, without, "not_requested"),
        (Scope::Subscriptions(vec![subscription]), wanted("s"), "not_permitted"),
    ] {
        let id = ask(&app, &scope, request).await;
        let (row, bytes) = built(&app, id).await;
        assert!(checked(&row, &bytes).unwrap().contains("not in the package"));
        let files = unzipped(&bytes);
        assert!(!files.contains_key(EVENTS));
        assert_eq!(scope_of(&files)["auditEvents"], json!({"standing": standing}));
    }
}

/// As whoever has the key would make it: every sum and the signature are right.
fn signed_anew(mut files: Files, events: String, signer: &Signer) -> Files {
    let sum = |bytes: &[u8]| Hash::of_parts(&[bytes]).hex();
    let old = sum(&files[EVENTS]);
    let sums = String::from_utf8(files["SHA256SUMS"].clone()).unwrap().replace(&old, &sum(events.as_bytes()));
    files.insert(EVENTS.to_owned(), events.into_bytes());
    files.insert("SHA256SUMS".to_owned(), sums.into_bytes());
    let mut manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    for file in manifest["files"].as_array_mut().unwrap() {
        let bytes = &files[file["path"].as_str().unwrap()];
        file["size"] = json!(bytes.len());
        file["sha256"] = json!(sum(bytes));
    }
    let manifest = manifest.to_string().into_bytes();
    files.insert("manifest.sig".to_owned(), signer.sign_detached(&manifest).to_vec());
    files.insert("manifest.json".to_owned(), manifest);
    files
}

async fn signer(app: &TestApp) -> Signer {
    keys::signer(app.database(), &sealing(app.database()).await).await.unwrap()
}

async fn whatever_is_done_to_events_is_found_even_if_it_is_signed_anew(test: TestDatabase) {
    let (app, _) = scanned(test).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let (row, bytes) = built(&app, id).await;
    let (files, signer) = (unzipped(&bytes), signer(&app).await);
    let text = String::from_utf8(files[EVENTS].clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let without = |row: usize| {
        let mut lines = lines.clone();
        lines.remove(row);
        joined(&lines)
    };
    // two events without a checkpoint between them
    let is_event = |row: usize| lines[row].starts_with("{\"event\"");
    let pair = (1..lines.len() - 2).find(|row| is_event(*row) && is_event(row + 1)).unwrap();
    let swapped = {
        let mut lines = lines.clone();
        lines.swap(pair, pair + 1);
        joined(&lines)
    };
    let again = signed_anew(files.clone(), text.clone(), &signer);
    checked(&row, &zipped(&again)).unwrap();
    for (what, events, kind, code) in [
        ("one event deleted", without(pair), Kind::Tampered, "event_missing"),
        ("events reordered", swapped, Kind::Tampered, "event_missing"),
        ("an event edited", text.replacen("scan.requested", "scan.reguested", 1), Kind::Tampered, "event_changed"),
        ("a truncated tail", without(lines.len() - 1), Kind::Incomplete, "cut_short"),
    ] {
        assert_ne!(events, text, "{what}");
        let forged = signed_anew(files.clone(), events, &signer);
        let fault = checked(&row, &zipped(&forged)).unwrap_err();
        assert_eq!((fault.kind, fault.code, fault.file.as_deref()), (kind, code, Some(EVENTS)), "{what}: {fault}");
    }
    // everything hashed anew from the beginning is found by a checkpoint that somebody kept; a genuine one agrees
    let db = app.database().reader();
    let header: Value = serde_json::from_str(lines[0]).unwrap();
    let top: u64 = scope_of(&files)["auditEvents"]["checkpoint"].as_str().unwrap().parse().unwrap();
    let origin = header["audit"]["origin"].as_str().unwrap().to_owned();
    let (leaf, path) = log::inclusion(db, 0, 1).await.unwrap().unwrap();
    assert!(path.is_empty() && top > 1);
    let kept = |root| Checkpoint { origin: origin.clone(), size: 1, root, time: None };
    with_checkpoint(&row, &files, &kept(leaf), &signer).unwrap();
    let rewritten = with_checkpoint(&row, &files, &kept(tree::leaf(b"another")), &signer).unwrap_err();
    assert_eq!((rewritten.kind, rewritten.code), (Kind::Tampered, "history_rewritten"), "{rewritten}");
}

async fn a_job_whose_end_nobody_logged_is_found(test: TestDatabase) {
    let (app, _) = scanned(test).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let first = ask(&app, &Scope::All, wanted("s")).await;
    built(&app, first).await;
    // its events tell of another job than the one that ended
    let other = ids::new();
    let renamed = clock::statement(
        app.database().backend(),
        "UPDATE job SET id = $2 WHERE id = $1",
        [first.into(), other.into()],
    );
    app.database().reader().execute_raw(renamed).await.unwrap();
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let (row, bytes) = built(&app, id).await;
    let fault = checked(&row, &bytes).unwrap_err();
    assert_eq!((fault.kind, fault.code), (Kind::Tampered, "event_never_logged"), "{fault}");
    assert!(fault.to_string().contains(&other.to_string()), "{fault}");
}
