//! A wire to a server that spoils what clients send along it.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What happens on the wire, on each connection anew.
#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    /// It breaks after so many bytes.
    Cut(usize),
    /// A bit of the byte after so many arrives as another one.
    Flip(usize),
    /// Nothing arrives: every request is answered with 503.
    Refuse,
}

/// Ends with its value.
pub struct SpoiledWire {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl SpoiledWire {
    /// A wire to this `http://host:port`.
    pub async fn to(server: &str, spoil: Spoil) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its own address");
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { lead(client, &server, spoil).await });
            }
        });
        Self { address, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for SpoiledWire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn lead(mut client: TcpStream, server: &str, spoil: Spoil) -> Option<()> {
    let mut chunk = vec![0; 64 * 1024];
    if let Spoil::Refuse = spoil {
        if client.read(&mut chunk).await.ok()? == 0 {
            return None;
        }
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        client.write_all(refusal).await.ok()?;
        // until the client has heard it, what it still sends must not reset the connection
        while client.read(&mut chunk).await.ok()? > 0 {}
        return Some(());
    }
    let (mut hears, mut says) = TcpStream::connect(server).await.ok()?.into_split();
    let (mut from, mut back) = client.into_split();
    let answers = tokio::spawn(async move { copy(&mut hears, &mut back).await });
    let mut passed = 0;
    loop {
        let read = from.read(&mut chunk).await.unwrap_or_default();
        let bytes = &mut chunk[..read];
        match spoil {
            _ if read == 0 => break,
            Spoil::Cut(at) if passed + read > at => {
                answers.abort();
                return None;
            }
            Spoil::Flip(at) if (passed..passed + read).contains(&at) => bytes[at - passed] ^= 1,
            _ => {}
        }
        says.write_all(bytes).await.ok()?;
        passed += read;
    }
    drop(says);
    answers.await.ok()?.ok().map(|_| ())
}
