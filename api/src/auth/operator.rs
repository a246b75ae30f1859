//! What an operator does at the command line, directly on the database: nobody has to be able to sign in for it.

use super::{
    api_tokens::{self, InsertError, NewToken},
    passwords::{self, HashError, Passwords},
    permissions, sessions,
};
use chrono::TimeDelta;
use keywright_entities::{
    clock,
    session::{self, Which},
    types::Role,
    user_account,
};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    setup::database::Database,
};
use sea_orm::DbErr;
use secrecy::SecretString;
use thiserror::Error;

/// Why a command was not carried out. Nothing was changed.
#[derive(Debug, Error)]
pub enum OperatorError {
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    #[error(
        "{0:?} comes in by single sign-on and has no password here; give another user the role, or make a token with create-token"
    )]
    SingleSignOn(String),
    #[error("there is no administrator who may sign in; start keywright-api once, or name another owner with --user")]
    NoAdmin,
    #[error("the role {wanted} can do more than {user}, whose role is {role}; choose a lower role or another owner")]
    RoleTooHigh { wanted: Role, user: String, role: Role },
    #[error("{0:?} is no span of time; write a whole number and one of m, h, d, such as 365d")]
    Span(String),
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Insert(#[from] InsertError),
}

/// `token create`: makes an API token that acts for `user` (the first administrator, when none is named) and returns it, to
/// be printed once.
///
/// # Errors
/// [`OperatorError`] for an unknown owner and for a role beyond the owner's.
pub async fn create_token(
    db: &Database,
    name: &str,
    role: Role,
    user: Option<&str>,
    expires_in: Option<TimeDelta>,
) -> Result<SecretString, OperatorError> {
    let write = db.begin().await?;
    let owner = match user {
        Some(name) => {
            user_account::by_name(&*write, name).await?.ok_or_else(|| OperatorError::NoSuchUser(name.to_owned()))?
        }
        None => user_account::first_admin(&*write).await?.ok_or(OperatorError::NoAdmin)?,
    };
    if permissions::excess(role, &[owner.role]).is_some() {
        return Err(OperatorError::RoleTooHigh { wanted: role, user: owner.name, role: owner.role });
    }
    let now = clock::now(&*write).await?;
    let expires_at = expires_in.map(|span| now + span);
    let new = NewToken { name: name.to_owned(), role, permissions: None, subscriptions: None, expires_at };
    let (row, token) = api_tokens::insert(&write, owner.id, new).await?;
    Event::new(EventType::TokenCreated, Actor::SYSTEM, "token")
        .subject(row.id)
        .detail("name", name)
        .detail("role", role.as_str())
        .detail("owner", owner.name)
        .write(&*write)
        .await?;
    write.commit().await?;
    Ok(token)
}

/// `user reset-password`: gives a user a new password that must be changed, ends all their sessions, and returns the
/// password, to be printed once.
///
/// # Errors
/// [`OperatorError::NoSuchUser`]; [`OperatorError::SingleSignOn`] for who has none.
pub async fn reset_password(db: &Database, passwords: &Passwords, name: &str) -> Result<SecretString, OperatorError> {
    let password = passwords::generate()?;
    let hash = passwords.hash(password.clone()).await?;
    let write = db.begin().await?;
    let unknown = || OperatorError::NoSuchUser(name.to_owned());
    let user = user_account::by_name(&*write, name).await?.ok_or_else(unknown)?;
    let user = user_account::by_id_locked(&*write, user.id).await?.ok_or_else(unknown)?;
    if user.is_sso() {
        return Err(OperatorError::SingleSignOn(user.name));
    }
    let id = user.id;
    sessions::store_password(&write, user, hash, true).await?;
    session::revoke(&*write, id, Which::All).await?;
    Event::new(EventType::PasswordReset, Actor::SYSTEM, "user").subject(id).write(&*write).await?;
    write.commit().await?;
    Ok(password)
}

/// Reads a span such as `90m`, `12h` or `365d`; at most a hundred years.
///
/// # Errors
/// [`OperatorError::Span`].
pub fn parse_span(text: &str) -> Result<TimeDelta, OperatorError> {
    let wrong = || OperatorError::Span(text.to_owned());
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let minutes: i64 = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        _ => return Err(wrong()),
    };
    let count: u32 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let span = i64::from(count).checked_mul(minutes).and_then(TimeDelta::try_minutes).ok_or_else(wrong)?;
    if span > TimeDelta::zero() && span <= TimeDelta::days(36_525) { Ok(span) } else { Err(wrong()) }
}
