use super::{super::fixtures::*, *};
use secrecy::SecretString;

fn known(password: &str) -> Password {
    Password::Known(SecretString::from(password))
}

fn read_plain(bytes: &[u8]) -> Contents {
    read(bytes, Wanted::Certificates, || Password::NotGiven)
}

fn codes(contents: &Contents) -> Vec<&'static str> {
    contents.notes.iter().map(|note| note.code).collect()
}

#[test]
fn a_bundle_survives_its_broken_blocks() {
    let (first, second) = (named("one.example"), named("two.example"));
    let text = format!(
        "{}-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n\
         -----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n{}{}-----BEGIN CERTIFICATE-----\nAQID\n",
        first.pem, second.pem, first.pem
    );
    let contents = read_plain(text.as_bytes());
    let found: Vec<_> = contents
        .certificates
        .iter()
        .map(|held| (held.reading.facts.subject.as_deref().unwrap(), held.occurrences))
        .collect();
    assert_eq!(found, [("CN=one.example", 2), ("CN=two.example", 1)]);
    assert_eq!(codes(&contents), ["invalid_der", "invalid_pem", "invalid_pem"]);
    let line = format!("line {}:", first.pem.lines().count() + 1);
    assert!(contents.notes[0].detail.contains(&line), "{}", contents.notes[0].detail);
}

#[test]
fn comments_in_another_encoding_are_no_obstacle() {
    let mut bytes = b"# Aussteller: B\xfccher AG\n".to_vec();
    bytes.extend(named("a.example").pem.bytes());
    assert_eq!(read_plain(&bytes).certificates.len(), 1);
}

#[test]
fn reads_der_and_trusted_certificates() {
    let der = named("a.example").der;
    assert_eq!(read_plain(&der).certificates.len(), 1);
    let trailing = read_plain(&[der.as_slice(), b"\n"].concat());
    assert_eq!((trailing.certificates.len(), codes(&trailing)), (1, vec!["trailing_data"]));
    let trusted = read_plain(data!("trusted.pem"));
    assert_eq!((trusted.certificates.len(), codes(&trusted)), (1, vec![]));
}

#[test]
fn tells_bad_contents_apart() {
    let der = named("a.example").der;
    let cases: [(&[u8], &str); 5] = [
        (&der[..der.len() / 2], "invalid_der"),
        (b"hello", "not_a_certificate"),
        (&[0; 512], "not_a_certificate"),
        (b"-----BEGIN PUBLIC KEY-----\nAQID\n-----END PUBLIC KEY-----\n", "not_a_certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAQID", "invalid_pem"),
    ];
    for (bytes, code) in cases {
        assert_eq!(codes(&read_plain(bytes)), [code]);
    }
    let mut huge = data!("modern.p12").to_vec();
    huge.resize(PKCS12_LIMIT + 1, 0);
    assert_eq!(codes(&read_plain(&huge)), ["too_large"]);
    let label = read_plain(b"-----BEGIN A\0B-----\n");
    assert!(label.notes[0].detail.contains("A\\00B"), "{}", label.notes[0].detail);
}

#[test]
fn opens_every_kind_of_archive() {
    let cases = [
        (data!("modern.p12"), known("correct"), 1, true),
        (data!("legacy.p12"), known("correct"), 1, true),
        (data!("macless-encrypted.p12"), known("correct"), 1, true),
        (data!("certificate-only.p12"), known("correct"), 0, true),
        (data!("empty-password.p12"), Password::NotGiven, 1, false),
        (data!("macless.p12"), Password::NotGiven, 1, false),
    ];
    for (number, (bytes, password, keys, encrypted)) in cases.into_iter().enumerate() {
        let contents = read(bytes, Wanted::Certificates, || password);
        assert_eq!(codes(&contents), Vec::<&str>::new(), "case {number}");
        assert_eq!(contents.certificates[0].reading.short_name.as_deref(), Some("archive.example"));
        assert_eq!(contents.keys.len(), keys, "case {number}");
        assert!(contents.keys.iter().all(|key| key.format == "pkcs12" && key.encrypted == Some(encrypted)));
    }
}

#[test]
fn tells_why_an_archive_stays_closed() {
    let unavailable = Password::Unavailable("no variable X".to_owned());
    let cases = [
        (data!("modern.p12"), known("wrong"), "wrong_password"),
        (data!("legacy.p12"), known("wrong"), "wrong_password"),
        (data!("macless-encrypted.p12"), known("wrong"), "wrong_password"),
        (data!("modern.p12"), Password::NotGiven, "password_missing"),
        (data!("macless-encrypted.p12"), Password::NotGiven, "password_missing"),
        (data!("modern.p12"), unavailable, "password_missing"),
        (&data!("modern.p12")[..500], known("correct"), "pkcs12_invalid"),
        (&[0x30, 0x80, 0x02, 0x01, 0x03, 0x30, 0x80, 0, 0], known("correct"), "pkcs12_invalid"),
    ];
    for (number, (bytes, password, code)) in cases.into_iter().enumerate() {
        let contents = read(bytes, Wanted::Certificates, || password);
        assert_eq!(codes(&contents), [code], "case {number}");
        assert!(contents.certificates.is_empty() && contents.keys.is_empty());
        assert!(!contents.notes[0].detail.contains("correct"));
    }
}

