use super::{super::fixtures::*, *};
use keywright_jobs::domain::inventory::Observed;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Lists everything below the folder, page by page.
    async fn list(&self, wanted: Wanted, limits: Limits) -> Page {
        self.list_with(json!({"paths": [self.0.path()]}), wanted, limits).await
    }

    async fn list_with(&self, settings: Value, wanted: Wanted, limits: Limits) -> Page {
        let settings = Settings::read(&settings, Arc::new(|_| None)).unwrap();
        let scope = FileScope::new(settings, wanted, limits);
        let mut all = Page::default();
        let mut token = None;
        loop {
            let page = scope.list(token.as_deref()).await.unwrap();
            all.assets.extend(page.assets);
            all.warnings.extend(page.warnings);
            match page.next {
                Some(next) => token = Some(next),
                None => return all,
            }
        }
    }

    fn warnings(&self, page: &Page) -> Vec<(String, String)> {
        let relative =
            |path: &str| path.trim_start_matches(&*self.0.path().to_string_lossy()).trim_start_matches('/').to_owned();
        page.warnings.iter().map(|warning| (relative(&warning.path), warning.code.clone())).collect()
    }
}

fn identifiers(page: &Page) -> BTreeSet<String> {
    let identifiers: BTreeSet<String> = page.assets.iter().map(|asset| asset.external_id.clone()).collect();
    assert_eq!(identifiers.len(), page.assets.len(), "an identifier is used twice");
    identifiers
}

fn fingerprint(asset: &Observed) -> String {
    asset.certificate.clone().unwrap().fingerprint_sha256.unwrap()
}

#[tokio::test]
async fn describes_a_certificate_at_its_place() {
    let folder = Folder::new();
    let path = folder.write("sub/one.pem", named("one.example").pem);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let page = folder.list(Wanted::Certificates, Limits::default()).await;
    let [asset] = page.assets.as_slice() else { panic!("{:?}", page.assets) };
    assert_eq!((asset.kind.as_str(), asset.name.as_str()), ("local.file.certificate", "one.pem"));
    assert_eq!(asset.vault, folder.shown("sub"));
    assert_eq!(asset.external_id, format!("{}#{}", folder.shown("sub/one.pem"), fingerprint(asset)));
    assert_eq!(asset.expires_at.unwrap().to_rfc3339(), "2120-01-01T00:00:00+00:00");
    assert_eq!(asset.attributes["path"], json!(folder.shown("sub/one.pem")));
    assert_eq!(asset.attributes["file"]["mode"], json!("0640"));
    assert!(page.warnings.is_empty());
}

#[tokio::test]
async fn a_bundle_names_its_members_and_keeps_their_identity_when_it_grows() {
    let folder = Folder::new();
    let authority = Authority::new("Root");
    let leaf = authority.sign(params("leaf.example"));
    folder.write("bundle.pem", [leaf.pem.clone(), authority.made.pem.clone()].concat());
    let before = folder.list(Wanted::Certificates, Limits::default()).await;
    let names: Vec<_> = before.assets.iter().map(|asset| asset.name.as_str()).collect();
    assert_eq!(names, ["bundle.pem (leaf.example)", "bundle.pem (Root)"]);
    assert_eq!(before.assets[0].attributes["issuerInSameFile"], json!(true));

    folder.write("bundle.pem", [named("new.example").pem, leaf.pem.clone(), authority.made.pem, leaf.pem].concat());
    let after = folder.list(Wanted::Certificates, Limits::default()).await;
    assert_eq!(after.assets.len(), 3);
    assert!(identifiers(&after).is_superset(&identifiers(&before)));
    assert_eq!(after.assets[1].attributes["occurrences"], json!(2));
}

#[tokio::test]
async fn the_same_certificate_in_two_places_is_two_assets() {
    let folder = Folder::new();
    let pem = named("one.example").pem;
    folder.write("a/one.pem", &pem);
    folder.write("b/one.pem", &pem);
    assert_eq!(identifiers(&folder.list(Wanted::Certificates, Limits::default()).await).len(), 2);
}

#[tokio::test]
async fn every_bad_input_is_told_and_the_good_ones_are_found() {
    let folder = Folder::new();
    folder.write("a-good.pem", named("good.example").pem);
    folder.write("b-empty.pem", "");
    folder.write("c-text.crt", "hello");
    folder.write("d-binary.der", [0xff; 100]);
    folder.write("e-cut.cer", &named("cut.example").der[..200]);
    folder.write("f-armour.pem", "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n");
    folder.write("g-huge.pem", vec![b'x'; 5_000]);
    folder.write("h-archive.p12", data!("modern.p12"));
    symlink("nowhere", folder.path("i-broken.pem")).unwrap();
    symlink("j-loop.pem", folder.path("j-loop.pem")).unwrap();
    symlink("/dev/null", folder.path("k-device.pem")).unwrap();
    let _listener = UnixListener::bind(folder.path("l-socket.pem")).unwrap();
    folder.write("notes.txt", "nothing of interest");
    folder.write("run.sh", "#!/bin/sh\n");
    folder.write("z-good-too.txt", named("hidden.example").pem);
    let limits = Limits { file_bytes: 4_096, ..Limits::default() };
    let page = folder.list(Wanted::Certificates, limits).await;
    let expected = [
        ("b-empty.pem", "empty_file"),
        ("c-text.crt", "not_a_certificate"),
        ("d-binary.der", "not_a_certificate"),
        ("e-cut.cer", "invalid_der"),
        ("f-armour.pem", "invalid_der"),
        ("g-huge.pem", "too_large"),
        ("h-archive.p12", "password_missing"),
        ("i-broken.pem", "broken_symlink"),
        ("j-loop.pem", "symlink_loop"),
        ("k-device.pem", "not_a_regular_file"),
        ("l-socket.pem", "not_a_regular_file"),
        ("", "unrelated_files"),
    ];
    assert_eq!(folder.warnings(&page), expected.map(|(path, code)| (path.to_owned(), code.to_owned())));
    assert!(page.warnings.last().unwrap().detail.starts_with("2 files"));
    let names: Vec<_> = page.assets.iter().map(|asset| asset.name.as_str()).collect();
    assert_eq!(names, ["a-good.pem", "z-good-too.txt"]);
}

