//! `keywright-verify` as an auditor runs it: what it is given are files, what it tells are a line and an exit code.

use crate::evidence::{ask, built, scanned, wanted};
use keywright_entities::scope::Scope;
use keywright_jobs::audit::{
    checkpoints,
    export::{Export, Part},
    proof::note::Verifier,
};
use keywright_tests::{
    app::{WorkerSettings, sealing},
    database::TestDatabase,
    on_both_databases,
    process::built as binary,
};
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

on_both_databases!(each_verdict_has_its_exit_code);

/// The exit code, and the first line.
fn verify(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("keywright-verify")).args(arguments).current_dir(folder).env_clear().output();
    let output = output.expect("keywright-verify is built");
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.lines().next().unwrap_or_default().to_owned())
}

async fn each_verdict_has_its_exit_code(test: TestDatabase) {
    let (app, _) = scanned(test).await;
    let _worker = app.worker(WorkerSettings::default()).await;
    let id = ask(&app, &Scope::All, wanted("s")).await;
    let (row, package) = built(&app, id).await;
    let (db, sealing) = (app.database(), sealing(app.database()).await);
    let size = checkpoints::covering(db, &sealing, 0).await.unwrap();
    let (mut export, mut log) = Export::begin(db, &sealing, Part::of(db, 0, Some(size)).await.unwrap()).await.unwrap();
    while let Some(more) = export.more().await.unwrap() {
        log.extend(more);
    }
    let log = String::from_utf8(log).unwrap();
    let part = {
        let (mut export, mut part) =
            Export::begin(db, &sealing, Part::of(db, 1, Some(2)).await.unwrap()).await.unwrap();
        while let Some(more) = export.more().await.unwrap() {
            part.extend(more);
        }
        part
    };
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let (key, other) = (row.signing_key.unwrap(), Verifier::new("keywright", &[9; 32]).unwrap().to_string());
    write("keys.txt", key.as_bytes());
    write("package.zip", &package);
    write("half.zip", &package[..package.len() / 2]);
    write("log.ndjson", log.as_bytes());
    write("part.ndjson", &part);
    write("half.ndjson", &log.as_bytes()[..log.len() / 2]);
    write("edited.ndjson", log.replacen("scan.requested", "scan.reguested", 1).as_bytes());
    let mut padded = package.clone();
    padded.splice(0..0, *b"PK");
    write("padded.zip", &padded);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["package", "package.zip", "--key", &key], 0, "VALID"),
        (&["package", "package.zip", "--key", "keys.txt"], 0, "VALID"),
        (&["package", "package.zip", "--key", &other, "--key", &key], 0, "VALID"),
        (&["audit", "log.ndjson", "--key", &key], 0, "VALID"),
        (&["audit", "part.ndjson", "--key", &key, "--part"], 0, "VALID"),
        (&["--version"], 0, "keywright-verify"),
        (&["package", "--help"], 0, "Checks an evidence package"),
        (&["package", "package.zip", "--key", &other], 1, "TAMPERED other_key in manifest.sig"),
        (&["package", "padded.zip", "--key", &key], 1, "TAMPERED hidden_data"),
        (&["audit", "edited.ndjson", "--key", &key], 1, "TAMPERED event_changed, row"),
        (&["audit", "log.ndjson", "--key", &other], 1, "TAMPERED other_key"),
        (&["package", "half.zip", "--key", &key], 2, "INCOMPLETE not_whole"),
        (&["audit", "half.ndjson", "--key", &key], 2, "INCOMPLETE cut_short"),
        (&["audit", "part.ndjson", "--key", &key], 2, "INCOMPLETE part_of_the_log"),
        (&[], 3, ""),
        (&["package", "package.zip"], 3, "error:"),
        (&["package", "missing.zip", "--key", &key], 3, "USAGE usage"),
        (&["package", "package.zip", "--key", "no-key"], 3, "USAGE usage"),
        (&["package", "package.zip", "--key", "package.zip"], 3, "USAGE usage"),
        (&["package", "package.zip", "--key", &key, "--checkpoint", "keys.txt"], 3, "USAGE usage"),
        (&["audit", ".", "--key", &key], 3, "USAGE usage"),
        (&["paint"], 3, "error:"),
    ];
    for (arguments, code, said) in cases {
        let (ended, told) = verify(folder.path(), arguments);
        assert_eq!(ended, Some(*code), "{arguments:?}: {told}");
        assert!(told.starts_with(said), "{arguments:?}: {told}");
    }
}
