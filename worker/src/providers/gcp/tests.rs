//! Long because the scripted server and what it is asked are read together: the connection as a whole, against a server on this
//! machine, and the watch over metadata only.

use super::{Gcp, Timeouts, iam, rest::Question, secretmanager};
use crate::providers::{egress::EgressGuard, http::Sleeper};
use async_trait::async_trait;
use keywright_jobs::{
    domain::inventory::{ProviderKind, ScopeId},
    provider::{Connection, Gate, Pass, ProviderError, Stopped, Target},
    setup::config::EgressAllow,
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    future::{Future, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Answers each request with the next of its replies, and remembers what was asked. Without a reply left it hangs.
struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn new(replies: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, mut replies) = (asked.clone(), VecDeque::from(replies));
        tokio::spawn(async move {
            let mut hung = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                log.lock().unwrap().push(request);
                match replies.pop_front() {
                    Some(reply) => socket.write_all(reply.as_bytes()).await.unwrap(),
                    None => hung.push(socket),
                }
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn open(&self, gcp: Gcp) -> Connection {
        gcp.connect(&target(json!({"endpoint": self.url})), None, Gate::open()).await.unwrap()
    }
}

/// The first line of one request without its protocol, and who it says it comes from.
async fn read_request(socket: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request ends early");
        text.extend_from_slice(&buffer[..read]);
        let request = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let named =
                |line: &str| line.split_once(": ").map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()));
            head.lines().filter_map(named).find(|(key, _)| key == name).map(|(_, value)| value)
        };
        if body.len() >= header("content-length").map_or(0, |length| length.parse().unwrap()) {
            let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
            return format!("{line} {}", header("authorization").unwrap_or_default());
        }
    }
}