#[tokio::test]
async fn a_named_file_is_never_skipped() {
    let folder = Folder::new();
    let unrelated = folder.write("notes.txt", "hello");
    let settings = json!({"paths": [unrelated, folder.path("none")]});
    let page = folder.list_with(settings, Wanted::Certificates, Limits::default()).await;
    let expected = [("notes.txt", "not_a_certificate"), ("none", "path_missing")];
    assert_eq!(folder.warnings(&page), expected.map(|(path, code)| (path.to_owned(), code.to_owned())));
}

#[tokio::test]
async fn an_archive_opens_with_a_password_by_reference() {
    let folder = Folder::new();
    folder.write("store/a.p12", data!("modern.p12"));
    let secret = folder.write("secret", "correct\n");
    let with = |path: &Path| json!({"paths": [folder.path("store")], "pkcs12Passwords": {folder.shown("store"): format!("file:{}", path.display())}});
    let page = folder.list_with(with(&secret), Wanted::Certificates, Limits::default()).await;
    assert_eq!((page.assets.len(), page.warnings.len()), (1, 0));
    let page = folder.list_with(with(&folder.path("none")), Wanted::Certificates, Limits::default()).await;
    assert_eq!(folder.warnings(&page), [("store/a.p12".to_owned(), "password_missing".to_owned())]);
}

#[tokio::test]
async fn keys_are_noticed_and_never_shown() {
    let folder = Folder::new();
    let made = named("one.example");
    let text = [made.pem, made.key.serialize_pem()].concat();
    let path = folder.write("both.pem", &text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let page = folder.list(Wanted::Keys, Limits::default()).await;
    let [asset] = page.assets.as_slice() else { panic!("{:?}", page.assets) };
    assert_eq!(
        (asset.kind.as_str(), asset.external_id.clone()),
        ("local.file.key", format!("{}#key-1", path.display()))
    );
    let expected = [("format", json!("pkcs8")), ("encrypted", json!(false)), ("worldReadable", json!(true))];
    for (attribute, value) in expected {
        assert_eq!(asset.attributes[attribute], value);
    }
    let shown = serde_json::to_string(asset).unwrap();
    let secret = made.key.serialize_pem();
    assert!(secret.lines().filter(|line| !line.starts_with("---")).all(|line| !shown.contains(line)));
    assert_eq!(asset.certificate, None);
}

#[tokio::test]
async fn paths_that_are_no_utf8_are_told_apart() {
    let folder = Folder::new();
    for name in [b"\xff.pem", b"\xfe.pem"] {
        let path = folder.0.path().join(OsStr::from_bytes(name));
        if fs::write(path, named("odd.example").pem).is_err() {
            return; // this file system takes only UTF-8, so there is nothing to tell apart
        }
    }
    let page = folder.list(Wanted::Certificates, Limits::default()).await;
    assert_eq!(identifiers(&page).len(), 2);
    assert!(page.warnings.iter().all(|warning| warning.code == "non_utf8_path"));
    assert_eq!(page.warnings.len(), 2);
}

/// The pages together hold what one page would, however small they are and whoever asks for the next one.
#[tokio::test]
async fn pages_add_up() {
    let folder = Folder::new();
    for number in 0..5 {
        folder.write(&format!("{number}/cert.pem"), named("a.example").pem);
        folder.write(&format!("{number}/bad.pem"), "");
        folder.write(&format!("{number}/unrelated"), "");
    }
    let whole = folder.list(Wanted::Certificates, Limits::default()).await;
    assert_eq!((whole.assets.len(), whole.warnings.len()), (5, 10));
    for limits in [Limits { places: 2, ..Limits::default() }, Limits { entries: 1, ..Limits::default() }] {
        let settings = Settings::read(&json!({"paths": [folder.0.path()]}), Arc::new(|_| None)).unwrap();
        let mut assets = Vec::new();
        let mut token: Option<String> = None;
        loop {
            // a new scope each time, as another worker would have
            let scope = FileScope::new(settings.clone(), Wanted::Certificates, limits);
            let page = scope.list(token.as_deref()).await.unwrap();
            assert!(page.assets.len() <= 2);
            assets.extend(page.assets);
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(assets, whole.assets);
        let parked = folder.list(Wanted::Certificates, limits).await;
        assert_eq!(parked.assets, whole.assets);
    }
}

#[tokio::test]
async fn a_foreign_token_is_an_expired_page() {
    let settings = Settings::read(&json!({"paths": ["/none"]}), Arc::new(|_| None)).unwrap();
    let scope = FileScope::new(settings, Wanted::Certificates, Limits::default());
    assert_eq!(scope.list(Some("garbage")).await, Err(ProviderError::PageExpired));
}
