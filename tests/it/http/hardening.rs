//! What keeps the facade up against clients that mean harm.

use keywright_api::{cors::Cors, service::Surroundings};
use keywright_tests::{
    app::eventually,
    database::TestDatabase,
    http::{Api, LOOPBACK},
    instance::Instance,
    on_both_databases,
    process::Process,
};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use reqwest::{Certificate, Client, Method};
use std::{path::Path, time::Duration};

on_both_databases!(other_origins_read_nothing_unless_they_are_named,);

async fn other_origins_read_nothing_unless_they_are_named(database: TestDatabase) {
    let cors = Cors(vec!["https://portal.example.com".to_owned()]);
    let api = Api::surrounded(database, LOOPBACK, Surroundings { cors, ..Surroundings::default() }).await;
    let closed = api.neighbour().await;
    let ask = |origin: &str| api.viewer().with("Origin", origin);
    let preflight = |origin: &str| ask(origin).with("Access-Control-Request-Method", "POST");
    let answer = preflight("https://portal.example.com").send(Method::OPTIONS, "/api/jobs", None).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://portal.example.com"));
    assert!(answer.header("access-control-allow-headers").is_some_and(|names| names.contains("Authorization")));
    let read = ask("https://portal.example.com").get("/api/jobs").await;
    assert_eq!(read.header("access-control-allow-origin"), Some("https://portal.example.com"));
    for answer in [&answer, &read] {
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    // a page must be able to read why it was refused
    let refused = ask("https://portal.example.com").get("/api/nothing").await;
    assert!(refused.header("access-control-allow-origin").is_some());
    for origin in ["https://portal.example.com.evil.example", "https://PORTAL.example.com", "null", "*", ""] {
        preflight(origin).send(Method::OPTIONS, "/api/jobs", None).await.refused(405, "method_not_allowed");
        let read = ask(origin).get("/api/jobs").await;
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None), "{origin}");
    }
    let closed = ask("https://portal.example.com").at(closed.address).get("/api/jobs").await;
    assert_eq!((closed.header("access-control-allow-origin"), closed.header("vary")), (None, None));
}

/// Writes a certificate of this host name and its key, and returns the certificate.
fn certify(folder: &Path, name: &str) -> String {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join("key"), signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert"), cert.pem()).unwrap();
    cert.pem()
}

fn trusting(certificate: &str, address: std::net::SocketAddr) -> Client {
    let root = Certificate::from_pem(certificate.as_bytes()).unwrap();
    let builder = Client::builder().no_proxy().tls_certs_only([root]).https_only(true);
    builder.resolve("one.test", address).resolve("two.test", address).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_ended_and_its_certificate_exchanged_without_a_break() {
    let (database, folder) = (TestDatabase::sqlite().await, tempfile::tempdir().unwrap());
    let first = certify(folder.path(), "one.test");
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    let settings = [("KEYWRIGHT_TLS_CERT", cert.to_str().unwrap()), ("KEYWRIGHT_TLS_KEY", key.to_str().unwrap())];
    let (mut api, url) = Instance::another_api_with(&database, &settings).await;
    let address: std::net::SocketAddr = url.trim_start_matches("http://").parse().unwrap();
    let port = address.port();
    let old = trusting(&first, address);
    let health = async |client: &Client, name: &str| client.get(format!("https://{name}:{port}/health")).send().await;
    let answer = health(&old, "one.test").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    answer.bytes().await.unwrap();
    assert!(reqwest::get(format!("{url}/health")).await.is_err(), "plain http is not answered");
    // a key that is not the certificate's, as in the middle of an exchange
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    api.logged("the TLS certificate stays as it was").await;
    let second = certify(folder.path(), "two.test");
    let exchanged = async || health(&trusting(&second, address), "two.test").await.ok();
    eventually("the new certificate is served", exchanged).await;
    assert_eq!(health(&old, "one.test").await.unwrap().status(), 200, "the open connection goes on");
    assert!(health(&trusting(&first, address), "one.test").await.is_err(), "a new one is given the new certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_cannot_be_served_is_a_wrong_configuration() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(folder.path(), "one.test");
    certify(other.path(), "two.test");
    let at = |folder: &tempfile::TempDir, name: &str| folder.path().join(name).display().to_string();
    let cases = [
        (at(&folder, "cert"), at(&folder, "missing"), "cannot be read"),
        (at(&folder, "key"), at(&folder, "key"), "holds no certificate"),
        (at(&folder, "cert"), at(&folder, "cert"), "holds no private key"),
        (at(&folder, "cert"), at(&other, "key"), "is not that of the first certificate"),
        (at(&folder, "cert"), String::new(), "is given without KEYWRIGHT_TLS_KEY"),
    ];
    for (cert, key, told) in cases {
        let settings = [("KEYWRIGHT_TLS_CERT", cert.as_str()), ("KEYWRIGHT_TLS_KEY", key.as_str())];
        let mut api = Process::start_with("keywright-api", &["--check-config"], &settings);
        let ended = api.ended(Duration::from_secs(60)).await;
        assert_eq!(ended.code(), Some(2), "{}", api.log());
        assert!(api.log().contains(told) && !api.log().contains("PRIVATE KEY"), "{}", api.log());
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_process_leaves_its_memory_behind() {
    let database = TestDatabase::sqlite().await;
    let instance = Instance::start(&database, &[]).await;
    for process in [&instance.api, &instance.worker] {
        let limits = || std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
        let none = async || {
            limits()
                .lines()
                .any(|line| {
                    line.strip_prefix("Max core file size")
                        .is_some_and(|rest| rest.split_whitespace().take(2).eq(["0", "0"]))
                })
                .then_some(())
        };
        eventually("core dumps are off", none).await;
    }
}
