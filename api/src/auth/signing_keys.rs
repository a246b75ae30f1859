//! The keys that sign access tokens: Ed25519, the private half sealed in the database, one current key per instance.
//!
//! A new key takes over at once: whoever meets a token of a key that it does not know looks into the database. The one before
//! it verifies for another hour, which is longer than its last token lives and than any process takes to hear of the change.

use chrono::TimeDelta;
use jsonwebtoken::{DecodingKey, EncodingKey};
use keywright_entities::{clock, signing_key};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    setup::{
        database::{Database, Write},
        sealing::{SealError, Sealing, places::signing_key as binding},
        signing_keys::NewKey,
    },
};
use poem_openapi::Object;
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter,
    sea_query::{Expr, ExprTrait},
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
        let key = generate()?;
        let jwk = public(&key)?;
        let verifier = DecodingKey::from_ed_components(&jwk.x).map_err(|_| KeyError::Generate)?;
        Ok(Self {
            kid: jwk.kid.clone(),
            signer: EncodingKey::from_ed_der(&key.document),
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
    let key = generate()?;
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
    store(&write, sealing, &key).await?;
    Event::new(EventType::SigningKeyRotated, Actor::SYSTEM, "signing_key")
        .subject(&key.kid)
        .detail("previous", old.kid)
        .write(&*write)
        .await?;
    write.commit().await?;
    Ok(true)
}

async fn create(db: &Database, sealing: &Sealing) -> Result<(), KeyError> {
    let write = db.begin().await?;
    store(&write, sealing, &generate()?).await?;
    Ok(write.commit().await?)
}

async fn store(write: &Write, sealing: &Sealing, key: &NewKey) -> Result<(), KeyError> {
    let now = clock::micros(clock::now(&**write).await?);
    key.store(write, sealing, signing_key::TOKEN, now, None).await
}

fn generate() -> Result<NewKey, KeyError> {
    NewKey::generate().map_err(|_| KeyError::Generate)
}

fn public(key: &NewKey) -> Result<Jwk, KeyError> {
    serde_json::from_value(key.jwk()).map_err(|_| KeyError::Form { kid: key.kid.clone() })
}