fn reply(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn ok(body: &Value) -> String {
    reply(200, "", &body.to_string())
}

fn refusal(status: u16, word: &str) -> String {
    reply(status, "", &json!({"error": {"code": status, "message": "m", "status": word}}).to_string())
}

fn secrets(names: &[&str], next: &str) -> String {
    let secrets: Vec<Value> = names.iter().map(|name| json!({"name": format!("projects/1/secrets/{name}")})).collect();
    ok(&json!({"secrets": secrets, "nextPageToken": next}))
}

fn accounts(names: &[&str]) -> String {
    let account = |name: &&str| {
        let email = format!("{name}@acme-prod.iam.gserviceaccount.com");
        json!({"name": format!("projects/acme-prod/serviceAccounts/{email}"), "email": email})
    };
    ok(&json!({"accounts": names.iter().map(account).collect::<Vec<_>>()}))
}

fn target(settings: Value) -> Target {
    Target {
        provider: ProviderKind::Gcp,
        external_id: "acme-prod".to_owned(),
        regions: Vec::new(),
        settings,
        auth_mode: "ambient".to_owned(),
    }
}

fn scope(kind: &str) -> ScopeId {
    ScopeId { region: "global".to_owned(), kind: kind.to_owned() }
}

#[derive(Default)]
struct NoWait(Mutex<Duration>);

#[async_trait]
impl Sleeper for NoWait {
    async fn sleep(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}

/// A guard that lets the tests' own servers be reached.
fn loopback() -> Arc<EgressGuard> {
    Arc::new(EgressGuard::new(&[EgressAllow::Net("127.0.0.0/8".parse().unwrap())]))
}

fn gcp() -> Gcp {
    Gcp::new(loopback(), None).with_token("t0".to_owned().into()).with_sleeper(Arc::new(NoWait::default()))
}

async fn list(
    connection: &Connection,
    kind: &str,
    page: Option<&str>,
) -> Result<(usize, Option<String>), ProviderError> {
    let page = connection.inventory.list(&scope(kind), page).await?;
    Ok((page.assets.len(), page.next))
}

#[tokio::test]
async fn pages_are_followed_by_their_tokens() {
    let server = Scripted::new(vec![secrets(&["a", "b"], "t/1&x"), secrets(&["c"], "")]).await;
    let connection = server.open(gcp()).await;
    let (count, next) = list(&connection, secretmanager::KIND, None).await.unwrap();
    assert_eq!((count, next.as_deref()), (2, Some("t/1&x")));
    assert_eq!(list(&connection, secretmanager::KIND, next.as_deref()).await.unwrap(), (1, None));
    assert_eq!(
        server.asked(),
        [
            "GET /v1/projects/acme-prod/secrets?pageSize=1000 Bearer t0",
            "GET /v1/projects/acme-prod/secrets?pageSize=1000&pageToken=t%2F1%26x Bearer t0"
        ]
    );
}

#[tokio::test]
async fn a_token_that_leads_nowhere_ends_the_listing() {
    let server = Scripted::new(vec![secrets(&["a"], "t1"), refusal(400, "INVALID_ARGUMENT")]).await;
    let connection = server.open(gcp()).await;
    let error = list(&connection, secretmanager::KIND, Some("t1")).await.unwrap_err();
    assert!(matches!(error, ProviderError::Rejected { code, .. } if code == "unexpected_reply"));
    assert_eq!(list(&connection, secretmanager::KIND, Some("t1")).await, Err(ProviderError::PageExpired));
}

#[tokio::test]
async fn regional_secrets_are_looked_at_in_the_regions_that_are_named() {
    let server = Scripted::new(vec![secrets(&[], "")]).await;
    let named = Target { regions: vec!["us-east1".to_owned()], ..target(json!({"endpoint": server.url})) };
    let inventory = gcp().connect(&named, None, Gate::open()).await.unwrap().inventory;
    let scopes = inventory.scopes().await.unwrap();
    assert_eq!(scopes, [ScopeId { region: "us-east1".to_owned(), kind: secretmanager::KIND.to_owned() }]);
    inventory.list(&scopes[0], None).await.unwrap();
    assert_eq!(server.asked(), ["GET /v1/projects/acme-prod/locations/us-east1/secrets?pageSize=1000 Bearer t0"]);
    let all = server.open(gcp()).await.inventory.scopes().await.unwrap();
    assert_eq!(all, [scope(iam::KIND), scope(secretmanager::KIND)]);
}

#[tokio::test]
async fn an_account_that_vanished_is_passed_over_and_one_that_is_closed_is_told() {
    let key =
        json!({"keys": [{"name": "projects/acme-prod/serviceAccounts/a@acme-prod.iam.gserviceaccount.com/keys/1"}]});
    // one after the other, so that each account gets its own answer
    for (answers, found, warned) in [
        (vec![accounts(&["a"]), ok(&key)], 1, 0),
        (vec![accounts(&["a"]), refusal(404, "NOT_FOUND")], 0, 0),
        (vec![accounts(&[])], 0, 0),
    ] {
        let server = Scripted::new(answers).await;
        let page = server.open(gcp()).await.inventory.list(&scope(iam::KIND), None).await.unwrap();
        assert_eq!((page.assets.len(), page.warnings.len()), (found, warned));
    }
    let closed = || refusal(403, "PERMISSION_DENIED");
    let server = Scripted::new(vec![accounts(&["a", "b"]), closed(), ok(&json!({}))]).await;
    let page = server.open(gcp()).await.inventory.list(&scope(iam::KIND), None).await.unwrap();
    let warning = &page.warnings[0];
    assert_eq!((page.warnings.len(), warning.code.as_str()), (1, "not_listed"));
    assert!(
        warning.path.ends_with("@acme-prod.iam.gserviceaccount.com"),
        "what lies there is not taken for removed: {warning:?}"
    );

    let server = Scripted::new(vec![accounts(&["a", "b"]), closed(), closed()]).await;
    let error = server.open(gcp()).await.inventory.list(&scope(iam::KIND), None).await.unwrap_err();
    let ProviderError::Denied { permission, .. } = error else { panic!("{error}") };
    assert_eq!(permission.as_deref(), Some("iam.serviceAccountKeys.list"));
}

#[tokio::test]
async fn versions_that_may_not_be_listed_are_a_warning_and_a_secret_that_vanished_is_told() {
    let replies = vec![secrets(&["a"], ""), refusal(403, "PERMISSION_DENIED"), refusal(404, "NOT_FOUND")];
    let server = Scripted::new(replies).await;
    let connection = server.open(gcp()).await;
    let secret = connection.inventory.list(&scope(secretmanager::KIND), None).await.unwrap().assets.remove(0);
    let details = connection.details.unwrap();
    let detailed = details.complete(&scope(secretmanager::KIND), secret.clone()).await.unwrap();
    assert_eq!(detailed.asset, secret);
    assert!(detailed.warnings[0].detail.contains("secretmanager.versions.list"), "{:?}", detailed.warnings);
    let error = details.complete(&scope(secretmanager::KIND), secret.clone()).await.unwrap_err();
    assert!(matches!(error, ProviderError::Rejected { code, .. } if code == "not_found"));
    // a name that would lead elsewhere is not followed
    let odd =
        keywright_jobs::domain::inventory::Observed { external_id: "projects/1/secrets/../x".to_owned(), ..secret };
    let error = details.complete(&scope(secretmanager::KIND), odd).await.unwrap_err();
    assert!(matches!(error, ProviderError::Rejected { code, .. } if code == "unexpected_reply"));
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_page_of_versions_that_expires_is_begun_again_once() {
    let versions = |number: u64, next: &str| {
        let version = json!({"name": format!("projects/1/secrets/a/versions/{number}"), "state": "ENABLED"});
        ok(&json!({"versions": [version], "nextPageToken": next}))
    };
    let expired = || refusal(400, "INVALID_ARGUMENT");
    let replies = vec![secrets(&["a"], ""), versions(2, "t"), expired(), versions(2, "t"), versions(1, "")];
    let server = Scripted::new(replies).await;
    let connection = server.open(gcp()).await;
    let secret = connection.inventory.list(&scope(secretmanager::KIND), None).await.unwrap().assets.remove(0);
    let details = connection.details.unwrap();
    let detailed = details.complete(&scope(secretmanager::KIND), secret.clone()).await.unwrap();
    assert_eq!(detailed.asset.attributes["versionCount"], 2);

    let server = Scripted::new(vec![versions(2, "t"), expired(), versions(2, "t"), expired()]).await;
    let details = server.open(gcp()).await.details.unwrap();
    assert_eq!(details.complete(&scope(secretmanager::KIND), secret).await, Err(ProviderError::PageExpired));
}

#[tokio::test]
async fn a_429_is_waited_out_for_as_long_as_it_says() {
    let slow = reply(429, "Retry-After: 2\r\n", "");
    let server = Scripted::new(vec![slow.clone(), slow, secrets(&["a"], "")]).await;
    let timer = Arc::new(NoWait::default());
    let connection = server.open(gcp().with_sleeper(timer.clone())).await;
    assert_eq!(list(&connection, secretmanager::KIND, None).await.unwrap(), (1, None));
    assert_eq!(server.asked().len(), 3);
    assert!(*timer.0.lock().unwrap() >= Duration::from_secs(4));
    let server = Scripted::new(vec![reply(429, "Retry-After: 900\r\n", "")]).await;
    let error = list(&server.open(gcp()).await, iam::KIND, None).await.unwrap_err();
    assert!(
        matches!(error, ProviderError::Throttled { retry_after: Some(wait), .. } if wait.as_secs() == 900),
        "{error}"
    );
}

#[tokio::test]
async fn a_failing_service_is_tried_again_and_a_broken_answer_is_not() {
    let server = Scripted::new(vec![reply(500, "", "{}"), reply(503, "", ""), secrets(&["a"], "")]).await;
    assert_eq!(list(&server.open(gcp()).await, secretmanager::KIND, None).await.unwrap(), (1, None));
    for broken in [r#"{"secrets":[{"name":"a"#, "<html>", r#"{"secrets":7}"#, ""] {
        let server = Scripted::new(vec![reply(200, "", broken)]).await;
        let error = list(&server.open(gcp()).await, secretmanager::KIND, None).await.unwrap_err();
        assert!(matches!(&error, ProviderError::Rejected { code, .. } if code == "unexpected_reply"), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_and_so_is_nobody() {
    let server = Scripted::new(vec![]).await;
    let short = Timeouts { connect: Duration::from_millis(200), attempt: Duration::from_millis(50) };
    let connection = server.open(gcp().with_timeouts(short)).await;
    let error = list(&connection, secretmanager::KIND, None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable { .. }), "{error}");
    assert_eq!(server.asked().len(), 4);

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = target(json!({"endpoint": format!("http://{closed}")}));
    let error = list(&gcp().connect(&nobody, None, Gate::open()).await.unwrap(), iam::KIND, None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable { .. }), "{error}");
}

/// Lets so many questions through, then refuses.
struct Closing(AtomicUsize);

impl Pass for Closing {
    fn pass(&self) -> Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send + '_>> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        Box::pin(ready(left.map(|_| ()).map_err(|_| Stopped::LeaseLost)))
    }
}

#[tokio::test]
async fn nothing_is_sent_once_the_gate_is_closed() {
    // two for each page: before the token is asked for, and immediately before the request
    for passes in [2, 3] {
        let server = Scripted::new(vec![secrets(&["a"], "t1"), secrets(&["b"], "")]).await;
        let gate = Gate::new(Arc::new(Closing(AtomicUsize::new(passes))));
        let connection = gcp().connect(&target(json!({"endpoint": server.url})), None, gate).await.unwrap();
        let (_, next) = list(&connection, secretmanager::KIND, None).await.unwrap();
        let error = list(&connection, secretmanager::KIND, next.as_deref()).await.unwrap_err();
        assert_eq!(error, ProviderError::Stopped(Stopped::LeaseLost), "{passes}");
        assert_eq!(server.asked().len(), 1, "{passes}");
    }
}

#[tokio::test]
async fn a_token_is_shown_to_google_and_to_whom_the_operator_allows_alone() {
    let server = Scripted::new(vec![]).await;
    let strict = || Gcp::new(Arc::default(), None).with_token("t0".to_owned().into());
    for (endpoint, allowed) in
        [(server.url.as_str(), "127.0.0.1"), ("https://1.1.1.1", "1.1.1.1"), ("http://[2606:4700::1111]", "[2606")]
    {
        let refused = strict().connect(&target(json!({"endpoint": endpoint})), None, Gate::open()).await;
        let Err(ProviderError::Rejected { code, detail }) = refused else { panic!("{endpoint} must be refused") };
        assert_eq!(code, "address_refused");
        assert!(detail.contains(allowed) && detail.contains("KEYWRIGHT_EGRESS_ALLOW"), "{detail}");
    }
    assert!(server.asked().is_empty());
    // the operator's own address needs no leave
    let server = Scripted::new(vec![secrets(&["a"], "")]).await;
    let own = Gcp::new(Arc::default(), Some(server.url.parse().unwrap())).with_token("t0".to_owned().into());
    let connection = own.connect(&target(json!({})), None, Gate::open()).await.unwrap();
    assert_eq!(list(&connection, secretmanager::KIND, None).await.unwrap(), (1, None));
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let inside = Scripted::new(vec![secrets(&["a"], "")]).await;
    let server = Scripted::new(vec![reply(302, &format!("Location: {}/v1/x\r\n", inside.url), "")]).await;
    list(&server.open(gcp()).await, secretmanager::KIND, None).await.unwrap_err();
    assert_eq!((server.asked().len(), inside.asked().len()), (1, 0));
}

#[tokio::test]
async fn another_account_s_token_is_asked_for_once_and_used() {
    let given = ok(&json!({"accessToken": "t1", "expireTime": "2030-01-01T00:00:00Z"}));
    let server = Scripted::new(vec![given, secrets(&["a"], "t"), secrets(&["b"], "")]).await;
    let audit = json!({"endpoint": server.url, "impersonate": "audit@acme-prod.iam.gserviceaccount.com"});
    let connection = gcp().connect(&target(audit.clone()), None, Gate::open()).await.unwrap();
    list(&connection, secretmanager::KIND, None).await.unwrap();
    list(&connection, secretmanager::KIND, Some("t")).await.unwrap();
    let exchange =
        "POST /v1/projects/-/serviceAccounts/audit@acme-prod.iam.gserviceaccount.com:generateAccessToken Bearer t0";
    let asked = server.asked();
    assert_eq!(asked[0], exchange);
    assert!(asked[1..].iter().all(|line| line.starts_with("GET ") && line.ends_with("Bearer t1")), "{asked:?}");

    let server = Scripted::new(vec![refusal(403, "PERMISSION_DENIED")]).await;
    let audit = json!({"endpoint": server.url, "impersonate": audit["impersonate"]});
    let connection = gcp().connect(&target(audit), None, Gate::open()).await.unwrap();
    let ProviderError::Denied { permission, .. } = list(&connection, iam::KIND, None).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(permission.as_deref(), Some("iam.serviceAccounts.getAccessToken"));
}

/// Every request of this folder is one of these lists, or the exchange of a token. A new one must be added here, in sight of a
/// reviewer.
#[test]
fn no_call_reads_a_value() {
    let questions = [
        Question::Secrets { project: "p", region: "global" },
        Question::Secrets { project: "p", region: "r" },
        Question::Versions { secret: "projects/p/secrets/s", region: "global" },
        Question::ServiceAccounts { project: "p" },
        Question::Keys { account: "projects/p/serviceAccounts/a" },
        Question::Projects,
    ];
    // a new question does not compile until it is in the list above
    for question in questions {
        match question {
            Question::Secrets { .. }
            | Question::Versions { .. }
            | Question::ServiceAccounts { .. }
            | Question::Keys { .. }
            | Question::Projects => {}
        }
    }
    let paths: Vec<String> = questions.iter().map(|question| question.path().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "v1/projects/p/secrets",
            "v1/projects/p/locations/r/secrets",
            "v1/projects/p/secrets/s/versions",
            "v1/projects/p/serviceAccounts",
            "v1/projects/p/serviceAccounts/a/keys",
            "v3/projects:search",
        ]
    );
    let sources: Vec<(String, String)> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/providers/gcp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // not what rotates, in a folder of its own
        .filter(|path| path.is_file() && path.file_name().is_some_and(|name| name != "tests.rs"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let sent: Vec<&str> = sources
        .iter()
        .flat_map(|(file, source)| source.match_indices("self.client.").map(move |(at, _)| (file, &source[at + 12..])))
        .map(|(file, rest)| {
            assert_eq!(file, "rest.rs", "nothing else holds the HTTP client");
            rest.split('(').next().unwrap()
        })
        .collect();
    assert_eq!(sent, ["get", "post"]);
    for forbidden in [":access", "signBlob", "signJwt", "reqwest::get", "private_key_data", "privateKeyData"] {
        let names = |(_, source): &(String, String)| source.split("#[cfg(test)]").next().unwrap().contains(forbidden);
        assert!(!sources.iter().any(names), "{forbidden} is named in this folder");
    }
}
