use poem_openapi::payload::Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::app::{self, Draining};
use crate::error::ApiError;
use crate::page::CursorKey;
use crate::routes::Tag;

/// Tells when a request has reached its handler.
struct TestApi(Arc<Notify>);

#[poem_openapi::OpenApi(tag = "Tag::System")]
impl TestApi {
    /// Wait for the end
    #[oai(path = "/api/wait", method = "get", operation_id = "wait")]
    async fn wait(&self, draining: poem::web::Data<&Draining>) -> Result<Json<String>, ApiError> {
        self.0.notify_one();
        draining.0.0.cancelled().await;
        Ok(Json("drained".to_owned()))
    }

    /// Wait for ever
    #[oai(path = "/api/hang", method = "get", operation_id = "hang")]
    async fn hang(&self) -> Result<Json<String>, ApiError> {
        self.0.notify_one();
        std::future::pending().await
    }

    /// Take a text
    #[oai(path = "/api/take", method = "post", operation_id = "take")]
    async fn take(&self, body: Json<String>) -> Result<Json<String>, ApiError> {
        Ok(Json(body.0))
    }
}

struct Running {
    entered: Arc<Notify>,
    address: SocketAddr,
    draining: Draining,
    stop: CancellationToken,
    room: Arc<Room>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start(grace: Duration) -> Running {
    start_with(grace, |listening| listening).await
}

async fn start_with(grace: Duration, set: fn(Listening) -> Listening) -> Running {
    let (draining, entered) = (Draining::default(), Arc::new(Notify::new()));
    let options = app::Options {
        cursor_key: CursorKey::new(b"test"),
        fingerprint_key: crate::idempotency::FingerprintKey::new(b"test"),
        request_ids: Arc::new(|| "made".to_owned()),
        gates: Vec::new(),
        draining: draining.clone(),
        document: crate::openapi::Options::default(),
        check_answers: true,
    };
    let app = app::build(TestApi(entered.clone()), options).unwrap();
    let listening = set(Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap());
    let (address, room, stop) = (listening.address(), listening.room(), CancellationToken::new());
    let server = tokio::spawn(listening.serve(app, stop.clone(), grace));
    Running { entered, address, draining, stop, room, server }
}

/// Sends `request` as it is.
async fn connect(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // a server that refuses a body without reading it resets the connection after its answer
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_long_poll_is_answered_when_the_process_drains() {
    let running = start(Duration::from_secs(30)).await;
    let mut stream = connect(running.address, "GET /api/wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    running.entered.notified().await;
    running.draining.0.cancel();
    running.stop.cancel();
    running.server.await.unwrap().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"drained\""), "{answer}");
    assert!(TcpStream::connect(running.address).await.is_err(), "nothing new is accepted");
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_off_when_the_grace_is_over() {
    let running = start(Duration::ZERO).await;
    let stream = connect(running.address, "GET /api/hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    running.entered.notified().await;
    running.stop.cancel();
    running.server.await.unwrap().unwrap();
    assert_eq!(read_all(stream).await, "");
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_chunked_body_without_length_is_measured() {
    let running = start(Duration::ZERO).await;
    let head = "POST /api/take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let chunk = "a".repeat(crate::strict::MAX_BODY);
    let body = format!("{:x}\r\n\"{chunk}\"\r\n0\r\n\r\n", chunk.len() + 2);
    let answer = read_all(connect(running.address, &format!("{head}{body}")).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:.300}");
    assert!(answer.contains("payload_too_large"));
    let answer = read_all(connect(running.address, &format!("{head}3\r\n\"a\"\r\n0\r\n\r\n")).await).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"a\""), "{answer}");
    running.stop.cancel();
    running.server.await.unwrap().unwrap();
}

const HEAD: &str = "POST /api/take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// A server that loses patience soon, so that a test need not.
async fn impatient() -> Running {
    let short = |listening: Listening| {
        let patience = Patience { head: Duration::from_millis(300), body: Duration::from_millis(300), ..PATIENT };
        listening.with_patience(patience)
    };
    start_with(Duration::ZERO, short).await
}

const LONG: Duration = Duration::from_secs(3600);
const PATIENT: Patience = Patience { handshake: LONG, head: LONG, body: LONG, write: LONG, idle: LONG };

/// Sends byte after byte until the server has had enough, and returns what it said.
async fn drip(mut stream: TcpStream, text: &str) -> String {
    let mut answer = Vec::new();
    for byte in text.bytes().cycle() {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        let mut buffer = [0; 1024];
        match tokio::time::timeout(Duration::from_millis(20), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(read)) => answer.extend_from_slice(&buffer[..read]),
            Err(_) => {}
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_head_that_trickles_in_ends_the_connection_and_no_other() {
    let running = impatient().await;
    let slow = tokio::spawn(drip(connect(running.address, "GET /api/wait HTTP/1.1\r\n").await, "x-slow: y\r\n"));
    // one that says nothing at all
    let mute = tokio::spawn(read_all(TcpStream::connect(running.address).await.unwrap()));
    let body = format!("{HEAD}content-length: 3\r\nconnection: close\r\n\r\n\"a\"");
    assert!(read_all(connect(running.address, &body).await).await.starts_with("HTTP/1.1 200"));
    assert_eq!(slow.await.unwrap(), "");
    assert_eq!(mute.await.unwrap(), "");
}

#[tokio::test]
async fn the_second_request_of_a_connection_must_come_in_time_too() {
    let running = impatient().await;
    let mut stream = connect(running.address, &format!("{HEAD}content-length: 3\r\n\r\n\"a\"")).await;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let rest = drip(stream, "x").await;
    assert_eq!(rest.matches("HTTP/1.1").count(), 0, "{rest}");
}

#[tokio::test]
async fn a_body_that_trickles_in_is_a_timeout_in_the_one_shape() {
    let running = impatient().await;
    let answer = drip(connect(running.address, &format!("{HEAD}content-length: 900000\r\n\r\n\"")).await, "a").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("request_timeout"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_request_that_waits_is_not_one_that_is_slow() {
    let short = |listening: Listening| {
        listening.with_patience(Patience {
            head: Duration::from_millis(300),
            idle: Duration::from_millis(300),
            ..PATIENT
        })
    };
    let running = start_with(LONG, short).await;
    let mut stream = connect(running.address, "GET /api/wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    running.entered.notified().await;
    // longer than a head may take
    let early = tokio::time::timeout(Duration::from_millis(900), stream.read_u8()).await;
    assert!(early.is_err(), "it was ended: {early:?}");
    running.draining.0.cancel();
    running.stop.cancel();
    running.server.await.unwrap().unwrap();
    let answer = read_all(stream).await;
    assert!(answer.ends_with("\"drained\""), "{answer}");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let short =
        |listening: Listening| listening.with_patience(Patience { idle: Duration::from_millis(300), ..PATIENT });
    let running = start_with(Duration::ZERO, short).await;
    let stream = connect(running.address, &format!("{HEAD}content-length: 3\r\n\r\n\"a\"")).await;
    let answer = read_all(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"a\""), "{answer}");
}

#[tokio::test]
async fn beyond_its_places_a_connection_waits() {
    let running = start_with(Duration::ZERO, |listening| listening.with_connections(1)).await;
    let first = TcpStream::connect(running.address).await.unwrap();
    let body = format!("{HEAD}content-length: 3\r\nconnection: close\r\n\r\n\"a\"");
    let mut second = connect(running.address, &body).await;
    let early = tokio::time::timeout(Duration::from_millis(300), second.read_u8()).await;
    assert!(early.is_err(), "there is one place only");
    drop(first);
    assert!(read_all(second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_left() {
    let (ours, theirs) = tokio::io::duplex(64);
    let mut watched = Watched::new(ours, Arc::new(Progress::within(Arc::default())), LONG, Duration::from_millis(200));
    let error = watched.write_all(&[0; 1024]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    drop(theirs);
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let running = start(Duration::ZERO).await;
    let ask = async |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        read_all(connect(running.address, &request).await).await
    };
    let long = format!("/api/nothing?{}", "a".repeat(crate::strict::MAX_URI));
    let answer = ask(&long, "").await;
    assert!(answer.starts_with("HTTP/1.1 414") && answer.contains("uri_too_long"), "{answer:.300}");
    let many: String = (0..120).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = format!("x-large: {}\r\n", "y".repeat(20_000));
    for headers in [many, large] {
        let answer = ask("/api/nothing", &headers).await;
        assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("headers_too_large"), "{answer:.300}");
    }
    let beyond: String = (0..300).map(|number| format!("x-{number}: y\r\n")).collect();
    assert!(ask("/api/nothing", &beyond).await.starts_with("HTTP/1.1 431"));
    assert!(ask("/api/nothing", &format!("x: {}\r\n", "y".repeat(100_000))).await.starts_with("HTTP/1.1 431"));
}

/// Sends a head of 64 KiB that does not end. `None`: the server has closed the connection.
async fn endless_head(running: &Running) -> Option<TcpStream> {
    let before = running.room.held();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!("GET /api/take HTTP/1.1\r\nauthorization: {}", "a".repeat(64 << 10));
    // a server that closes it meanwhile resets it
    let _ = stream.write_all(head.as_bytes()).await;
    let mut byte = [0; 1];
    loop {
        assert!(running.room.held() <= ROOM + (64 << 10), "{}", running.room.held());
        match tokio::time::timeout(Duration::from_millis(5), stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(_)) => panic!("an answer to half a head"),
            Err(_) if running.room.held() >= before + head.len() - room::ALLOWANCE => return Some(stream),
            Err(_) => {}
        }
    }
}

const ROOM: usize = 256 << 10;

#[tokio::test]
async fn however_many_send_large_requests_the_room_is_bounded_and_small_ones_are_served() {
    let running = start_with(Duration::ZERO, |listening| listening.with_patience(PATIENT).with_room(ROOM)).await;
    let mut open = Vec::new();
    for _ in 0..50 {
        open.extend(endless_head(&running).await);
    }
    assert_eq!(open.len(), 5, "of 48 KiB beyond their allowance no more fit");
    let take = async |length: usize, rest: &str| {
        let text = "a".repeat(length);
        let request = format!("{HEAD}content-length: {}\r\n{rest}\r\n\"{text}\"", length + 2);
        read_all(connect(running.address, &request).await).await
    };
    let small = take(1000, "connection: close\r\n").await;
    assert!(small.starts_with("HTTP/1.1 200"), "{small:.300}");
    for _ in 0..20 {
        let large = take(200 << 10, "").await;
        assert!(large.starts_with("HTTP/1.1 503") && large.contains("\"overloaded\""), "{large:.300}");
        let head = large.to_lowercase();
        assert!(head.contains("\r\nretry-after: 1\r\n") && head.contains("\r\nconnection: close\r\n"), "{large:.300}");
    }
    drop(open);
    while running.room.held() > 0 {
        tokio::task::yield_now().await;
    }
    let large = take(200 << 10, "").await;
    assert!(
        large.starts_with("HTTP/1.1 200") && large.to_lowercase().contains("\r\nconnection: close\r\n"),
        "{large:.300}"
    );
    while running.room.held() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn small_requests_follow_one_another_and_a_large_one_is_the_last() {
    let running = start_with(Duration::ZERO, |listening| listening.with_patience(PATIENT).with_room(ROOM)).await;
    let request = |length: usize| format!("{HEAD}content-length: {}\r\n\r\n\"{}\"", length + 2, "a".repeat(length));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // together more than one may have
    for _ in 0..20 {
        stream.write_all(request(3000).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"a\"") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "it is kept open");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
    stream.write_all(request(20_000).as_bytes()).await.unwrap();
    let last = read_all(stream).await;
    assert!(last.starts_with("HTTP/1.1 200") && last.ends_with("a\""), "{last:.300}");
}
