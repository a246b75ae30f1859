use super::{
    super::{Local, REGION, Surroundings, file_scope::Limits, fixtures::*},
    *,
};
use chrono::DateTime;
use keywright_jobs::{
    domain::inventory::ScopeId,
    provider::{Connection, Pass, Stopped},
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use std::{net::SocketAddr, pin::Pin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Everything on loopback is allowed, the time is 2026, and `roots` are believed.
fn surroundings(roots: &[&Made], patience: Duration) -> Surroundings {
    let roots: Vec<CertificateDer<'_>> = roots.iter().map(|root| CertificateDer::from(root.der.as_slice())).collect();
    Surroundings {
        environment: Arc::new(|_| None),
        clock: Clock::from_fn(|| DateTime::from_timestamp(1_770_000_000, 0).unwrap()),
        anchors: Anchors::of(&roots),
        patience: Patience { total: patience },
        limits: Limits::default(),
    }
}

fn connect(endpoints: &[String], allow: &[&str], surroundings: Surroundings, gate: Gate) -> Connection {
    let allow: Vec<_> = allow.iter().map(|entry| entry.parse().unwrap()).collect();
    let egress = Arc::new(EgressGuard::new(&allow));
    Local::connect(&json!({"endpoints": endpoints}), gate, egress, surroundings).unwrap()
}

async fn list_patiently(endpoints: &[String], roots: &[&Made], patience: Duration) -> Page {
    let connection = connect(endpoints, &["127.0.0.0/8", "::1/128"], surroundings(roots, patience), Gate::open());
    connection.inventory.list(&scope(), None).await.unwrap()
}

async fn list(endpoints: &[String], roots: &[&Made]) -> Page {
    list_patiently(endpoints, roots, Duration::from_secs(30)).await
}

fn scope() -> ScopeId {
    ScopeId { region: REGION.to_owned(), kind: TLS_CERTIFICATE.to_owned() }
}

fn codes(page: &Page) -> Vec<&str> {
    page.warnings.iter().map(|warning| warning.code.as_str()).collect()
}

/// A server that treats each connection with `answer`, until the test ends.
async fn server<F, R>(answer: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn tls_server(
    leaf: &Made,
    chain: &[&Made],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> SocketAddr {
    let served = std::iter::once(leaf).chain(chain.iter().copied());
    let served = served.map(|made| CertificateDer::from(made.der.clone())).collect();
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(served, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    server(move |stream| {
        let accepting = acceptor.accept(stream);
        async move {
            if let Ok(mut stream) = accepting.await {
                let _ = stream.read(&mut [0]).await;
            }
        }
    })
    .await
}

fn leaf_params(name: &str) -> rcgen::CertificateParams {
    let mut params = params(name);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params
}

#[tokio::test]
async fn describes_a_good_endpoint() {
    let authority = Authority::new("Test Root");
    let leaf = authority.sign(leaf_params("localhost"));
    let address = tls_server(&leaf, &[&authority.made], rustls::ALL_VERSIONS).await;
    let place = format!("localhost:{}", address.port());
    let page = list(std::slice::from_ref(&place), &[&authority.made]).await;
    assert!(page.warnings.is_empty(), "{:?}", page.warnings);
    let [asset] = page.assets.as_slice() else { panic!("{:?}", page.assets) };
    assert_eq!((&asset.external_id, &asset.vault, asset.name.as_str()), (&place, &place, "localhost"));
    let facts = asset.certificate.as_ref().unwrap();
    assert_eq!((facts.subject.as_deref(), facts.issuer.as_deref()), (Some("CN=localhost"), Some("CN=Test Root")));
    let expected = [
        ("servedAt", json!(place)),
        ("protocol", json!("TLSv1.3")),
        ("handshake", json!("complete")),
        ("hostnameMatches", json!(true)),
        ("chainTrusted", json!(true)),
        ("chainTrustReason", json!(null)),
    ];
    for (attribute, value) in expected {
        assert_eq!(asset.attributes[attribute], value, "{attribute}");
    }
    assert!(asset.attributes["cipherSuite"].as_str().unwrap().starts_with("TLS_"));
    let chain: Vec<_> = asset.attributes["chain"].as_array().unwrap().iter().map(|one| &one["subject"]).collect();
    assert_eq!(chain, ["CN=localhost", "CN=Test Root"]);
}

#[tokio::test]
async fn a_server_that_speaks_something_else_first_shows_its_certificate_too() {
    let leaf = named("localhost");
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(leaf.der.clone())], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = server(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
            let mut heard = [0; 24];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"EHLO keywright.invalid\r\n");
            stream.write_all(b"250-mail.example\r\n250 STARTTLS\r\n").await.unwrap();
            stream.read_exact(&mut heard[..10]).await.unwrap();
            stream.write_all(b"220 now\r\n").await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0]).await;
            }
        }
    })
    .await;
    let page = list(&[format!("smtp://{address}"), format!("imap://{address}")], &[]).await;
    assert!(page.warnings.is_empty(), "{:?}", page.warnings);
    let [asset] = page.assets.as_slice() else { panic!("one place is one asset: {:?}", page.assets) };
    assert_eq!((asset.external_id.as_str(), &asset.attributes["startTls"]), (&*address.to_string(), &json!("SMTP")));
    let page = list(&[format!("imap://{address}")], &[]).await;
    assert_eq!((page.assets.len(), codes(&page)), (0, vec!["starttls_not_spoken"]));
}

