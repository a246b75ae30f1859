//! The keys that sign access tokens: Ed25519, the private half sealed in the database, one current key per instance.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use keywright_entities::{clock, signing_key};
use keywright_jobs::setup::{
    database::Database,
    sealing::{Binding, SealError, Sealing},
};
use poem_openapi::Object;
use sea_orm::{DbErr, EntityTrait, Set, sea_query::OnConflict};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use thiserror::Error;

/// The only algorithm that this program signs with and accepts.
pub const ALGORITHM: &str = "EdDSA";

/// A public key by which others can check our tokens (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Object)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The public key, base64url.
    pub x: String,
    /// The key's thumbprint (RFC 7638).
    pub kid: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    #[oai(rename = "use")]
    pub usage: String,
}

/// Why there is no key to sign with.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("the signing keys cannot be read or written: {0}")]
    Database(#[from] DbErr),
    #[error("the signing key does not open: {0}")]
    Seal(#[from] SealError),
    #[error("the signing key {kid} is stored in a form that this version does not know")]
    Form { kid: String },
    #[error("a signing key could not be made")]
    Generate,
}

/// The current key and those that still verify. Has neither `Debug` nor `Serialize`.
pub struct SigningKeys {
    pub(super) kid: String,
    pub(super) signer: EncodingKey,
    pub(super) verifiers: HashMap<String, DecodingKey>,
    jwks: Vec<Jwk>,
}

impl SigningKeys {
    /// Loads the keys; makes the first one if there is none. Of several processes that start at once, one makes it.
    ///
    /// # Errors
    /// [`KeyError`] when the database or the sealed key cannot be read.
    pub async fn load(db: &Database, sealing: &Sealing) -> Result<Self, KeyError> {
        let mut rows = signing_key::accepted(db.reader()).await?;
        if rows.iter().all(|row| row.retires_at.is_some()) {
            create(db, sealing).await?;
            rows = signing_key::accepted(db.reader()).await?;
        }
        let current = rows.iter().find(|row| row.retires_at.is_none()).ok_or(KeyError::Generate)?;
        let private = sealing.open(&binding(&current.kid), &current.sealed_private)?;
        let mut keys = Self {
            kid: current.kid.clone(),
            signer: EncodingKey::from_ed_der(private.expose_secret()),
            verifiers: HashMap::new(),
            jwks: Vec::new(),
        };
        for row in rows {
            let form = || KeyError::Form { kid: row.kid.clone() };
            let jwk: Jwk = serde_json::from_value(row.public_jwk.clone()).map_err(|_| form())?;
            let verifier = DecodingKey::from_ed_components(&jwk.x).map_err(|_| form())?;
            keys.verifiers.insert(row.kid.clone(), verifier);
            keys.jwks.push(jwk);
        }
        Ok(keys)
    }

    /// The public keys, oldest first.
    pub fn jwks(&self) -> &[Jwk] {
        &self.jwks
    }
}

fn binding(kid: &str) -> Binding<'_> {
    Binding { table: "signing_key", record: kid, purpose: "private key" }
}

async fn create(db: &Database, sealing: &Sealing) -> Result<(), KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
    let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
    let jwk = public_jwk(pair.public_key().as_ref());
    let sealed = sealing.seal(&binding(&jwk.kid), document.as_ref())?;
    let write = db.begin().await?;
    let row = signing_key::ActiveModel {
        kid: Set(jwk.kid.clone()),
        algorithm: Set(ALGORITHM.to_owned()),
        public_jwk: Set(serde_json::to_value(&jwk).map_err(|_| KeyError::Generate)?),
        key_id: Set(sealed.key_id),
        sealed_private: Set(sealed.bytes),
        created_at: Set(clock::micros(clock::now(&*write).await?)),
        retires_at: Set(None),
    };
    // The unique index on the current key lets one process win; the others then read its key.
    signing_key::Entity::insert(row)
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(&*write)
        .await?;
    Ok(write.commit().await?)
}

fn public_jwk(public: &[u8]) -> Jwk {
    let x = URL_SAFE_NO_PAD.encode(public);
    // RFC 7638, 3: the required members in lexical order, without white space.
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x,
        kid: URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes())),
        alg: ALGORITHM.to_owned(),
        usage: "sig".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and thumbprint of RFC 8037, appendix A.3.
    #[test]
    fn thumbprint_of_the_rfc() {
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(public_jwk(&public).kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
