//! HTTP over the guard: one request, one answer of bounded size in bounded time, no redirect, no proxy.

use super::{EgressError, EgressGuard};
use http::{Request, Response};
use reqwest::{Client, redirect::Policy};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// Sends requests where the guard lets them.
#[derive(Clone, Debug)]
pub struct GuardedHttp {
    guard: EgressGuard,
    patience: Duration,
    most: usize,
}

/// Why there is no answer. Says nothing of what was sent.
#[derive(Debug, Error)]
pub enum FetchError {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("{0} is not an address that can be asked")]
    Address(String),
    #[error("there was no whole answer within {0:?}")]
    TimedOut(Duration),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("the request failed: {0}")]
    Http(#[source] reqwest::Error),
}

impl GuardedHttp {
    /// Waits for an answer up to `patience`, all in all, and takes at most `most` bytes of it.
    pub fn new(guard: EgressGuard, patience: Duration, most: usize) -> Self {
        Self { guard, patience, most }
    }

    /// Sends the request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        timeout(self.patience, self.exchange(request)).await.map_err(|_| FetchError::TimedOut(self.patience))?
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let request = reqwest::Request::try_from(request).map_err(FetchError::Http)?;
        let url = request.url();
        let place =
            url.host_str().zip(url.port_or_known_default()).filter(|_| matches!(url.scheme(), "http" | "https"));
        let (host, port) = place.ok_or_else(|| FetchError::Address(url.origin().ascii_serialization()))?;
        let host = host.to_owned();
        let addresses = self.guard.resolve(&host, port).await?;
        // a client for this one request: it dials what was checked, and keeps no connection for a name that may move
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .resolve_to_addrs(&host, &addresses)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(FetchError::Http)?;
        let failed = |error: reqwest::Error| FetchError::Http(error.without_url());
        let mut response = client.execute(request).await.map_err(failed)?;
        if let Some(peer) = response.remote_addr()
            && addresses.iter().all(|checked| checked.ip() != peer.ip())
        {
            return Err(EgressError::Refused { host, address: peer.ip() }.into());
        }
        let mut answer = Response::new(());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > self.most {
                return Err(FetchError::TooLarge(self.most));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(answer.map(|()| body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::config::EgressAllow;
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Answers every request with this text, as it stands; an empty one is never sent.
    async fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        port
    }

    fn http(patience: Duration) -> GuardedHttp {
        let loopback = EgressAllow::Net("127.0.0.0/8".parse().unwrap());
        GuardedHttp::new(EgressGuard::new(&[loopback]), patience, 100)
    }

    async fn get(http: &GuardedHttp, url: String) -> Result<Response<Vec<u8>>, FetchError> {
        http.send(Request::get(url).body(Vec::new()).unwrap()).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let port = server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n").await;
        let fetched = get(&http(LONG), format!("http://127.0.0.1:{port}/")).await.unwrap();
        assert_eq!(fetched.status(), StatusCode::FOUND);
    }

    #[tokio::test]
    async fn what_the_guard_refuses_is_not_asked() {
        let port = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let closed = GuardedHttp::new(EgressGuard::default(), LONG, 100);
        for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "2130706433"] {
            let error = get(&closed, format!("http://{host}:{port}/")).await.unwrap_err();
            assert!(matches!(error, FetchError::Egress(EgressError::Refused { .. })), "{host}: {error}");
        }
        let place = GuardedHttp::new(EgressGuard::default().with_place("LOCALHOST", port), LONG, 100);
        assert_eq!(get(&place, format!("http://localhost:{port}/")).await.unwrap().status(), StatusCode::OK);
        assert!(get(&place, format!("http://127.0.0.1:{port}/")).await.is_err(), "the place has another name");
    }

    #[tokio::test]
    async fn answers_are_bounded_in_size_and_time() {
        let body = "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n\
                    01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890";
        let port = server(body).await;
        let error = get(&http(LONG), format!("http://127.0.0.1:{port}/")).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge(100)), "{error}");
        let silent = server("").await;
        let error = get(&http(Duration::from_millis(200)), format!("http://127.0.0.1:{silent}/")).await.unwrap_err();
        assert!(matches!(error, FetchError::TimedOut(_)), "{error}");
    }
}
