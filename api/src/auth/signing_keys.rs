//! The keys that sign access tokens: Ed25519, the private half sealed in the database, one current key per instance.
//!
//! A new key takes over at once: whoever meets a token of a key that it does not know looks into the database. The one before
//! it verifies for another hour, which is longer than its last token lives and than any process takes to hear of the change.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::{DecodingKey, EncodingKey};
use keywright_entities::{clock, signing_key};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    setup::{
        database::{Database, Write},
        sealing::{SealError, Sealing, places::signing_key as binding},
    },
};
use poem_openapi::Object;
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter, Set,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// The only algorithm that this program signs with and accepts.
pub const ALGORITHM: &str = "EdDSA";
/// How long a key verifies after another one took over.
const OVERLAP: TimeDelta = TimeDelta::hours(1);
/// How often tokens of unknown keys may make a process ask the database.
const ASK_EVERY: Duration = Duration::from_secs(1);

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

    /// A set of one key that is kept nowhere: for trying what [`super::access`] accepts.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn unstored() -> Result<Self, KeyError> {
        let (document, jwk) = pair()?;
        let verifier = DecodingKey::from_ed_components(&jwk.x).map_err(|_| KeyError::Generate)?;
        Ok(Self {
            kid: jwk.kid.clone(),
            signer: EncodingKey::from_ed_der(&document),
            verifiers: [(jwk.kid.clone(), verifier)].into(),
            jwks: vec![jwk],
        })
    }

    /// The public keys, oldest first.
    pub fn jwks(&self) -> &[Jwk] {
        &self.jwks
    }
}

/// The keys as the database last told them, for every request to take.
pub struct KeyRing {
    db: Database,
    sealing: Sealing,
    /// `None` = only the operator rotates.
    age: Option<TimeDelta>,
    keys: RwLock<Arc<SigningKeys>>,
    /// When the database was last asked because of a token.
    asked: Mutex<Option<Instant>>,
}

impl KeyRing {
    /// # Errors
    /// As [`SigningKeys::load`].
    pub async fn load(db: &Database, sealing: &Sealing, age: Option<TimeDelta>) -> Result<Self, KeyError> {
        let keys = RwLock::new(Arc::new(SigningKeys::load(db, sealing).await?));
        Ok(Self { db: db.clone(), sealing: sealing.clone(), age, keys, asked: Mutex::default() })
    }

    pub fn current(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a new key when the present one is old enough, and hears of keys that others took.
    ///
    /// # Errors
    /// [`KeyError`]; the keys known so far stay in force.
    pub async fn refresh(&self) -> Result<(), KeyError> {
        if let Some(age) = self.age {
            rotate(&self.db, &self.sealing, When::OlderThan(age)).await?;
        }
        let keys = Arc::new(SigningKeys::load(&self.db, &self.sealing).await?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The keys after the database was asked for one that is not known here. Made-up names cost a query a second.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn after_asking(&self) -> Result<Arc<SigningKeys>, KeyError> {
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            self.refresh().await?;
            *asked = Some(Instant::now());
        }
        Ok(self.current())
    }
}

/// When a new key is taken.
#[derive(Clone, Copy, Debug)]
pub enum When {
    OlderThan(TimeDelta),
    /// Now; the key before it verifies for its overlap.
    Now,
    /// Now, and no token of the key before it is accepted any more.
    NowAlone,
}

/// Takes a new key; tells whether it did. Of several processes that want to at once, one does.
///
/// # Errors
/// [`KeyError`].
pub async fn rotate(db: &Database, sealing: &Sealing, when: When) -> Result<bool, KeyError> {
    let sql = |ms: i64| Expr::cust(clock::sql(db.backend(), ms));
    let (age, overlap) = match when {
        When::OlderThan(age) => (age.num_milliseconds(), OVERLAP.num_milliseconds()),
        When::Now => (0, OVERLAP.num_milliseconds()),
        When::NowAlone => (0, 0),
    };
    let of_tokens = || signing_key::Column::Purpose.eq(signing_key::TOKEN);
    let current = signing_key::Entity::find().filter(of_tokens()).filter(signing_key::Column::RetiresAt.is_null());
    let old = current.filter(signing_key::Column::CreatedAt.into_expr().lte(sql(-age)));
    let Some(old) = old.one(db.reader()).await? else { return Ok(false) };
    let (document, jwk) = pair()?;
    let write = db.begin().await?;
    let retired = signing_key::Entity::update_many()
        .col_expr(signing_key::Column::RetiresAt, sql(overlap))
        .filter(signing_key::Column::Kid.eq(&old.kid))
        .filter(signing_key::Column::RetiresAt.is_null());
    if retired.exec(&*write).await?.rows_affected != 1 {
        write.rollback().await?;
        return Ok(false);
    }
    if matches!(when, When::NowAlone) {
        let others = signing_key::Entity::update_many().col_expr(signing_key::Column::RetiresAt, sql(0));
        others.filter(of_tokens()).exec(&*write).await?;
    }
    signing_key::Entity::delete_many()
        .filter(of_tokens())
        .filter(signing_key::Column::RetiresAt.into_expr().lt(sql(-OVERLAP.num_milliseconds())))
        .exec(&*write)
        .await?;
    insert(&write, sealing, &document, &jwk).await?;
    Event::new(EventType::SigningKeyRotated, Actor::SYSTEM, "signing_key")
        .subject(&jwk.kid)
        .detail("previous", old.kid)
        .write(&*write)
        .await?;
    write.commit().await?;
    Ok(true)
}

async fn create(db: &Database, sealing: &Sealing) -> Result<(), KeyError> {
    let (document, jwk) = pair()?;
    let write = db.begin().await?;
    insert(&write, sealing, &document, &jwk).await?;
    Ok(write.commit().await?)
}

async fn insert(write: &Write, sealing: &Sealing, document: &[u8], jwk: &Jwk) -> Result<(), KeyError> {
    let sealed = sealing.seal(&**write, &binding(&jwk.kid), document).await?;
    let row = signing_key::ActiveModel {
        kid: Set(jwk.kid.clone()),
        algorithm: Set(ALGORITHM.to_owned()),
        public_jwk: Set(serde_json::to_value(jwk).map_err(|_| KeyError::Generate)?),
        key_id: Set(sealed.key_id),
        sealed_private: Set(sealed.bytes),
        created_at: Set(clock::micros(clock::now(&**write).await?)),
        retires_at: Set(None),
        purpose: Set(signing_key::TOKEN.to_owned()),
        voucher: Set(None),
    };
    // The unique index on the current key lets one process win; the others then read its key.
    signing_key::Entity::insert(row)
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(&**write)
        .await?;
    Ok(())
}

/// A new key: its private half as PKCS#8, and its public one.
fn pair() -> Result<(Zeroizing<Vec<u8>>, Jwk), KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
    let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
    let jwk = public_jwk(pair.public_key().as_ref());
    Ok((Zeroizing::new(document.as_ref().to_vec()), jwk))
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
