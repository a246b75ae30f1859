//! Making keys that sign: Ed25519 pairs, the public half as a JWK (RFC 8037), the private one sealed.

use super::{
    database::Write,
    sealing::{SealError, Sealing, places::signing_key as binding},
};
use aws_lc_rs::{
    digest::{SHA256, digest},
    error::Unspecified,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use keywright_entities::signing_key;
use sea_orm::{DbErr, EntityTrait, Set, sea_query::OnConflict};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The only algorithm that this program signs with and accepts.
pub const ALGORITHM: &str = "EdDSA";

/// A key that is not stored yet. Has neither `Debug` nor `Serialize`.
pub struct NewKey {
    /// The private half as PKCS#8.
    pub document: Zeroizing<Vec<u8>>,
    pub public: Vec<u8>,
    /// The thumbprint of the public half (RFC 7638), by which the key is known.
    pub kid: String,
}

impl NewKey {
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Unspecified> {
        let pair = Ed25519KeyPair::generate()?;
        let document = Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec());
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { document, kid: thumbprint(&public), public })
    }

    /// The public half (RFC 7517, RFC 8037).
    pub fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(&self.public);
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "alg": ALGORITHM, "use": "sig"})
    }

    /// Keeps it as the current key of its purpose, unless there is one: the unique index lets one process win, and the others read
    /// its key.
    ///
    /// # Errors
    /// When it cannot be sealed or written.
    pub async fn store<E: From<SealError> + From<DbErr>>(
        &self,
        write: &Write,
        sealing: &Sealing,
        purpose: &str,
        now: DateTime<Utc>,
        voucher: Option<String>,
    ) -> Result<(), E> {
        let sealed = sealing.seal(&**write, &binding(&self.kid), &self.document).await?;
        let row = signing_key::ActiveModel {
            kid: Set(self.kid.clone()),
            algorithm: Set(ALGORITHM.to_owned()),
            public_jwk: Set(self.jwk()),
            key_id: Set(sealed.key_id),
            sealed_private: Set(sealed.bytes),
            created_at: Set(now),
            retires_at: Set(None),
            purpose: Set(purpose.to_owned()),
            voucher: Set(voucher),
        };
        signing_key::Entity::insert(row)
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .exec_without_returning(&**write)
            .await?;
        Ok(())
    }
}

/// By which a public key is known (RFC 7638, 3: the required members in lexical order, without white space).
pub fn thumbprint(public: &[u8]) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(public));
    URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and thumbprint of RFC 8037, appendix A.3.
    #[test]
    fn thumbprint_of_the_rfc() {
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(thumbprint(&public), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
