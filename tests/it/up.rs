//! `keywright-up` as somebody runs it for the first time, for the second, and until Ctrl-C.

use chrono::{DateTime, Datelike, Duration, Utc};
use keywright_jobs::setup::clock::Clock;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// The driver on a folder of its own, for this bundle, with nothing else in its environment.
fn driver(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywright-up"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("KEYWRIGHT_DATA_DIR", folder.join("data"))
        .env("KEYWRIGHT_LISTEN", "127.0.0.1:0")
        .current_dir(folder)
        .stdin(Stdio::null())
        .args(["--path", "bundle.pem"]);
    command
}

/// What one run until its summary prints.
fn once(folder: &Path) -> String {
    let output = driver(folder).arg("--once").output().unwrap();
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = |name: &str| fs::read_to_string(folder.join("data/log").join(name)).unwrap_or_default();
    let logs = format!("{}{}", log("api.log"), log("worker.log"));
    assert!(output.status.success(), "{told}\n{wrong}\n{logs}");
    told.into_owned()
}

/// The value behind a name in the summary.
fn told<'a>(summary: &'a str, name: &str) -> &'a str {
    let line = summary.lines().find_map(|line| line.trim_start().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name:?} in {summary}")).trim()
}

fn certificate(name: &str, ends: DateTime<Utc>) -> String {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1990, 1, 1);
    params.not_after = date_time_ymd(ends.year(), ends.month().try_into().unwrap(), ends.day().try_into().unwrap());
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn folder_with_bundle() -> TempDir {
    let folder = TempDir::new().unwrap();
    let now = Clock::system().now();
    let certificates = [
        certificate("long-ago.example", now - Duration::days(1000)),
        certificate("yesterday.example", now - Duration::days(2)),
        certificate("soon.example", now + Duration::days(20)),
        certificate("later.example", now + Duration::days(900)),
    ];
    fs::write(folder.path().join("bundle.pem"), certificates.concat()).unwrap();
    folder
}

#[test]
fn a_second_run_reuses_what_the_first_one_made() {
    let folder = folder_with_bundle();
    let token = folder.path().join("data/up.token");
    let first = once(folder.path());
    assert!(first.contains("First user: admin\nPassword:   "), "{first}");
    assert_eq!(told(&first, "found"), "4");
    assert_eq!(told(&first, "expired"), "2");
    assert_eq!(told(&first, "expiring within 30 days"), "1");
    assert_eq!(told(&first, "weak"), "0");
    assert_eq!(told(&first, "warnings"), "0");
    assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&token).unwrap();

    let second = once(folder.path());
    assert!(!second.contains("Password:"), "{second}");
    assert_eq!(told(&second, "subscription"), told(&first, "subscription"));
    assert_ne!(told(&second, "scan"), told(&first, "scan"));
    assert_eq!(told(&second, "found"), "4");
    assert_eq!(fs::read_to_string(&token).unwrap(), kept);

    fs::write(&token, "kw_somebody-elses\n").unwrap();
    let third = once(folder.path());
    assert_eq!(told(&third, "found"), "4");
    assert_ne!(
        fs::read_to_string(&token).unwrap(),
        "kw_somebody-elses\n",
        "a token that is no longer taken is replaced"
    );
}

#[test]
fn it_stays_until_it_is_told_to_stop_and_stops_both() {
    let folder = folder_with_bundle();
    let mut running = driver(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
    let stays = lines.by_ref().any(|line| line == "Ctrl-C stops both.");
    assert!(stays, "it ended by itself: {:?}", running.wait());
    let sent = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert!(running.wait().unwrap().success());
    // the children inherit this output: its end means that they are gone too
    assert_eq!(lines.collect::<Vec<_>>(), ["Stopping…"]);
    for name in ["api.log", "worker.log"] {
        let log = fs::read_to_string(folder.path().join("data/log").join(name)).unwrap();
        assert_eq!(log.matches("SIGTERM: shutting down").count(), 1, "{log}");
    }
}

#[test]
fn a_program_that_ends_by_itself_is_quoted() {
    let folder = folder_with_bundle();
    let short = driver(folder.path()).env("KEYWRIGHT_MASTER_KEY_FILE", "bundle.pem").output().unwrap();
    assert_eq!(short.status.code(), Some(1));
    let told = String::from_utf8_lossy(&short.stderr);
    assert!(told.contains("keywright-api ended by itself") && told.contains("the key-encryption key is not"), "{told}");
}
