//! The first user.

use super::passwords::{self, HashError, Passwords};
use keywright_entities::{clock, types::Role, user_account};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    setup::{database::Database, ids},
};
use sea_orm::{DbErr, EntityTrait, Set, sea_query::OnConflict};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// The name of the first user.
pub const FIRST_ADMIN: &str = "admin";

/// What became of the first user.
#[derive(Debug)]
pub enum FirstAdmin {
    /// There are users; the configured password was not looked at.
    Exists,
    /// Made with the configured password.
    Configured,
    /// Made with this password, to be printed once.
    Generated(SecretString),
}

/// Why there is no first user.
#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error("the first user cannot be written: {0}")]
    Database(#[from] DbErr),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(
        "KEYWRIGHT_ADMIN_PASSWORD is empty; set a password of at least {} characters, or unset it to have one made",
        passwords::MIN_LENGTH
    )]
    Empty,
}

/// Makes the user `admin` when there is no user at all. Of several processes that start at once, one does.
///
/// # Errors
/// [`BootstrapError`] when the user cannot be written.
pub async fn first_admin(
    db: &Database,
    passwords: &Passwords,
    configured: Option<&SecretString>,
) -> Result<FirstAdmin, BootstrapError> {
    if user_account::any(db.reader()).await? {
        return Ok(FirstAdmin::Exists);
    }
    let (password, generated) = match configured {
        Some(password) => (password.clone(), false),
        None => (passwords::generate()?, true),
    };
    let length = password.expose_secret().chars().count();
    if length == 0 {
        return Err(BootstrapError::Empty);
    }
    if length < passwords::MIN_LENGTH {
        tracing::warn!(
            minimum = passwords::MIN_LENGTH,
            "KEYWRIGHT_ADMIN_PASSWORD is short; change the password of admin"
        );
    } else if passwords::is_common(&password, FIRST_ADMIN) {
        tracing::warn!("KEYWRIGHT_ADMIN_PASSWORD is among the first that are guessed; change the password of admin");
    }
    let hash = passwords.hash(password.clone()).await?;
    match (insert(db, hash, generated).await?, generated) {
        (false, _) => Ok(FirstAdmin::Exists),
        (true, false) => Ok(FirstAdmin::Configured),
        (true, true) => Ok(FirstAdmin::Generated(password)),
    }
}

/// False when another process was faster: the name is unique.
async fn insert(db: &Database, hash: String, generated: bool) -> Result<bool, DbErr> {
    let write = db.begin().await?;
    if user_account::any(&*write).await? {
        return Ok(false);
    }
    let (id, now) = (ids::new(), clock::micros(clock::now(&*write).await?));
    let row = user_account::ActiveModel {
        id: Set(id),
        name: Set(FIRST_ADMIN.to_owned()),
        name_key: Set(user_account::name_key(FIRST_ADMIN)),
        password_hash: Set(Some(hash)),
        password_generated: Set(generated),
        role: Set(Role::Admin),
        disabled: Set(false),
        subscriptions: Set(None),
        sso_issuer: Set(None),
        sso_subject: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    let insert = user_account::Entity::insert(row).on_conflict(OnConflict::new().do_nothing().to_owned());
    if insert.exec_without_returning(&*write).await? != 1 {
        return Ok(false);
    }
    let event = Event::new(EventType::UserCreated, Actor::SYSTEM, "user").subject(id);
    event.detail("name", FIRST_ADMIN).detail("role", Role::Admin.as_str()).write(&*write).await?;
    write.commit().await?;
    Ok(true)
}
