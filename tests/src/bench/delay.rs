//! A proxy that makes an emulator on this machine as far away as a cloud: it holds every call back for a fixed time.
//!
//! Calls on different connections do not wait for one another, and answers pass as they come. It stands in for Certificate
//! Manager, of which the fast emulator knows nothing: an account without certificates.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinHandle,
};

const NO_CERTIFICATES: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: 30\r\n\r\n\
    {\"CertificateSummaryList\": []}";
const CHUNK: usize = 16 * 1024;

/// The running proxy; ends with its value.
pub struct DelayProxy {
    url: String,
    accepting: JoinHandle<()>,
}

impl DelayProxy {
    /// Stands before `upstream` (host and port) on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(upstream: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // an error of a connection is seen by whoever made it
                tokio::spawn(async move { serve(client, upstream, delay).await });
            }
        });
        Ok(Self { url, accepting })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(client: TcpStream, upstream: SocketAddr, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let to_client = Arc::new(Mutex::new(to_client));
    tokio::spawn(pass_on(from_server, Arc::clone(&to_client)));
    let mut read = Vec::new();
    loop {
        let Some(length) = whole_request(&read) else {
            if from_client.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let request: Vec<u8> = read.drain(..length).collect();
        tokio::time::sleep(delay).await;
        if asks_for_certificates(&request) {
            to_client.lock().await.write_all(NO_CERTIFICATES).await?;
        } else {
            to_server.write_all(&request).await?;
        }
    }
}

async fn pass_on(mut from: OwnedReadHalf, to: Arc<Mutex<OwnedWriteHalf>>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await? {
            0 => return to.lock().await.shutdown().await,
            length => to.lock().await.write_all(&chunk[..length]).await?,
        }
    }
}

/// The length of the first request, once all of it is there. The SDK always tells the length of its bodies.
fn whole_request(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let body = header(&read[..head], "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    (read.len() >= head + body).then_some(head + body)
}

fn asks_for_certificates(request: &[u8]) -> bool {
    header(request, "x-amz-target").is_some_and(|target| target == "CertificateManager.ListCertificates")
}

fn header(request: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(request);
    let mut lines = text.lines().skip(1).take_while(|line| !line.is_empty());
    lines.find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nX-Amz-Target: CertificateManager.ListCertificates\r\n\
        Content-Length: 2\r\n\r\n{}";

    #[test]
    fn a_request_ends_where_its_length_says() {
        assert_eq!(whole_request(REQUEST), Some(REQUEST.len()));
        assert_eq!(whole_request(&[REQUEST, b"POST"].concat()), Some(REQUEST.len()));
        assert_eq!(whole_request(&REQUEST[..REQUEST.len() - 1]), None);
        assert_eq!(whole_request(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
    }

    #[test]
    fn only_the_list_of_certificates_is_answered_here() {
        assert!(asks_for_certificates(REQUEST));
        assert!(!asks_for_certificates(b"POST / HTTP/1.1\r\nX-Amz-Target: secretsmanager.ListSecrets\r\n\r\n"));
        // a body cannot pretend to be a header
        assert!(!asks_for_certificates(b"POST / HTTP/1.1\r\n\r\nX-Amz-Target: CertificateManager.ListCertificates"));
    }

    #[test]
    fn the_stand_in_tells_its_own_length() {
        let head = NO_CERTIFICATES.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let told = header(NO_CERTIFICATES, "content-length").unwrap();
        assert_eq!(told, (NO_CERTIFICATES.len() - head).to_string());
    }
}
