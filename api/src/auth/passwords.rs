//! Passwords: argon2id (RFC 9106) at OWASP's floor, a bounded number of hashes at once, and the same work for every attempt.

mod common;

use crate::error::ApiError;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use keywright_jobs::setup::ids;
use secrecy::{ExposeSecret, SecretString};
use std::{num::NonZeroUsize, sync::Arc, thread::available_parallelism};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// OWASP's floor for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Fewest characters of a password that a person sets.
pub const MIN_LENGTH: usize = 12;
/// Most characters, so that nobody has megabytes hashed.
pub const MAX_LENGTH: usize = 1024;

/// 32 characters that people do not mistake for each other: five bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const GENERATED_LENGTH: usize = 24;

/// How many may wait for each hash that is made at once: the last one of them waits less than a second.
const WAITING: usize = 32;
/// When whoever is not let in to wait may come again.
const BUSY_SECONDS: u32 = 1;

/// A password could not be hashed or compared.
#[derive(Debug, Error)]
pub enum HashError {
    #[error("too many passwords are waiting to be hashed; try again in a second")]
    Busy,
    #[error("passwords cannot be hashed now: {0}")]
    Failed(&'static str),
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::rate_limited(BUSY_SECONDS),
            HashError::Failed(_) => Self::internal(error),
        }
    }
}

/// Hashes and compares, never on more threads than leave one core to everything else.
#[derive(Clone)]
pub struct Passwords {
    /// Those that are hashed and those that wait.
    places: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    /// The hash of nobody's password: unknown users cost as much as known ones.
    decoy: Arc<str>,
}

/// A place among those whose passwords are compared. Whoever has none does nothing that costs: neither hashing nor the database.
#[derive(Clone)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Passwords {
    /// # Errors
    /// [`HashError`] when the system gives no randomness.
    pub fn new() -> Result<Self, HashError> {
        let slots = available_parallelism().map_or(1, NonZeroUsize::get).saturating_sub(1).max(1);
        let decoy = hash(&generate()?)?.into();
        let places = Arc::new(Semaphore::new(slots * (1 + WAITING)));
        Ok(Self { places, slots: Arc::new(Semaphore::new(slots)), decoy })
    }

    /// The PHC string to be stored.
    ///
    /// # Errors
    /// [`HashError::Busy`] at once when too many wait; otherwise when the system gives no randomness or memory.
    pub async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        let place = self.enter()?;
        self.run(place, move || hash(&password)).await
    }

    /// To be asked before anything else of an attempt, and kept to its end: a flood of them must not fill the database's pool.
    ///
    /// # Errors
    /// [`HashError::Busy`] at once when too many wait.
    pub fn enter(&self) -> Result<Place, HashError> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| HashError::Busy)?;
        Ok(Place { _permit: Arc::new(permit) })
    }

    /// Whether it is the password whose PHC string was stored. None stored: no, after the same work.
    ///
    /// # Errors
    /// [`HashError::Failed`] when the system gives no memory or the stored text is no PHC string.
    pub async fn verify(&self, place: &Place, password: SecretString, stored: Option<&str>) -> Result<bool, HashError> {
        let known = stored.is_some();
        let phc: Arc<str> = stored.map_or_else(|| Arc::clone(&self.decoy), Into::into);
        let same = self.run(place.clone(), move || compare(&password, &phc)).await?;
        Ok(same && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| HashError::Failed("shutting down"))?;
        // Slot and place go into the thread: a client that hangs up frees them only when the work is done.
        let job = move || {
            let outcome = work();
            drop((slot, place));
            outcome
        };
        tokio::task::spawn_blocking(job).await.map_err(|_| HashError::Failed("the hashing thread failed"))?
    }
}

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError::Failed("wrong parameters"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &SecretString) -> Result<String, HashError> {
    let salt = ids::random::<16>().map_err(|_| HashError::Failed("no randomness"))?;
    let phc = argon2()?.hash_password_with_salt(password.expose_secret().as_bytes(), &salt);
    Ok(phc.map_err(|_| HashError::Failed("argon2 failed"))?.to_string())
}

fn compare(password: &SecretString, phc: &str) -> Result<bool, HashError> {
    use argon2::password_hash::Error;
    match argon2()?.verify_password(password.expose_secret().as_bytes(), phc) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(HashError::Failed("argon2 failed")),
    }
}

/// Lets a password through that a person may choose: long enough, and no first guess. There are no rules about its characters
/// (NIST SP 800-63B, 3.1.1.2). `name` is that of its owner, `pointer` the field that it came in.
///
/// # Errors
/// 400.
pub fn check(password: &SecretString, name: &str, pointer: &str) -> Result<(), ApiError> {
    let length = password.expose_secret().chars().count();
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&length) {
        let message = format!("Choose {MIN_LENGTH} to {MAX_LENGTH} characters.");
        return Err(ApiError::invalid(pointer, "length", message));
    }
    if is_common(password, name) {
        let message = "This is one of the first passwords that are guessed. Choose another, such as several words.";
        return Err(ApiError::invalid(pointer, "common", message));
    }
    Ok(())
}

/// Whether it is one that is guessed first for a user of this name.
pub fn is_common(password: &SecretString, name: &str) -> bool {
    common::is_common(password.expose_secret(), &["keywright", name])
}

/// A password of 120 random bits that can be read aloud.
///
/// # Errors
/// [`HashError`] when the system gives no randomness.
pub fn generate() -> Result<SecretString, HashError> {
    let random = ids::random::<GENERATED_LENGTH>().map_err(|_| HashError::Failed("no randomness"))?;
    let letters = random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)).copied());
    Ok(letters.map(char::from).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_passes_and_no_hash_repeats() {
        let passwords = Passwords::new().unwrap();
        let first = passwords.hash("correct horse".into()).await.unwrap();
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, passwords.hash("correct horse".into()).await.unwrap());
        let place = passwords.enter().unwrap();
        assert!(passwords.verify(&place, "correct horse".into(), Some(&first)).await.unwrap());
        assert!(!passwords.verify(&place, "correct horse ".into(), Some(&first)).await.unwrap());
        assert!(!passwords.verify(&place, "correct horse".into(), None).await.unwrap());
        assert!(passwords.verify(&place, "correct horse".into(), Some("plain")).await.is_err());
    }

    #[tokio::test]
    async fn whoever_comes_when_too_many_wait_is_sent_away_at_once() {
        let passwords = Passwords { slots: Arc::new(Semaphore::new(0)), ..Passwords::new().unwrap() };
        let most = passwords.places.available_permits();
        let mut waiting: Vec<_> = (0..most).map(|_| Box::pin(passwords.hash("x".into()))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        assert!(matches!(passwords.enter(), Err(HashError::Busy)));
        assert!(matches!(passwords.hash("x".into()).await, Err(HashError::Busy)));
        // who hangs up makes room
        waiting.pop();
        let place = passwords.enter().unwrap();
        assert!(matches!(passwords.enter(), Err(HashError::Busy)));
        drop(waiting);
        passwords.slots.add_permits(1);
        assert!(!passwords.verify(&place, "x".into(), None).await.unwrap());
        drop(place);
        assert_eq!(passwords.places.available_permits(), most);
    }

    #[test]
    fn generated_passwords_are_long_plain_and_new() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert_eq!(one.expose_secret().len(), GENERATED_LENGTH);
        assert!(one.expose_secret().bytes().all(|byte| ALPHABET.contains(&byte)));
        assert!(!format!("{one:?}").contains(one.expose_secret()));
    }
}
