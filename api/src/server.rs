//! Serving: one listener, connections with limits of their own, and an end that keeps its promises to open requests.

mod room;
mod tls;
mod watched;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use poem::http::uri::Scheme;
use poem::http::{HeaderValue, header};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Endpoint, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::room::Progress;
pub use self::room::{Crowded, Room};
pub use self::tls::{Certificate, TlsError};
pub use self::watched::Flushes;
use self::watched::Watched;
use crate::strict::BodyPatience;

/// Beyond these hyper refuses by itself, without a body; below them [`crate::strict`] does, in the one shape.
const MAX_HEADERS: usize = 256;
const MAX_BUFFER: usize = 2 << 20;
/// After an accept that failed, as it does when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, from its first byte.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// To take something of its answer.
    pub write: Duration,
    /// Between requests. Longer than proxies keep a connection, or they use it at the moment in which we end it.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(10), head: seconds(15), body: seconds(30), write: seconds(60), idle: seconds(75) }
    }
}

/// A bound address, not yet answering.
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Certificate>>,
    patience: Patience,
    connections: usize,
    room: Arc<Room>,
}

impl Listening {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            tls: None,
            patience: Patience::default(),
            connections: 4096,
            room: Arc::default(),
        })
    }

    /// Ends TLS with this certificate; with `None` it speaks plain http.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Certificate>>) -> Self {
        Self { tls, ..self }
    }

    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Has at most so many connections; further ones wait to be accepted.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// Lets requests that are being read hold at most so many bytes together, beyond the 16 KiB that each may have.
    #[must_use]
    pub fn with_room(self, bytes: usize) -> Self {
        Self { room: Arc::new(Room::of(bytes)), ..self }
    }

    /// What requests that are being read hold.
    #[must_use]
    pub fn room(&self) -> Arc<Room> {
        Arc::clone(&self.room)
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
    /// When TLS cannot be set up.
    pub async fn serve<E: Endpoint + 'static>(
        self,
        app: E,
        stop: CancellationToken,
        grace: Duration,
    ) -> std::io::Result<()> {
        let acceptor = self.tls.as_ref().map(Certificate::acceptor).transpose().map_err(std::io::Error::other)?;
        if let Some(certificate) = &self.tls {
            tokio::spawn(Arc::clone(certificate).follow(stop.clone()));
        }
        let (app, places) = (Arc::new(app), Arc::new(Semaphore::new(self.connections)));
        let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
        let accepting = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (stream, peer) = match self.listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let connection = Connection {
                    app: Arc::clone(&app),
                    local: self.address,
                    peer,
                    patience: self.patience,
                    room: Arc::clone(&self.room),
                    stop: stop.clone(),
                };
                let (acceptor, cut) = (acceptor.clone(), cut.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = connection.begin(stream, acceptor) => {}
                        () = cut.cancelled() => {}
                    }
                    drop(place);
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
        drop(self.listener);
        tasks.close();
        if timeout(grace, tasks.wait()).await.is_err() {
            cut.cancel();
            tasks.wait().await;
        }
        Ok(())
    }
}

struct Connection<E> {
    app: Arc<E>,
    local: SocketAddr,
    peer: SocketAddr,
    patience: Patience,
    room: Arc<Room>,
    stop: CancellationToken,
}

impl<E: Endpoint + 'static> Connection<E> {
    async fn begin(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // answers are written in one go, and the next one must not wait for the client's acknowledgement
        let _ = stream.set_nodelay(true);
        match acceptor {
            None => self.run(stream, Scheme::HTTP).await,
            Some(acceptor) => match timeout(self.patience.handshake, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.run(stream, Scheme::HTTPS).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake was not ended in time"),
            },
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, stream: S, scheme: Scheme) {
        let Self { app, local, peer, patience, room, stop } = self;
        let progress = Arc::new(Progress::within(room));
        let watched = Watched::new(stream, Arc::clone(&progress), patience.head, patience.write);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (app, progress, scheme) = (Arc::clone(&app), Arc::clone(&progress), scheme.clone());
            async move {
                progress.begin();
                let (local, peer) = (LocalAddr(Addr::SocketAddr(local)), RemoteAddr(Addr::SocketAddr(peer)));
                let mut request = Request::from((request, local, peer, scheme));
                request.extensions_mut().insert(BodyPatience(patience.body));
                request.extensions_mut().insert(Flushes(Arc::clone(&progress)));
                request.extensions_mut().insert(Crowded(Arc::clone(&progress)));
                let mut response = app.get_response(request).await;
                if !progress.end() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(hyper::Response::from(response))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.idle)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(watched), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

#[cfg(test)]
mod tests;
