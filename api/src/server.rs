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
