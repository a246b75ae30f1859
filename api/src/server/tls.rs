//! TLS with a certificate that may be exchanged while connections are open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why a certificate cannot be served. Shows nothing of the key.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{path} cannot be read: {source}; name a file that this process may read")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path} holds no certificate; it must be the chain in PEM, the server's own certificate first")]
    NoCertificate { path: String },
    #[error("{path} holds no private key; it must be the certificate's key in PEM, not encrypted")]
    NoKey { path: String },
    #[error(
        "the key in {key} is not that of the first certificate in {cert}, or of a kind that is not supported: {reason}"
    )]
    Mismatch { cert: String, key: String, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The certificate in force, and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    seen: RwLock<(Files, Arc<CertifiedKey>)>,
}

/// What the files held when they were last taken over.
#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(cert, key)?;
        let certified = Arc::new(files.certified(cert, key)?);
        Ok(Arc::new(Self { cert: cert.to_owned(), key: key.to_owned(), seen: RwLock::new((files, certified)) }))
    }

    /// Ends TLS with it: versions 1.2 and 1.3.
    ///
    /// # Errors
    /// When the library has none of the versions.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Takes over what the files hold, if that has changed; says whether it had. What cannot be served leaves the certificate as
    /// it is.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn reload(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.cert, &self.key)?;
        if self.seen.read().unwrap_or_else(PoisonError::into_inner).0 == files {
            return Ok(false);
        }
        let certified = Arc::new(files.certified(&self.cert, &self.key)?);
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = (files, certified);
        Ok(true)
    }

    /// Looks at the files again and again until `stop`. Open connections keep the certificate that they began with.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut told = String::new();
        while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
            match self.reload() {
                Ok(changed) => {
                    told.clear();
                    if changed {
                        tracing::info!("the TLS certificate was exchanged");
                    }
                }
                // two files are not exchanged at once, so that it may be right a moment later
                Err(error) if told != error.to_string() => {
                    tracing::warn!(%error, "the TLS certificate stays as it was");
                    told = error.to_string();
                }
                Err(_) => {}
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.seen.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

impl Files {
    fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.display().to_string(), source })
        };
        Ok(Self { cert: read(cert)?, key: Zeroizing::new(read(key)?) })
    }

    fn certified(&self, cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
        let (cert_path, key_path) = (cert.display().to_string(), key.display().to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| TlsError::NoCertificate { path: cert_path.clone() })?;
        let private =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NoKey { path: key_path.clone() })?;
        CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::Mismatch {
            cert: cert_path,
            key: key_path,
            reason: error.to_string(),
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
