//! PKCS#12 archives (RFC 7292).
//!
//! `Pkcs12Archive` and not `KeyStore` of the crate: the latter drops certificates that have neither a key nor a trust mark.
//! The crate decrypts the archive's keys with its certificates and offers no way around it, nor does it wipe them: they are
//! counted and dropped at once, before anything else happens.

use p12_keystore::{Pkcs12Archive, error::Error};
use secrecy::{ExposeSecret, SecretString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use thiserror::Error;

/// What is known of an archive's password.
#[derive(Clone, Debug)]
pub enum Password {
    /// The settings name none for this path; the empty password is tried.
    NotGiven,
    Known(SecretString),
    /// The settings name one that cannot be had; the text says why and is free of secrets.
    Unavailable(String),
}

/// What an archive holds.
#[derive(Debug, Default)]
pub struct Archive {
    /// DER, in the archive's order.
    pub certificates: Vec<Vec<u8>>,
    /// How many private and secret keys.
    pub keys: usize,
    /// Whether it was opened with a password that is not empty.
    pub needs_password: bool,
}

/// Why an archive was not opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("the archive needs a password and the settings name none for it under `pkcs12Passwords`")]
    PasswordMissing,
    #[error("the archive's password cannot be had: {0}")]
    PasswordUnavailable(String),
    #[error("the password that the settings name does not open the archive")]
    WrongPassword,
    #[error("the PKCS#12 archive is damaged or uses a form that is not supported (only DER is)")]
    Invalid,
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::PasswordMissing | Self::PasswordUnavailable(_) => "password_missing",
            Self::WrongPassword => "wrong_password",
            Self::Invalid => "pkcs12_invalid",
        }
    }
}

/// Opens an archive.
///
/// # Errors
/// [`Refusal`]: the password, or the archive itself.
pub fn read(bytes: &[u8], password: &Password) -> Result<Archive, Refusal> {
    let secret = match password {
        Password::NotGiven => "",
        Password::Known(secret) => secret.expose_secret(),
        Password::Unavailable(reason) => return Err(Refusal::PasswordUnavailable(reason.clone())),
    };
    // the decoder stands on pre-release crates: a panic in it may cost this file, not the scan
    let opened = catch_unwind(AssertUnwindSafe(|| open(bytes, secret))).map_err(|_| Refusal::Invalid)?;
    opened.map_err(|error| match (error, password) {
        (Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_), Password::NotGiven) => Refusal::PasswordMissing,
        (Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_), _) => Refusal::WrongPassword,
        _ => Refusal::Invalid,
    })
}

fn open(bytes: &[u8], secret: &str) -> Result<Archive, Error> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, secret)?;
    let keys = archive.keys.len() + archive.secrets.len();
    let Pkcs12Archive { certs, keys: decrypted, secrets } = archive;
    drop((decrypted, secrets));
    let certificates = certs.into_iter().map(|bag| bag.cert.as_der().to_vec()).collect();
    Ok(Archive { certificates, keys, needs_password: !secret.is_empty() })
}
