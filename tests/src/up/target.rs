//! What is looked at: this machine's trust store, or what the command line names.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where systems keep the certificates that they trust: Debian, Fedora, macOS and Alpine.
const TRUST_STORES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A `local` subscription to be.
#[derive(Debug)]
pub struct Target {
    /// By which later runs find it again.
    pub external_id: String,
    pub name: String,
    pub path: PathBuf,
}

impl Target {
    /// # Errors
    /// When `path` does not exist, and when this machine has no trust store at a place that we know.
    pub fn choose(path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path {
            let path = path.canonicalize().with_context(|| format!("{} cannot be read", path.display()))?;
            let name = path.display().to_string();
            return Ok(Self { external_id: name.clone(), name, path });
        }
        let found = TRUST_STORES.iter().map(PathBuf::from).chain(named()).find(|path| path.exists());
        let path = found.context(
            "no trust store at a place that is usual for Debian, Fedora, macOS or Alpine; name a bundle of certificates \
             in SSL_CERT_FILE, or anything else to scan with --path",
        )?;
        Ok(Self { external_id: "this-machine".to_owned(), name: "This machine's trust store".to_owned(), path })
    }
}

/// As OpenSSL lets users name theirs.
fn named() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the variable is OpenSSL's, not a setting of Keywright")]
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_path_is_its_own_subscription_and_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::choose(Some(directory.path())).unwrap();
        assert!(target.path.is_absolute());
        assert_eq!(target.external_id, target.path.display().to_string());
        let missing = directory.path().join("missing");
        let error = Target::choose(Some(&missing)).unwrap_err().to_string();
        assert!(error.contains("missing cannot be read"), "{error}");
    }
}
