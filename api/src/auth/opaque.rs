//! Tokens that say nothing: 256 random bits, of which only the hash is kept.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use keywright_jobs::setup::ids::{self, NoRandomness};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What API tokens begin with, so that people and secret scanners know them.
pub const API_PREFIX: &str = "kw_";
/// What refresh tokens begin with.
pub const REFRESH_PREFIX: &str = "kwr_";

/// Characters of a token that may be shown afterwards: the prefix and six more, of 43.
const HINT: usize = 9;

/// A new token of this prefix.
///
/// # Errors
/// When the system gives no randomness.
pub fn generate(prefix: &str) -> Result<SecretString, NoRandomness> {
    let random = Zeroizing::new(ids::random::<32>()?);
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random.as_slice())).into())
}

/// What is stored of a token. With 256 random bits behind it a plain hash cannot be guessed back.
pub fn hash(token: &str) -> String {
    hex::encode(digest(&SHA256, token.as_bytes()))
}

/// The beginning of a token, by which its owner knows it again.
pub fn hint(token: &SecretString) -> String {
    token.expose_secret().chars().take(HINT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_new_and_hashed() {
        let (one, two) = (generate(API_PREFIX).unwrap(), generate(API_PREFIX).unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert_eq!(one.expose_secret().len(), "kw_".len() + 43);
        assert!(one.expose_secret().starts_with(&hint(&one)));
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
