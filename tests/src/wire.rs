//! A wire to a server that a test can cut and mend.

use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Everything that connects to it is led to the server, while it is whole.
pub struct Wire {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Wire {
    /// A wire to this `host:port`.
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its own address");
        let whole = watch::Sender::new(true);
        let (server, watching) = (server.to_owned(), whole.clone());
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, server.clone(), watching.subscribe()));
            }
        });
        Self { address, whole, serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and every new one as soon as it comes.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
        self.cut();
    }
}

async fn lead(mut client: TcpStream, server: String, mut whole: watch::Receiver<bool>) {
    if !*whole.borrow() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}