#[tokio::test]
async fn a_renewed_certificate_is_the_same_asset() {
    let mut seen = Vec::new();
    let (old, new) = (named("localhost"), named("localhost"));
    for made in [old, new] {
        let address = tls_server(&made, &[], &[&rustls::version::TLS12]).await;
        let page = list(&[address.to_string()], &[]).await;
        assert_eq!(page.assets[0].external_id, address.to_string());
        assert_eq!(page.assets[0].attributes["protocol"], json!("TLSv1.2"));
        assert_eq!(page.assets[0].attributes["chainTrusted"], json!(null));
        seen.push(page.assets[0].certificate.clone().unwrap().fingerprint_sha256);
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn expired_and_foreign_certificates_are_recorded_with_the_reason() {
    let authority = Authority::new("Test Root");
    let mut expired = leaf_params("localhost");
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let cases = [
        (authority.sign(expired), true, Some("expired")),
        (authority.sign(leaf_params("other.example")), false, None),
        (named("localhost"), true, Some("unknown_issuer")),
    ];
    for (leaf, name_matches, reason) in cases {
        let address = tls_server(&leaf, &[], rustls::ALL_VERSIONS).await;
        let page = list(&[format!("localhost:{}", address.port())], &[&authority.made]).await;
        let attributes = &page.assets[0].attributes;
        assert_eq!(attributes["hostnameMatches"], json!(name_matches));
        assert_eq!(attributes["chainTrusted"], json!(reason.is_none()));
        assert_eq!(attributes["chainTrustReason"], json!(reason));
    }
}

/// What servers answer that do not speak a usable TLS: first bytes, then the end of the connection.
#[tokio::test]
async fn every_failure_has_its_code() {
    const ALERT_VERSION: &[u8] = &[0x15, 3, 1, 0, 2, 2, 70];
    const ALERT_HANDSHAKE: &[u8] = &[0x15, 3, 1, 0, 2, 2, 40];
    let mut old_hello = vec![0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    old_hello.extend([7; 32]);
    old_hello.extend([0, 0xc0, 0x14, 0]);
    let cases: [(&'static [u8], &str); 7] = [
        (old_hello.leak(), "tls_too_old"),
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "not_tls"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
        (b"220 mail.example ESMTP\r\n", "not_tls"),
        (ALERT_VERSION, "tls_too_old"),
        (ALERT_HANDSHAKE, "tls_handshake_failed"),
        (b"", "reset"),
    ];
    for (bytes, code) in cases {
        let address = server(move |mut stream| async move {
            let _ = stream.read(&mut [0; 2048]).await;
            let _ = stream.write_all(bytes).await;
        })
        .await;
        let page = list(&[address.to_string()], &[]).await;
        assert_eq!(codes(&page), [code], "{:?}", page.warnings);
        assert_eq!(page.warnings[0].path, address.to_string());
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_on_new_versions_is_told_from_one_that_hangs_up_always() {
    let address = server(|mut stream| async move {
        let mut hello = [0; 11];
        let _ = stream.read_exact(&mut hello).await;
        // the version in the ClientHello's body: one of TLS 1.1 is answered, a newer one is not
        if hello[9..11] == [3, 2] {
            let _ = stream.write_all(&[0x16, 3, 1, 0, 80, 2, 0, 0, 76, 3, 1, 0]).await;
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await;
    let page = list(&[address.to_string()], &[]).await;
    assert_eq!(codes(&page), ["tls_too_old"]);
    assert!(page.warnings[0].detail.contains("TLS 1.0"));
}

#[tokio::test]
async fn a_server_of_tls_1_2_with_other_cipher_suites_is_not_too_old() {
    let address = server(|mut stream| async move {
        let mut hello = [0; 46];
        let _ = stream.read_exact(&mut hello).await;
        // rustls offers TLS 1.3 too and so sends a session id for middleboxes; the other hello has none
        let answer: &[u8] = match hello[43] {
            0 => &[0x16, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3, 0],
            _ => &[0x15, 3, 3, 0, 2, 2, 40],
        };
        let _ = stream.write_all(answer).await;
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let page = list(&[address.to_string()], &[]).await;
    assert_eq!(codes(&page), ["tls_handshake_failed"]);
    assert!(page.warnings[0].detail.contains("cipher suites"));
}

#[tokio::test]
async fn a_reset_is_told() {
    let address = server(|stream| async move {
        // closing with unread bytes and no lingering makes the system send a reset
        stream.set_zero_linger().unwrap();
        let _ = stream.readable().await;
    })
    .await;
    assert_eq!(codes(&list(&[address.to_string()], &[]).await), ["reset"]);
}

#[tokio::test]
async fn a_server_that_hangs_costs_only_the_deadline() {
    let address =
        server(|mut stream| async move { while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} }).await;
    let page = list_patiently(&[address.to_string()], &[], Duration::from_millis(200)).await;
    assert_eq!(codes(&page), ["tls_handshake_timeout"]);
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_settings_and_each_place_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let good = tls_server(&named("localhost"), &[], rustls::ALL_VERSIONS).await;
    let endpoints = [
        "no port".to_owned(),
        closed.to_string(),
        good.to_string(),
        "no-such-host.invalid:443".to_owned(),
        "10.1.2.3:443".to_owned(),
        good.to_string(),
    ];
    let page = list(&endpoints, &[]).await;
    assert_eq!(codes(&page), ["invalid_endpoint", "connect_refused", "dns_failed", "address_refused"]);
    assert_eq!(page.assets.len(), 1);
}

#[tokio::test]
async fn many_endpoints_come_in_pages() {
    let endpoints: Vec<String> = (1..=150).map(|port| format!("10.0.0.1:{port}")).collect();
    let connection = connect(&endpoints, &[], surroundings(&[], Duration::from_secs(30)), Gate::open());
    let mut token: Option<String> = None;
    let mut told = Vec::new();
    loop {
        let page = connection.inventory.list(&scope(), token.as_deref()).await.unwrap();
        told.extend(page.warnings.into_iter().map(|warning| warning.path));
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(told, endpoints);
    let beyond = connection.inventory.list(&scope(), Some("1000")).await;
    assert_eq!(beyond, Err(ProviderError::PageExpired));
}

#[tokio::test]
async fn a_stopped_attempt_connects_nowhere() {
    struct Closed;
    impl Pass for Closed {
        fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + '_>> {
            Box::pin(std::future::ready(Err(Stopped::LeaseLost)))
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let surroundings = surroundings(&[], Duration::from_secs(30));
    let connection = connect(&[endpoint], &["127.0.0.0/8"], surroundings.clone(), Gate::new(Arc::new(Closed)));
    let stopped = Err(ProviderError::Stopped(Stopped::LeaseLost));
    assert_eq!(connection.inventory.list(&scope(), None).await, stopped);
    let accepted = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(accepted.is_err(), "a connection was made");

    let egress = Arc::new(EgressGuard::default());
    let settings = json!({"paths": ["/"]});
    let files = Local::connect(&settings, Gate::new(Arc::new(Closed)), egress, surroundings).unwrap();
    for scope in files.inventory.scopes().await.unwrap() {
        assert_eq!(files.inventory.list(&scope, None).await, stopped);
    }
}

#[tokio::test]
async fn scopes_are_what_the_settings_ask_for() {
    let kinds = |settings: Value| async move {
        let egress = Arc::new(EgressGuard::default());
        let surroundings = surroundings(&[], Duration::from_secs(1));
        let connection = Local::connect(&settings, Gate::open(), egress, surroundings).unwrap();
        let scopes = connection.inventory.scopes().await.unwrap();
        scopes.into_iter().map(|scope| scope.kind).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(kinds(json!({})).await, none);
    assert_eq!(kinds(json!({"paths": ["/a"]})).await, ["local.file.certificate", "local.file.key"]);
    assert_eq!(kinds(json!({"endpoints": ["a:1"]})).await, ["local.tls.certificate"]);
}
