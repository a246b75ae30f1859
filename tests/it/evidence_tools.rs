//! Packages and their reports, judged by programs that we did not write: sha256sum, openssl, qpdf and poppler's.

use keywright_entities::{evidence_package, scope::Scope, types::JobState};
use keywright_jobs::{
    domain::evidence::{Include, Request, Sample},
    evidence::Workshop,
    kinds::{
        discovery::request::OnConflict,
        evidence::request::{self, Surroundings},
    },
    queue::{Enqueued, Requester},
};
use keywright_tests::{
    app::{TestApp, WorkerSettings},
    database::TestDatabase,
    on_both_databases,
};
use keywright_worker::{
    providers::memory::{secret, secrets_in},
    report,
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use zip::ZipArchive;

on_both_databases!(other_programs_agree_with_a_package);

const TOOLS: &str = "KWTEST_PDF_TOOLS";
/// Of a page, in points, and some for the last letter's shape.
const RIGHT_MARGIN: f64 = 595.3 - 51.0 + 1.5;

/// The directory of qpdf and poppler's programs, or `None` after having said that the test is skipped.
fn tools() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the test runner tells through the environment where it installed them"
    )]
    let folder = std::env::var(TOOLS).ok().filter(|folder| !folder.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: needs {TOOLS}");
    }
    folder
}

/// What the program printed; it must succeed.
fn said(program: impl AsRef<Path>, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program.as_ref()).args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = program.as_ref().display();
    assert!(output.status.success(), "{name} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A package with a report that is really laid out, over names that do their worst; unpacked.
async fn unpacked(test: TestDatabase) -> (TempDir, evidence_package::Model) {
    let app = TestApp::on(test);
    let north = secrets_in("north");
    for name in [
        "x".repeat(200),
        "prod/".to_owned() + &"\u{633}\u{631}\u{64a}".repeat(60),
        "\u{5de}\u{5e4}\u{5ea}\u{5d7}".to_owned(),
    ] {
        let mut asset = secret(&north, &name);
        asset
            .tags
            .insert("owner".to_owned(), "\u{1f680}\u{1f469}\u{200d}\u{1f4bb} \u{5de}\u{5e4}\u{5ea}\u{5d7}".to_owned());
        app.cloud.put("one", &north, asset);
    }
    app.cloud.put_secrets("two", &north, 40);
    app.subscribe("two").await;
    app.subscribe("one").await;
    app.subscribe("\u{79d8}\u{5bc6}-\u{1f511}-#[$x$]-\u{202e}-very-long-name-".repeat(5).as_str()).await;
    let workshop = Workshop { layout: report::layout(), ..app.workshop() };
    let _worker = app.worker(WorkerSettings { evidence: Some(workshop), ..WorkerSettings::default() }).await;
    let scan = keywright_tests::app::scan(app.database(), None).await;
    app.ended(scan).await;
    let store = app.workshop().store.objects().await.unwrap().identity().to_owned();
    let surroundings = Surroundings { organisation: "Acme".to_owned(), store };
    let sample = Sample { seed: Some("2026-q4".to_owned()), size: 50 };
    let (include, frameworks) = (Include::ALL, Vec::new());
    let wanted = Request { from: None, to: None, subscriptions: None, frameworks, include, sample };
    let write = app.database().begin().await.unwrap();
    let begun =
        request::package(&write, &Scope::All, Requester::system(), &surroundings, wanted, OnConflict::Join).await;
    let (Enqueued::New(job) | Enqueued::Open(job)) = begun.unwrap();
    write.commit().await.unwrap();
    let ended = app.ended(job.id).await;
    assert_eq!(ended.state, JobState::Succeeded, "{ended:?}");
    let row = evidence_package::by_id(app.database().reader(), job.id).await.unwrap().unwrap();
    let file = fs::File::open(app.data().join("evidence").join(row.object_key.as_ref().unwrap())).unwrap();
    let folder = TempDir::new().unwrap();
    ZipArchive::new(file).unwrap().extract(folder.path()).unwrap();
    (folder, row)
}

async fn other_programs_agree_with_a_package(test: TestDatabase) {
    let Some(tools) = tools() else { return };
    let (folder, row) = unpacked(test).await;
    let folder = folder.path();
    // as README.txt says
    let readme = fs::read_to_string(folder.join("README.txt")).unwrap();
    let signed_by = row.signing_key.as_ref().unwrap();
    let key = signed_by.splitn(3, '+').nth(2).unwrap();
    assert!(readme.contains(signed_by.as_str()));
    let commands: Vec<&str> = readme.lines().skip_while(|line| !line.starts_with("  (printf")).take(4).collect();
    let script = commands.join("\n").replace("BASE64", key);
    let told = said("sh", &["-euc", &script], folder);
    assert!(told.contains("Signature Verified Successfully") && told.contains("report.pdf: OK"), "{told}");
    let drawn = fs::read_to_string(folder.join("sample/assets.csv")).unwrap();
    let first = drawn.lines().nth(1).unwrap();
    let (rank, id) = (first.split(',').next().unwrap(), first.split(',').nth(1).unwrap());
    let sum = said("sh", &["-c", &format!("printf '%s\\n%s' 2026-q4 {id} | sha256sum")], folder);
    assert_eq!(sum.split(' ').next(), Some(rank));
    // the report
    said(tools.join("qpdf"), &["--check", "report.pdf"], folder);
    let attached = said(tools.join("pdfdetach"), &["-list", "report.pdf"], folder);
    fs::create_dir(folder.join("attached")).unwrap();
    said(tools.join("pdfdetach"), &["-saveall", "-o", "attached", "report.pdf"], folder);
    let mut files = 0;
    for entry in fs::read_dir(folder.join("attached")).unwrap().flatten() {
        let own = folder.join("population").join(entry.file_name());
        assert!(fs::read(entry.path()).unwrap() == fs::read(own).unwrap(), "{:?} is another file", entry.file_name());
        files += 1;
    }
    assert_eq!(files, fs::read_dir(folder.join("population")).unwrap().count() / 2, "{attached}");
    // nothing runs over the margins
    said(tools.join("pdftotext"), &["-bbox", "report.pdf", "places.html"], folder);
    let places = fs::read_to_string(folder.join("places.html")).unwrap();
    let ends = places.lines().filter_map(|line| line.trim().strip_prefix("<word ")?.split("xMax=\"").nth(1));
    let ends: Vec<f64> = ends.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
    assert!(ends.len() > 500 && ends.iter().all(|end| *end <= RIGHT_MARGIN), "{places}");
    said(tools.join("pdftotext"), &["-layout", "report.pdf", "report.txt"], folder);
    let text = fs::read_to_string(folder.join("report.txt")).unwrap();
    for expected in
        ["Evidence package", "Acme", &row.id.to_string(), "Management assertion", "U+1F511", "U+202E", "assets.csv"]
    {
        assert!(text.contains(expected), "{expected} is not in the report:\n{text}");
    }
}
