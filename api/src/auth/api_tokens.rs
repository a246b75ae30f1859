//! Tokens for programs: they act for their owner, with at most the owner's rights, and are shown once.

use super::{Credential, Identity, Permission, Principal, opaque, sessions::event, users};
use crate::{
    error::{ApiError, FieldError},
    strict,
};
use chrono::{DateTime, Utc};
use keywright_entities::{
    api_token::{self, Owner},
    clock,
    scope::Scope,
    types::Role,
};
use keywright_jobs::{
    audit::EventType,
    setup::{
        database::Write,
        ids::{self, NoRandomness},
    },
};
use sea_orm::{ActiveModelTrait, DbErr, Set};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

/// A token about to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub name: String,
    pub role: Role,
    /// Out of the role's; `None` = all of them.
    pub permissions: Option<Vec<Permission>>,
    /// Out of what its owner sees; `None` = all of it.
    pub subscriptions: Option<Vec<Uuid>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token could not be stored.
#[derive(Debug, Error)]
pub enum InsertError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl From<InsertError> for ApiError {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::Database(error) => error.into(),
            InsertError::NoRandomness(error) => Self::internal(error),
        }
    }
}

/// Whose tokens the caller may see: their own, and everybody's for who manages users.
pub fn owner(caller: &Principal) -> Owner {
    if caller.may(Permission::UsersManage) { Owner::Anyone } else { Owner::User(caller.user_id) }
}

/// Whether the caller may hand out such a token.
///
/// # Errors
/// 403 for one that has a right which the caller has not; 400 for permissions that its role has not, and for one that would
/// administer but not see everything.
pub fn require_rights(caller: &Principal, new: &NewToken) -> Result<(), ApiError> {
    caller.require_all_of(new.role, new.permissions.as_deref())?;
    let foreign = new.permissions.iter().flatten().enumerate().filter(|(_, one)| !one.is_of(new.role));
    strict::refuse(
        foreign
            .map(|(at, _)| FieldError::new(format!("/permissions/{at}"), "enum", "The role has no such permission."))
            .collect(),
    )?;
    if new.subscriptions.is_some() {
        users::check_unrestricted(new.role)?;
    }
    Ok(())
}

/// Makes a token for the caller, in the caller's transaction. One that is made by a restricted token sees no more than that.
///
/// # Errors
/// As [`require_rights`]; 400 for an end that is past, or later than that of the token that asks, and for subscriptions that
/// the caller may not see.
pub async fn create(
    write: &Write,
    caller: &Principal,
    mut new: NewToken,
) -> Result<(api_token::Model, SecretString), ApiError> {
    require_rights(caller, &new)?;
    check_end(new.expires_at, clock::now(&**write).await?, &caller.credential)?;
    match (&new.subscriptions, caller.visible()) {
        (Some(ids), visible) => users::check_subscriptions(write, &visible, ids).await?,
        (None, Scope::Subscriptions(ids)) if caller.sees_less_than_user() => new.subscriptions = Some(ids),
        (None, _) => {}
    }
    let (row, token) = insert(write, caller.user_id, new).await?;
    event(EventType::TokenCreated, caller.actor(), "token")
        .subject(row.id)
        .detail("name", row.name.as_str())
        .detail("role", row.role.as_str())
        .detail("permissions", row.permissions.clone())
        .detail("subscriptions", row.subscriptions.clone())
        .detail("expiresAt", row.expires_at.map(|time| time.to_rfc3339()))
        .write(&**write)
        .await?;
    Ok((row, token))
}

/// A token that ends must not outlive itself through another.
fn check_end(wanted: Option<DateTime<Utc>>, now: DateTime<Utc>, credential: &Credential) -> Result<(), ApiError> {
    if wanted.is_some_and(|wanted| wanted <= now) {
        return Err(ApiError::invalid("/expiresAt", "minimum", "Must be in the future."));
    }
    if let Credential::ApiToken { expires_at: Some(own), .. } = credential
        && wanted.is_none_or(|wanted| wanted > *own)
    {
        let message = "Must not be later than the end of the token that asks for it.";
        return Err(ApiError::invalid("/expiresAt", "maximum", message));
    }
    Ok(())
}

/// Stores a new token of `owner` in the caller's transaction; the token itself is returned and nowhere kept.
pub(super) async fn insert(
    write: &Write,
    owner: Uuid,
    new: NewToken,
) -> Result<(api_token::Model, SecretString), InsertError> {
    let token = opaque::generate(opaque::API_PREFIX)?;
    let row = api_token::ActiveModel {
        id: Set(ids::new()),
        name: Set(new.name),
        user_id: Set(owner),
        role: Set(new.role),
        subscriptions: Set(new.subscriptions.map(|ids| json!(ids))),
        permissions: Set(new.permissions.map(|some| some.iter().map(|one| one.as_str()).collect())),
        token_hash: Set(opaque::hash(token.expose_secret())),
        hint: Set(opaque::hint(&token)),
        created_at: Set(clock::micros(clock::now(&**write).await?)),
        expires_at: Set(new.expires_at.map(clock::micros)),
        last_used_at: Set(None),
        revoked_at: Set(None),
    };
    Ok((row.insert(&**write).await?, token))
}

/// Ends a token.
///
/// # Errors
/// 404 for one that the caller may not see and for one that has ended.
pub async fn revoke(identity: &Identity, caller: &Principal, id: Uuid) -> Result<(), ApiError> {
    let write = identity.db.begin().await?;
    let done = end(&write, caller, id).await;
    write.settle(done).await
}

async fn end(write: &Write, caller: &Principal, id: Uuid) -> Result<(), ApiError> {
    let row = api_token::by_id(&**write, owner(caller), id).await?;
    let row = row.filter(|row| row.revoked_at.is_none()).ok_or_else(|| ApiError::not_found("token"))?;
    if !api_token::revoke(&**write, row.id).await? {
        return Err(ApiError::not_found("token"));
    }
    let event = event(EventType::TokenRevoked, caller.actor(), "token").subject(row.id);
    event.detail("name", row.name).write(&**write).await?;
    Ok(())
}
