//! Serving: one listener, and an end that keeps its promises to open requests.

use std::net::SocketAddr;
use std::time::Duration;

use poem::listener::TcpAcceptor;
use poem::{Endpoint, Server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A bound address, not yet answering.
#[derive(Debug)]
pub struct Listening {
    acceptor: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let acceptor = TcpListener::bind(address).await?;
        let address = acceptor.local_addr()?;
        Ok(Self { acceptor, address })
    }

    /// The address that is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled, then accepts no more and gives open requests up to `grace`.
    ///
    /// Cancel [`crate::app::Draining`] first, so that long polls end at once.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve<E: Endpoint + 'static>(
        self,
        app: E,
        stop: CancellationToken,
        grace: Duration,
    ) -> std::io::Result<()> {
        let acceptor = TcpAcceptor::from_tokio(self.acceptor)?;
        let server = Server::new_with_acceptor(acceptor).name("keywright-api");
        server.run_with_graceful_shutdown(app, stop.cancelled_owned(), Some(grace)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use poem_openapi::payload::Json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
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
        server: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    async fn start(grace: Duration) -> Running {
        let (draining, entered) = (Draining::default(), Arc::new(Notify::new()));
        let options = app::Options {
            cursor_key: CursorKey::new(b"test"),
            request_ids: Arc::new(|| "made".to_owned()),
            gates: Vec::new(),
            draining: draining.clone(),
            document: crate::openapi::Options::default(),
            check_answers: true,
        };
        let app = app::build(TestApi(entered.clone()), options).unwrap();
        let listening = Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, stop) = (listening.address(), CancellationToken::new());
        let server = tokio::spawn(listening.serve(app, stop.clone(), grace));
        Running { entered, address, draining, stop, server }
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
}
