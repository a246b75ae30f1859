//! The keys that sign the audit log and evidence: Ed25519, sealed, one at a time, each vouched for by the one before it.
//!
//! They are made when first needed and are kept for ever, since what they have signed is checked for years.

use super::{Actor, Event, EventType};
use crate::setup::{
    database::Database,
    sealing::{SealError, Sealing, places::signing_key as binding},
    signing_keys::{NewKey, thumbprint},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use keywright_entities::{audit_log, clock, signing_key};
use keywright_proof::{
    keys::{KeyEntry, KeyHistory, vouch},
    note::{KeyError as FormError, NoteError, Signer, Verifier},
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, sea_query::Expr};
use secrecy::ExposeSecret;
use serde_json::Value;
use thiserror::Error;

/// Why there is no key to sign with.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("the keys that sign evidence cannot be read or written: {0}")]
    Database(#[from] DbErr),
    #[error("the key that signs evidence does not open: {0}")]
    Seal(#[from] SealError),
    #[error("a key that signs evidence is stored in a form that this version does not know: {0}")]
    Form(#[from] FormError),
    #[error("a statement could not be signed: {0}")]
    Note(#[from] NoteError),
    #[error("a key that signs evidence could not be made")]
    Generate,
}

/// The key that signs now; makes the first one if there is none. Of several processes that want to, one makes it.
///
/// # Errors
/// [`KeyError`].
pub async fn signer(db: &Database, sealing: &Sealing) -> Result<Signer, KeyError> {
    let origin = audit_log::get(db.reader()).await?.origin;
    let current = match current(db.reader()).await? {
        Some(row) => row,
        None => {
            let write = db.begin().await?;
            let now = clock::micros(clock::now(&*write).await?);
            generate()?.store::<KeyError>(&write, sealing, signing_key::EVIDENCE, now, None).await?;
            write.commit().await?;
            current(db.reader()).await?.ok_or(KeyError::Generate)?
        }
    };
    open(&origin, sealing, &current)
}

/// Takes a new key. The one before vouches for it, unless it is `alone`: then it was stolen, and whoever checks must be given the
/// new one. Tells whether it did; of several at once, one does.
///
/// # Errors
/// [`KeyError`].
pub async fn rotate(db: &Database, sealing: &Sealing, alone: bool) -> Result<bool, KeyError> {
    let old = signer(db, sealing).await?;
    let old_kid = thumbprint(old.verifier().public());
    let key = generate()?;
    let write = db.begin().await?;
    let now = clock::micros(clock::now(&*write).await?);
    let retired = signing_key::Entity::update_many()
        .col_expr(signing_key::Column::RetiresAt, Expr::value(now))
        .filter(signing_key::Column::Kid.eq(&old_kid))
        .filter(signing_key::Column::RetiresAt.is_null());
    if retired.exec(&*write).await?.rows_affected != 1 {
        write.rollback().await?;
        return Ok(false);
    }
    let new = Verifier::new(old.verifier().name(), &key.public)?;
    let voucher = if alone { None } else { Some(vouch(&old, &new, &time(now))?.to_string()) };
    key.store::<KeyError>(&write, sealing, signing_key::EVIDENCE, now, voucher).await?;
    Event::new(EventType::EvidenceKeyRotated, Actor::SYSTEM, "evidence_key")
        .subject(new.id())
        .detail("previous", old.verifier().id())
        .detail("vouched", !alone)
        .write(&*write)
        .await?;
    write.commit().await?;
    Ok(true)
}

/// The public keys, oldest first.
///
/// # Errors
/// When the database cannot be read.
pub async fn history(db: &impl ConnectionTrait) -> Result<KeyHistory, KeyError> {
    let origin = audit_log::get(db).await?.origin;
    let entry = |row: signing_key::Model| {
        Ok(KeyEntry {
            verifier_key: Verifier::new(&origin, &public_of(&row.public_jwk)?)?.to_string(),
            created_at: time(row.created_at),
            retired_at: row.retires_at.map(time),
            voucher: row.voucher,
        })
    };
    let rows = signing_key::evidence(db).await?;
    Ok(KeyHistory { keys: rows.into_iter().map(entry).collect::<Result<_, KeyError>>()? })
}

/// An instant as the log and all that is signed spell it: UTC with microseconds.
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

async fn current(db: &impl ConnectionTrait) -> Result<Option<signing_key::Model>, DbErr> {
    let rows = signing_key::evidence(db).await?;
    Ok(rows.into_iter().find(|row| row.retires_at.is_none()))
}

fn open(origin: &str, sealing: &Sealing, row: &signing_key::Model) -> Result<Signer, KeyError> {
    let private = sealing.open(&binding(&row.kid), &row.sealed_private)?;
    Ok(Signer::from_pkcs8(origin, private.expose_secret())?)
}

fn generate() -> Result<NewKey, KeyError> {
    NewKey::generate().map_err(|_| KeyError::Generate)
}

fn public_of(jwk: &Value) -> Result<Vec<u8>, KeyError> {
    let x = jwk.get("x").and_then(Value::as_str).unwrap_or_default();
    URL_SAFE_NO_PAD.decode(x).map_err(|_| FormError::Kind.into())
}
