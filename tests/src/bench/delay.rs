//! A proxy that makes an emulator on this machine as far away as a cloud: it holds every call back for a fixed time.
//!
//! Calls on different connections do not wait for one another, and answers pass as they come. All but the list of secrets it answers
//! itself, as an account that has nothing else: the fast emulator does not know all services.

use crate::stub::of_iam;
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
        match stand_in(&request) {
            Some(answer) => to_client.lock().await.write_all(answer.as_bytes()).await?,
            None => to_server.write_all(&request).await?,
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
    let head = head_of(read)?;
    let body = header(&read[..head], "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    (read.len() >= head + body).then_some(head + body)
}

/// What is answered here: that there is nothing of it.
fn stand_in(request: &[u8]) -> Option<String> {
    let (kind, body) = match header(request, "x-amz-target") {
        Some(target) if target == "secretsmanager.ListSecrets" => return None,
        Some(_) => ("application/x-amz-json-1.1", "{}".to_owned()),
        None => ("text/xml", of_iam(request.get(head_of(request)?..)?)?),
    };
    Some(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn head_of(read: &[u8]) -> Option<usize> {
    Some(read.windows(4).position(|window| window == b"\r\n\r\n")? + 4)
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
    fn all_but_the_list_of_secrets_is_answered_here() {
        assert!(stand_in(REQUEST).unwrap().ends_with("{}"));
        assert!(stand_in(b"POST / HTTP/1.1\r\nX-Amz-Target: secretsmanager.ListSecrets\r\n\r\n").is_none());
        // a body cannot pretend to be a header
        assert!(stand_in(b"POST / HTTP/1.1\r\n\r\nX-Amz-Target: CertificateManager.ListCertificates").is_none());
        let iam = stand_in(b"POST / HTTP/1.1\r\n\r\nAction=ListServerCertificates&Version=2010-05-08").unwrap();
        assert!(iam.contains("<IsTruncated>false</IsTruncated>"));
    }
}
