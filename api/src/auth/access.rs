//! Access tokens: JWTs (RFC 7519, profile of RFC 9068) that live fifteen minutes and name a session.
//!
//! What a token says about its own verification is not believed: one algorithm, our keys only, no key or address from the
//! token (RFC 8725).

use super::signing_keys::SigningKeys;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, Header, Validation};
use keywright_jobs::setup::{ids, signing_keys::ALGORITHM};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long an access token lives.
pub const LIFETIME: TimeDelta = TimeDelta::minutes(15);
/// How far the clocks of two API processes may be apart.
const LEEWAY: TimeDelta = TimeDelta::seconds(30);
/// Ours have some 600 bytes; anything much longer is not worth parsing.
pub const MAX_BYTES: usize = 4096;

const ISSUER: &str = "keywright";
const AUDIENCE: &str = "keywright-api";
const TYPE: &str = "at+jwt";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user.
    pub sub: Uuid,
    /// The session.
    pub sid: Uuid,
    pub exp: i64,
    pub nbf: i64,
    pub iat: i64,
    pub jti: Uuid,
}

/// The whole header that is accepted: with `jwk`, `jku`, `x5u`, `crit` or anything else a token is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// Why an access token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It is none of ours.
    Invalid,
    /// It names a key that is not known here.
    UnknownKey,
    /// It is ours, and was valid once.
    Expired,
}

/// Makes a token for a session; tells also when it ends.
///
/// # Errors
/// When the key does not sign.
pub fn mint(
    keys: &SigningKeys,
    user: Uuid,
    session: Uuid,
    now: DateTime<Utc>,
    session_ends: DateTime<Utc>,
) -> Result<(SecretString, DateTime<Utc>), jsonwebtoken::errors::Error> {
    let ends = (now + LIFETIME).min(session_ends);
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: user,
        sid: session,
        exp: ends.timestamp(),
        nbf: now.timestamp(),
        iat: now.timestamp(),
        jti: ids::new(),
    };
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TYPE.to_owned());
    header.kid = Some(keys.kid.clone());
    Ok((jsonwebtoken::encode(&header, &claims, &keys.signer)?.into(), ends))
}

/// The user and session that a token names, if it is ours and in time.
///
/// # Errors
/// [`Rejected`] tells only whether it was valid once.
pub fn verify(keys: &SigningKeys, token: &str, now: DateTime<Utc>) -> Result<(Uuid, Uuid), Rejected> {
    if token.len() > MAX_BYTES {
        return Err(Rejected::Invalid);
    }
    let (header, _) = token.split_once('.').ok_or(Rejected::Invalid)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Rejected::Invalid)?;
    let header: AcceptedHeader = serde_json::from_slice(&header).map_err(|_| Rejected::Invalid)?;
    if header.alg != ALGORITHM || header.typ != TYPE {
        return Err(Rejected::Invalid);
    }
    let key = keys.verifiers.get(&header.kid).ok_or(Rejected::UnknownKey)?;
    let claims: Claims = jsonwebtoken::decode(token, key, &validation()).map_err(|_| Rejected::Invalid)?.claims;
    let time = |seconds| DateTime::from_timestamp(seconds, 0).ok_or(Rejected::Invalid);
    if time(claims.nbf)? > now + LEEWAY || time(claims.iat)? > now + LEEWAY {
        return Err(Rejected::Invalid);
    }
    if time(claims.exp)? <= now { Err(Rejected::Expired) } else { Ok((claims.sub, claims.sid)) }
}

/// Times are checked by our clock, not by the library's.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

#[cfg(test)]
mod tests;