fn subjects(contents: &Contents) -> Vec<&str> {
    contents.certificates.iter().map(|held| held.reading.facts.subject.as_deref().unwrap()).collect()
}

#[test]
fn reads_the_certificates_of_containers() {
    for (bytes, subject) in [
        (data!("container.p7b"), "CN=archive.example,O=Keywright Test,C=DE"),
        (data!("container.pem"), "CN=authority.example"),
        (data!("streamed.p7m"), "CN=authority.example"),
    ] {
        let contents = read_plain(bytes);
        assert_eq!((subjects(&contents), codes(&contents)), (vec![subject], vec![]));
        assert!(is_promising(&bytes[..64]));
        let keys = read(bytes, Wanted::Keys, || Password::NotGiven);
        assert!(keys.certificates.is_empty() && keys.keys.is_empty() && keys.notes.is_empty());
    }
    assert_eq!(codes(&read_plain(&data!("streamed.p7m")[..200])), ["pkcs7_invalid"]);
    let block = "-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n";
    assert_eq!(codes(&read_plain(block.as_bytes())), ["pkcs7_invalid"]);
}

#[test]
fn reads_java_keystores_without_their_password() {
    for (bytes, format) in [(data!("app.jks"), "jks"), (data!("app.jceks"), "jceks")] {
        let contents = read_plain(bytes);
        let mut found = subjects(&contents);
        found.sort_unstable();
        assert_eq!((found, codes(&contents)), (vec!["CN=archive.example", "CN=authority.example"], vec![]));
        let notice = KeyNotice { format, algorithm: None, encrypted: Some(true) };
        assert_eq!(read(bytes, Wanted::Keys, || Password::NotGiven).keys, [notice]);
        assert!(is_promising(&bytes[..64]));
    }
    let secret = read(data!("secret.jceks"), Wanted::Keys, || Password::NotGiven);
    assert_eq!((secret.keys.len(), codes(&secret)), (1, vec!["keystore_not_read_to_its_end"]));
    assert_eq!(codes(&read_plain(&data!("app.jks")[..400])), ["keystore_invalid"]);
}

#[test]
fn keys_are_noticed_by_their_labels() {
    let plain = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ==\n-----END OPENSSH PRIVATE KEY-----\n";
    let closed = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHI=\n-----END OPENSSH PRIVATE KEY-----\n";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAQID\n-----END RSA PRIVATE KEY-----\n";
    let cases = [
        ("-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----", "pkcs8", None, false),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAQID\n-----END ENCRYPTED PRIVATE KEY-----", "pkcs8", None, true),
        ("-----BEGIN EC PRIVATE KEY-----\nAQID\n-----END EC PRIVATE KEY-----", "sec1", Some("EC"), false),
        (old, "pkcs1", Some("RSA"), true),
        (plain, "openssh", None, false),
        (closed, "openssh", None, true),
    ];
    for (text, format, algorithm, encrypted) in cases {
        let contents = read_plain(text.as_bytes());
        assert_eq!(contents.keys, [KeyNotice { format, algorithm, encrypted: Some(encrypted) }]);
        assert!(contents.notes.is_empty() && contents.certificates.is_empty());
    }
    let der = named("a.example").key.serialize_der();
    assert_eq!(read_plain(&der).keys, [KeyNotice { format: "pkcs8", algorithm: None, encrypted: Some(false) }]);
}

#[test]
fn who_wants_keys_gets_no_certificates() {
    let made = named("a.example");
    let text = [made.pem, made.key.serialize_pem()].concat();
    let cases: [(&[u8], usize); 3] = [(text.as_bytes(), 1), (&made.der, 0), (data!("macless.p12"), 1)];
    for (bytes, keys) in cases {
        let contents = read(bytes, Wanted::Keys, || Password::NotGiven);
        assert_eq!((contents.certificates.len(), contents.keys.len(), contents.notes.len()), (0, keys, 0));
    }
}

#[test]
fn notes_about_one_file_are_bounded_and_counted() {
    let text = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n".repeat(NOTES_LIMIT + 7);
    let contents = read_plain(text.as_bytes());
    assert_eq!(contents.notes.len(), NOTES_LIMIT + 1);
    let last = contents.notes.last().unwrap();
    assert_eq!((last.code, last.detail.split(' ').next()), ("more_warnings", Some("7")));
}

#[test]
fn promising_is_judged_by_the_start() {
    assert!(is_promising(b"text\n-----BEGIN CERTIFICATE-----"));
    assert!(is_promising(&named("a.example").der[..64]));
    assert!(is_promising(&data!("modern.p12")[..64]));
    assert!(!is_promising(b"#!/bin/sh\n"));
    assert!(!is_promising(b""));
}
