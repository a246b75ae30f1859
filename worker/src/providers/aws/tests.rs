//! The connection as a whole, against a scripted server on this machine, and the watch over metadata only.

mod details;
mod watch;

use super::{Aws, Timeouts, acm, secretsmanager};
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
    asked: Arc<Mutex<Vec<(String, Value)>>>,
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

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    async fn open(&self, aws: Aws, gate: Gate) -> Connection {
        let settings = json!({"endpoint": self.url});
        aws.connect(&target(settings, &["eu-west-1"]), None, gate).await.unwrap()
    }
}

/// The operation and the body of one request.
async fn read_request(socket: &mut TcpStream) -> (String, Value) {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request ends early");
        text.extend_from_slice(&buffer[..read]);
        let request = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        if body.len() >= header("content-length").map_or(0, |(_, value)| value.parse().unwrap()) {
            let operation = header("x-amz-target").map_or_else(
                || head.split(' ').nth(1).unwrap_or_default().to_owned(),
                |(_, target)| target.rsplit('.').next().unwrap_or_default().to_owned(),
            );
            return (operation, serde_json::from_str(body).unwrap_or_default());
        }
    }
}

fn reply(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn secrets(names: &[&str], next: Option<&str>) -> String {
    let list: Vec<Value> = names.iter().map(|name| json!({"ARN": format!("arn:{name}"), "Name": name})).collect();
    reply(200, "", &json!({"SecretList": list, "NextToken": next}).to_string())
}

fn target(settings: Value, regions: &[&str]) -> Target {
    Target {
        provider: ProviderKind::Aws,
        external_id: "123456789012".to_owned(),
        regions: regions.iter().map(|&region| region.to_owned()).collect(),
        settings,
        auth_mode: "ambient".to_owned(),
    }
}

fn scope(kind: &str) -> ScopeId {
    ScopeId { region: "eu-west-1".to_owned(), kind: kind.to_owned() }
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

fn aws() -> Aws {
    Aws::new(loopback())
        .with_access_key("AKIAIOSFODNN7EXAMPLE", "not-a-real-key".to_owned().into())
        .with_sleeper(Arc::new(NoWait::default()))
}

#[tokio::test]
async fn pages_are_followed_by_their_tokens() {
    let server = Scripted::new(vec![secrets(&["a", "b"], Some("t1")), secrets(&["c"], None)]).await;
    let inventory = server.open(aws(), Gate::open()).await.inventory;
    let first = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap();
    assert_eq!((first.assets.len(), first.next.as_deref()), (2, Some("t1")));
    let last = inventory.list(&scope(secretsmanager::KIND), first.next.as_deref()).await.unwrap();
    assert_eq!((last.assets.len(), last.next), (1, None));
    let asked = server.asked();
    assert_eq!(asked[0], ("ListSecrets".to_owned(), json!({"MaxResults": 100})));
    assert_eq!(asked[1].1["NextToken"], "t1");
}

#[tokio::test]
async fn a_token_that_leads_nowhere_ends_the_listing() {
    let server = Scripted::new(vec![secrets(&["a"], Some("t1"))]).await;
    let inventory = server.open(aws(), Gate::open()).await.inventory;
    let error = inventory.list(&scope(secretsmanager::KIND), Some("t1")).await.unwrap_err();
    assert!(matches!(error, ProviderError::Rejected { code, .. } if code == "unexpected_reply"));
}

#[tokio::test]
async fn a_403_in_a_foreign_language_is_a_missing_permission() {
    let xml = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
    for body in [xml, "<html>Forbidden</html>", ""] {
        let server = Scripted::new(vec![reply(403, "", body)]).await;
        let inventory = server.open(aws(), Gate::open()).await.inventory;
        let error = inventory.list(&scope(acm::KIND), None).await.unwrap_err();
        let ProviderError::Denied { permission, .. } = error else { panic!("{body}: {error}") };
        assert_eq!(permission.as_deref(), Some("acm:ListCertificates"));
    }
}

#[tokio::test]
async fn an_unknown_access_key_is_told_as_such() {
    let xml = "<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>";
    let server = Scripted::new(vec![reply(403, "", xml)]).await;
    let error = server.open(aws(), Gate::open()).await.inventory.list(&scope(acm::KIND), None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unauthenticated { .. }), "{error}");
}

#[tokio::test]
async fn a_429_is_waited_out_for_as_long_as_it_says() {
    let slow = reply(429, "Retry-After: 2\r\n", r#"{"__type":"ThrottlingException"}"#);
    let server = Scripted::new(vec![slow.clone(), slow, secrets(&["a"], None)]).await;
    let timer = Arc::new(NoWait::default());
    let inventory = server.open(aws().with_sleeper(timer.clone()), Gate::open()).await.inventory;
    let page = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap();
    assert_eq!((page.assets.len(), server.asked().len()), (1, 3));
    assert!(*timer.0.lock().unwrap() >= Duration::from_secs(4));
}

#[tokio::test]
async fn a_long_429_is_handed_to_the_job() {
    let slow = reply(429, "Retry-After: 900\r\n", "");
    let server = Scripted::new(vec![slow]).await;
    let error = server.open(aws(), Gate::open()).await.inventory.list(&scope(acm::KIND), None).await.unwrap_err();
    assert!(
        matches!(error, ProviderError::Throttled { retry_after: Some(wait), .. } if wait == Duration::from_secs(900))
    );
}

#[tokio::test]
async fn a_failing_service_is_tried_again_and_a_broken_answer_is_not() {
    let server = Scripted::new(vec![reply(500, "", "{}"), reply(503, "", ""), secrets(&["a"], None)]).await;
    let inventory = server.open(aws(), Gate::open()).await.inventory;
    assert_eq!(inventory.list(&scope(secretsmanager::KIND), None).await.unwrap().assets.len(), 1);

    for broken in [r#"{"SecretList":[{"ARN":"a"#, "<html>", r#"{"SecretList":7}"#] {
        let server = Scripted::new(vec![reply(200, "", broken)]).await;
        let inventory = server.open(aws(), Gate::open()).await.inventory;
        let error = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap_err();
        assert!(matches!(&error, ProviderError::Rejected { code, .. } if code == "unexpected_reply"), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = Scripted::new(vec![]).await;
    let short = Timeouts { connect: Duration::from_millis(200), attempt: Duration::from_millis(50) };
    let inventory = server.open(aws().with_timeouts(short), Gate::open()).await.inventory;
    let error = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unavailable { .. }), "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn nobody_listening_is_a_passing_failure() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = target(json!({"endpoint": format!("http://{closed}")}), &["eu-west-1"]);
    let inventory = aws().connect(&target, None, Gate::open()).await.unwrap().inventory;
    let error = inventory.list(&scope(acm::KIND), None).await.unwrap_err();
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
    // two for the first page: before the attempt, and immediately before the request; the third is before the second attempt
    for passes in [2, 3] {
        let server = Scripted::new(vec![secrets(&["a"], Some("t1")), secrets(&["b"], None)]).await;
        let inventory = server.open(aws(), Gate::new(Arc::new(Closing(AtomicUsize::new(passes))))).await.inventory;
        let first = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap();
        let error = inventory.list(&scope(secretsmanager::KIND), first.next.as_deref()).await.unwrap_err();
        assert_eq!(error, ProviderError::Stopped(Stopped::LeaseLost), "{passes}");
        assert_eq!(server.asked().len(), 1, "{passes}");
    }
}

#[tokio::test]
async fn without_an_answer_about_regions_the_usual_ones_are_taken_and_said_so_once() {
    let denied = reply(403, "", r#"{"__type":"AccessDeniedException"}"#);
    let server = Scripted::new(vec![denied, secrets(&[], None), secrets(&[], None)]).await;
    let target = target(json!({"endpoint": server.url}), &[]);
    let inventory = aws().connect(&target, None, Gate::open()).await.unwrap().inventory;
    let scopes = inventory.scopes().await.unwrap();
    assert_eq!(scopes.len(), 17 * 4 + 2);
    assert!(scopes.is_sorted());
    let first = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap();
    assert_eq!(first.warnings.iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(), ["regions_assumed"]);
    assert!(inventory.list(&scope(secretsmanager::KIND), None).await.unwrap().warnings.is_empty());
}

#[tokio::test]
async fn the_account_s_own_regions_are_taken_page_by_page() {
    let page = |name: &str, next: Value| {
        reply(200, "", &json!({"Regions": [{"RegionName": name}], "NextToken": next}).to_string())
    };
    let server = Scripted::new(vec![page("il-central-1", json!("t")), page("eu-west-1", Value::Null)]).await;
    let target = target(json!({"endpoint": server.url}), &[]);
    let inventory = aws().connect(&target, None, Gate::open()).await.unwrap().inventory;
    let mut regions: Vec<String> = inventory.scopes().await.unwrap().into_iter().map(|scope| scope.region).collect();
    regions.dedup();
    assert_eq!(regions, ["eu-west-1", "global", "il-central-1"]);
    assert_eq!(server.asked()[0].1["RegionOptStatusContains"], json!(["ENABLED", "ENABLED_BY_DEFAULT"]));
}

#[tokio::test]
async fn regions_of_the_subscription_are_taken_as_they_are_without_asking() {
    let server = Scripted::new(vec![]).await;
    let target = target(json!({"endpoint": server.url}), &["us-east-1", "eu-west-1", "us-east-1"]);
    let scopes = aws().connect(&target, None, Gate::open()).await.unwrap().inventory.scopes().await.unwrap();
    assert_eq!(scopes.len(), 2 * 4 + 2);
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_the_egress_check_refuses_is_never_contacted() {
    let server = Scripted::new(vec![]).await;
    let aws = Aws::new(Arc::default());
    let refused = aws.connect(&target(json!({"endpoint": server.url}), &["eu-west-1"]), None, Gate::open()).await;
    let Err(ProviderError::Rejected { code, detail }) = refused else { panic!("the endpoint must be refused") };
    assert_eq!((code.as_str(), detail.contains("127.0.0.1")), ("address_refused", true));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let inside = Scripted::new(vec![secrets(&["a"], None)]).await;
    let redirect = || reply(302, &format!("Location: {}/latest/meta-data/\r\n", inside.url), "");
    let server = Scripted::new((0..5).map(|_| redirect()).collect()).await;
    let target = target(json!({"endpoint": server.url}), &["eu-west-1"]);
    let inventory = aws().connect(&target, None, Gate::open()).await.unwrap().inventory;
    inventory.list(&scope(secretsmanager::KIND), None).await.unwrap_err();
    assert!(!server.asked().is_empty());
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_role_is_assumed_at_the_same_endpoint_and_its_refusal_is_told() {
    let refused = reply(403, "", "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>");
    let server = Scripted::new(vec![refused]).await;
    let settings =
        json!({"endpoint": server.url, "roleArn": "arn:aws:iam::123456789012:role/audit", "externalId": "e"});
    let target = Target { auth_mode: "assumeRole".to_owned(), ..target(settings, &["eu-west-1"]) };
    let inventory = aws().connect(&target, None, Gate::open()).await.unwrap().inventory;
    let error = inventory.list(&scope(acm::KIND), None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unauthenticated { .. }), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_profile_that_does_not_exist_is_not_replaced_by_another_identity() {
    let server = Scripted::new(vec![secrets(&["a"], None)]).await;
    let settings = json!({"endpoint": server.url, "profile": "keywright-test-no-such-profile"});
    let target = Target { auth_mode: "profile".to_owned(), ..target(settings, &["eu-west-1"]) };
    let inventory = aws().connect(&target, None, Gate::open()).await.unwrap().inventory;
    let error = inventory.list(&scope(secretsmanager::KIND), None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unauthenticated { .. }), "{error}");
    assert!(server.asked().is_empty());
}
