//! An issuer of licences, which nothing that is shipped is.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keywright_jobs::setup::config::LicenceKey;
use serde_json::Value;
use std::path::PathBuf;
use tempfile::TempDir;

/// The licence of an instance: the issuer's key, and the file.
#[derive(Clone)]
pub struct Terms {
    pub key: LicenceKey,
    pub file: Option<PathBuf>,
}

/// A key pair, and a folder for one licence.
pub struct Issuer {
    key: EncodingKey,
    public: String,
    folder: TempDir,
}

impl Default for Issuer {
    fn default() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key pair");
        let private = pair.to_pkcs8v1().expect("a private key");
        Self {
            key: EncodingKey::from_ed_der(private.as_ref()),
            public: STANDARD.encode(pair.public_key().as_ref()),
            folder: TempDir::new().expect("a temporary folder"),
        }
    }
}

impl Issuer {
    /// The public key, as `KEYWRIGHT_LICENCE_PUBLIC_KEY` takes it.
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// A licence that says this.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { typ: Some("licence+jwt".to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("a signature")
    }

    /// Puts a licence that says this into the file, in place of the one that was there.
    pub fn issue(&self, claims: &Value) -> Terms {
        let terms = self.terms();
        std::fs::write(terms.file.as_ref().expect("a path"), self.sign(claims)).expect("a licence file");
        terms
    }

    /// The key and where the file is.
    pub fn terms(&self) -> Terms {
        let key = self.public.parse().expect("a key");
        Terms { key, file: Some(self.folder.path().join("licence.jwt")) }
    }
}
