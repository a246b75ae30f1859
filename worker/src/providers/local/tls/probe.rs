//! One handshake with one endpoint: what it serves, or why it serves nothing, told by a stable code.

use super::{
    endpoint::Endpoint,
    legacy::{self, Chosen},
    starttls::Refusal,
};
use crate::providers::egress::{EgressError, EgressGuard, REFUSED};
use keywright_jobs::provider::{Gate, Stopped};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

/// What asks endpoints.
pub struct Probe {
    pub gate: Gate,
    pub egress: Arc<EgressGuard>,
    /// For resolving, connecting and the handshake together.
    pub patience: Duration,
}

/// What an endpoint served.
#[derive(Debug)]
pub struct Served {
    /// As served, the leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub protocol: Option<String>,
    pub cipher_suite: Option<String>,
    /// Whether the handshake came to its end; a server that wants a client certificate may break it off.
    pub complete: bool,
}

/// Why nothing was served.
#[derive(Debug)]
pub enum Failure {
    Stopped(Stopped),
    Told { code: &'static str, detail: String },
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

fn told(code: &'static str, detail: impl Into<String>) -> Failure {
    Failure::Told { code, detail: detail.into() }
}

impl Probe {
    /// # Errors
    /// [`Failure`]; every failure of the endpoint is [`Failure::Told`].
    pub async fn ask(&self, endpoint: &Endpoint) -> Result<Served, Failure> {
        self.gate.pass().await?;
        let deadline = Instant::now() + self.patience;
        let stream = self.connect(endpoint, deadline).await?;
        let recorder = Arc::new(Recorder::default());
        let connector = TlsConnector::from(Arc::new(config(&recorder)?));
        let handshake = connector.connect(endpoint.name.clone(), stream);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => {
                let (_, connection) = stream.get_ref();
                Ok(Served {
                    chain: recorder.take(),
                    protocol: connection.protocol_version().and_then(|version| version.as_str()).map(protocol),
                    cipher_suite: connection
                        .negotiated_cipher_suite()
                        .and_then(|suite| suite.suite().as_str())
                        .map(iana),
                    complete: true,
                })
            }
            Ok(Err(error)) => self.after_failure(endpoint, recorder.take(), &error, deadline).await,
            Err(_) => match recorder.take() {
                chain if chain.is_empty() => Err(told(
                    "tls_handshake_timeout",
                    "the server accepted the connection but did not finish a TLS handshake in time",
                )),
                chain => Ok(broken_off(chain)),
            },
        }
    }

    /// A connection on which the next byte is TLS's.
    async fn connect(&self, endpoint: &Endpoint, deadline: Instant) -> Result<TcpStream, Failure> {
        let mut stream = self.connection(endpoint, deadline).await?;
        let Some(spoken) = endpoint.opening.name() else { return Ok(stream) };
        match timeout_at(deadline, endpoint.opening.speak(&mut stream)).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(Refusal::NotOffered)) => {
                Err(told("starttls_not_offered", format!("the server speaks {spoken} and does not go over to TLS")))
            }
            Ok(Err(Refusal::NotSpoken)) => Err(told(
                "starttls_not_spoken",
                format!("the server does not speak {spoken}; if it speaks TLS at once, write tls://{endpoint}"),
            )),
            Ok(Err(Refusal::Io(error))) => {
                Err(told("reset", format!("the connection ended while {spoken} was spoken: {}", error.kind())))
            }
            Err(_) => Err(told("tls_handshake_timeout", format!("the server did not answer in {spoken} in time"))),
        }
    }

    async fn connection(&self, endpoint: &Endpoint, deadline: Instant) -> Result<TcpStream, Failure> {
        self.egress.connect(&endpoint.host, endpoint.port, deadline).await.map_err(|error| match error {
            EgressError::Refused { .. } => told(REFUSED, error.to_string()),
            EgressError::Unresolved { .. } => told("dns_failed", error.to_string()),
            EgressError::TimedOut => told("connect_timeout", "no connection was made in time"),
            EgressError::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => told("connect_refused", "nothing accepts connections there"),
                io::ErrorKind::TimedOut => told("connect_timeout", "no connection was made in time"),
                io::ErrorKind::ConnectionReset => told("reset", "the connection was reset"),
                kind => told("connect_failed", format!("the connection failed: {kind}")),
            },
        })
    }

    /// A handshake that broke off after the certificate still shows what is served; else the reason is looked for.
    async fn after_failure(
        &self,
        endpoint: &Endpoint,
        chain: Vec<CertificateDer<'static>>,
        error: &io::Error,
        deadline: Instant,
    ) -> Result<Served, Failure> {
        if !chain.is_empty() {
            return Ok(broken_off(chain));
        }
        match judge(error) {
            Judgement::Told(failure) => Err(failure),
            // a server that knows only old versions may also just hang up
            Judgement::MaybeOld(failure) => match self.chosen(endpoint, deadline).await? {
                Some(Chosen::TooOld(version)) => Err(too_old(version)),
                Some(Chosen::Tls12) => Err(told(
                    "tls_handshake_failed",
                    "the server speaks TLS 1.2 but only with cipher suites without forward secrecy or authentication of data",
                )),
                None => Err(failure),
            },
        }
    }

    /// What the server chooses when it is offered versions and suites that rustls does not have.
    async fn chosen(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Option<Chosen>, Failure> {
        for minor in legacy::OFFERS {
            self.gate.pass().await?;
            let Ok(stream) = self.connect(endpoint, deadline).await else { return Ok(None) };
            let hello = legacy::client_hello(minor, &endpoint.name);
            let answer = timeout_at(deadline, exchange(stream, &hello)).await;
            if let Some(chosen) = answer.ok().and_then(Result::ok).and_then(|answer| legacy::chosen(&answer)) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }
}

async fn exchange(mut stream: TcpStream, hello: &[u8]) -> io::Result<[u8; legacy::ANSWER_BYTES]> {
    let mut answer = [0; legacy::ANSWER_BYTES];
    stream.write_all(hello).await?;
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// `TLSv1.3`, where rustls says `TLSv1_3`.
fn protocol(rustls_name: &str) -> String {
    rustls_name.replace('_', ".")
}

/// The name of a cipher suite at IANA: rustls marks those of TLS 1.3.
fn iana(rustls_name: &str) -> String {
    rustls_name.replacen("TLS13_", "TLS_", 1)
}

fn broken_off(chain: Vec<CertificateDer<'static>>) -> Served {
    Served { chain, protocol: None, cipher_suite: None, complete: false }
}

fn too_old(version: &str) -> Failure {
    told(
        "tls_too_old",
        format!("the server speaks {version} at most, which RFC 8996 deprecated; TLS 1.2 is the oldest usable"),
    )
}

enum Judgement {
    Told(Failure),
    MaybeOld(Failure),
}

/// The reason in the words of rustls or of the socket.
fn judge(error: &io::Error) -> Judgement {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Judgement::MaybeOld(told("reset", "the server closed the connection during the TLS handshake"))
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Judgement::MaybeOld(told("reset", "the server reset the connection during the TLS handshake"))
            }
            kind => Judgement::Told(told("tls_handshake_failed", format!("the TLS handshake failed: {kind}"))),
        };
    };
    match tls {
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => Judgement::Told(too_old("TLS 1.1")),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::PeerSentOversizedRecord => {
            Judgement::Told(told("not_tls", "the server answered with something that is not TLS, such as plain HTTP"))
        }
        Error::NoCertificatesPresented => {
            Judgement::Told(told("no_certificate", "the server presented no certificate"))
        }
        Error::AlertReceived(alert) => {
            Judgement::MaybeOld(told("tls_handshake_failed", format!("the server refused the handshake: {alert:?}")))
        }
        other => Judgement::Told(told("tls_handshake_failed", format!("the TLS handshake failed: {other}"))),
    }
}

/// A client that believes every certificate: it is here to look, and sends nothing after the handshake.
fn config(recorder: &Arc<Recorder>) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| told("tls_handshake_failed", format!("this worker cannot speak TLS: {error}")))?;
    let verifier: Arc<Recorder> = Arc::clone(recorder);
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Keeps the chain that a server presents, and accepts it.
#[derive(Debug)]
struct Recorder {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    provider: CryptoProvider,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { chain: Mutex::default(), provider: aws_lc_rs::default_provider() }
    }
}

impl Recorder {
    fn take(&self) -> Vec<CertificateDer<'static>> {
        std::mem::take(&mut *self.chain.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        *chain = std::iter::once(end_entity).chain(intermediates).map(|der| der.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        schemes
    }
}
