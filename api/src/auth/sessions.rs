//! Sign in, refresh, sign out, and the password that it hangs on.

use super::{Client, Identity, Principal, access, caller, cookies::Token, opaque, passwords, throttle};
use crate::{
    context,
    error::{ApiError, Code},
};
use chrono::{DateTime, TimeDelta, Utc};
use keywright_entities::{
    clock, refresh_token,
    session::{self, Which},
    types::Outcome,
    user_account,
};
use keywright_jobs::{
    audit::{Actor, Event, EventType},
    setup::{database::Write, ids},
};
use poem::Request;
use sea_orm::{ActiveModelTrait, DbErr, Set};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

/// A session ends after this, however often it is refreshed.
const SESSION_LIFETIME: TimeDelta = TimeDelta::days(30);
/// A session that is not refreshed for this long cannot be refreshed any more.
const REFRESH_LIFETIME: TimeDelta = TimeDelta::days(7);
/// Characters kept of what a client says about itself.
const MAX_USER_AGENT: usize = 256;

/// A pair of tokens, shown once.
pub struct SignedIn {
    pub issued_at: DateTime<Utc>,
    pub access: SecretString,
    pub access_ends: DateTime<Utc>,
    pub refresh: SecretString,
    pub refresh_ends: DateTime<Utc>,
    pub password_generated: bool,
    pub session: Uuid,
}

impl SignedIn {
    /// Both tokens as cookies need them: access, refresh.
    pub fn tokens(&self) -> (Token<'_>, Token<'_>) {
        let access = Token { secret: &self.access, ends: self.access_ends };
        (access, Token { secret: &self.refresh, ends: self.refresh_ends })
    }
}

/// Starts a session. An unknown name, a wrong password and a disabled user look and cost the same.
///
/// # Errors
/// 401 `login_failed`; 429 after too many failures, or while too many log in at once.
pub async fn login(
    identity: &Identity,
    name: &str,
    password: SecretString,
    client: Client,
) -> Result<SignedIn, ApiError> {
    let place = identity.passwords.enter()?;
    let user = user_account::by_name(identity.db.reader(), name).await?;
    let attempt = identity.throttle.login(name, user.as_ref().map(|user| user.id), &client);
    identity.throttle.admit(identity.db.reader(), &attempt).await?;
    let stored = user.as_ref().filter(|user| !user.disabled).and_then(|user| user.password_hash.as_deref());
    let passed = identity.passwords.verify(&place, password, stored).await?;
    let write = identity.db.begin().await?;
    // others may have failed meanwhile: of many guesses at once no more are answered than one after the other
    if let Err(held_up) = identity.throttle.admit(&*write, &attempt).await {
        write.rollback().await?;
        return Err(held_up);
    }
    let Some(user) = still(&write, user.as_ref().filter(|_| passed)).await? else {
        identity.throttle.failed(&*write, &attempt).await?;
        write.commit().await?;
        identity.denials.count(Code::LoginFailed, client.address, user.map(|user| user.id));
        return Err(ApiError::unauthorized(Code::LoginFailed, "The user name or the password is wrong."));
    };
    identity.throttle.succeeded(&*write, &attempt).await?;
    let signed_in = begin(identity, &write, &user, client, false).await?;
    write.commit().await?;
    Ok(signed_in)
}

/// Starts a session of somebody who proved who they are, in the caller's transaction. `sso`: by single sign-on.
pub(super) async fn begin(
    identity: &Identity,
    write: &Write,
    user: &user_account::Model,
    client: Client,
    sso: bool,
) -> Result<SignedIn, ApiError> {
    let session = insert_session(write, user.id, client, sso).await?;
    let signed_in = issue(identity, write, user, &session).await?;
    event(EventType::Login, Actor::user(user.id, user.name.as_str()), "user")
        .subject(user.id)
        .detail("sessionId", session.id.to_string())
        .detail("method", if sso { "sso" } else { "password" })
        .detail("address", session.address)
        .write(&**write)
        .await?;
    Ok(signed_in)
}

/// The user, unless their password was changed or they were disabled while it was compared.
async fn still(write: &Write, user: Option<&user_account::Model>) -> Result<Option<user_account::Model>, DbErr> {
    let Some(user) = user else { return Ok(None) };
    let now = user_account::by_id_locked(&**write, user.id).await?;
    Ok(now.filter(|now| !now.disabled && now.password_hash == user.password_hash))
}

async fn insert_session(write: &Write, user: Uuid, client: Client, sso: bool) -> Result<session::Model, DbErr> {
    let now = clock::micros(clock::now(&**write).await?);
    let agent = client.user_agent.map(|agent| agent.chars().take(MAX_USER_AGENT).collect());
    let row = session::ActiveModel {
        id: Set(ids::new()),
        user_id: Set(user),
        created_at: Set(now),
        last_used_at: Set(now),
        expires_at: Set(now + SESSION_LIFETIME),
        revoked_at: Set(None),
        user_agent: Set(agent),
        address: Set(client.address),
        sso: Set(sso),
    };
    row.insert(&**write).await
}

/// A new pair of tokens for a session.
async fn issue(
    identity: &Identity,
    write: &Write,
    user: &user_account::Model,
    session: &session::Model,
) -> Result<SignedIn, ApiError> {
    let refresh = opaque::generate(opaque::REFRESH_PREFIX).map_err(ApiError::internal)?;
    let now = clock::micros(clock::now(&**write).await?);
    let refresh_ends = (now + REFRESH_LIFETIME).min(session.expires_at);
    let row = refresh_token::ActiveModel {
        hash: Set(opaque::hash(refresh.expose_secret())),
        session_id: Set(session.id),
        created_at: Set(now),
        expires_at: Set(refresh_ends),
        used_at: Set(None),
    };
    row.insert(&**write).await?;
    let issued_at = identity.clock.now();
    let (access, access_ends) =
        access::mint(&identity.keys.current(), user.id, session.id, issued_at, session.expires_at)
            .map_err(ApiError::internal)?;
    let password_generated = user.password_generated;
    Ok(SignedIn { issued_at, access, access_ends, refresh, refresh_ends, password_generated, session: session.id })
}

/// Spends a refresh token for a new pair. One that was spent before was copied: its session ends.
///
/// There is no time in which a second use is taken for a lost reply: within it a thief who is quick would not be noticed (RFC
/// 9700, 4.14.2). Whoever lost a reply logs in again. `by_cookie` is the request when a browser sent the token.
///
/// # Errors
/// 401 `token_invalid`, `token_expired` or `token_revoked`; 403 `csrf_failed`, which spends nothing.
pub async fn refresh(identity: &Identity, token: &str, by_cookie: Option<&Request>) -> Result<SignedIn, ApiError> {
    let invalid = || ApiError::unauthorized(Code::TokenInvalid, "This is no refresh token of this server. Log in.");
    let revoked = || ApiError::unauthorized(Code::TokenRevoked, "The session has ended. Log in again.");
    if token.len() > access::MAX_BYTES {
        return Err(invalid());
    }
    let hash = opaque::hash(token);
    let write = identity.db.begin().await?;
    let work = async {
        let row = refresh_token::by_hash(&*write, &hash).await?.ok_or_else(invalid)?;
        let (session, user) = session::live_with_user(&*write, row.session_id).await?.ok_or_else(revoked)?;
        if let Some(request) = by_cookie {
            caller::require_csrf_token(identity, request, session.id)?;
        }
        if !refresh_token::spend(&*write, &hash).await? {
            session::revoke(&*write, user.id, Which::One(session.id)).await?;
            event(EventType::RefreshReused, Actor::ANONYMOUS, "session")
                .subject(session.id)
                .outcome(Outcome::Denied)
                .detail("userId", user.id.to_string())
                .write(&*write)
                .await?;
            return Ok(None);
        }
        if !refresh_token::in_time(&*write, &hash).await? {
            let detail = "The refresh token's time is over. Log in again.";
            return Err(ApiError::unauthorized(Code::TokenExpired, detail));
        }
        session::touch(&*write, session.id).await?;
        issue(identity, &write, &user, &session).await.map(Some)
    };
    let done = work.await;
    // a second use is refused, and that it ended the session is kept
    write.settle(done).await?.ok_or_else(revoked)
}

/// Ends the caller's session.
///
/// # Errors
/// 409 for an API token, which has none.
pub async fn logout(identity: &Identity, caller: &Principal) -> Result<(), ApiError> {
    let Some(session) = caller.session_id() else {
        let detail = "An API token has no session to end. To end the token, DELETE it under /api/tokens.";
        return Err(ApiError::conflict(detail));
    };
    let write = identity.db.begin().await?;
    session::revoke(&*write, caller.user_id, Which::One(session)).await?;
    event(EventType::Logout, caller.actor(), "session").subject(session).write(&*write).await?;
    write.commit().await?;
    Ok(())
}

/// Ends sessions of `user`: one, or all but the one that calls.
///
/// # Errors
/// 404 when the one is not among the user's live sessions.
pub async fn revoke(identity: &Identity, caller: &Principal, user: Uuid, one: Option<Uuid>) -> Result<(), ApiError> {
    let which = match (one, caller.session_id()) {
        (Some(id), _) => Which::One(id),
        (None, Some(own)) => Which::AllBut(own),
        (None, None) => Which::All,
    };
    let write = identity.db.begin().await?;
    let ended = session::revoke(&*write, user, which).await?;
    if ended == 0 && one.is_some() {
        write.rollback().await?;
        return Err(ApiError::not_found("session"));
    }
    let event = event(EventType::SessionRevoked, caller.actor(), "session").detail("ended", ended);
    let event = event.detail("userId", user.to_string());
    let event = match one {
        Some(id) => event.subject(id),
        None => event,
    };
    event.write(&*write).await?;
    write.commit().await?;
    Ok(())
}

/// Sets a new password and ends all other sessions.
///
/// # Errors
/// 400 for a wrong present password and for a new one that breaks the rules; 409 for users of single sign-on, who have none.
pub async fn change_password(
    identity: &Identity,
    caller: &Principal,
    current: SecretString,
    new: SecretString,
) -> Result<(), ApiError> {
    passwords::check(&new, &caller.user_name, "/newPassword")?;
    if new.expose_secret() == current.expose_secret() {
        return Err(ApiError::invalid("/newPassword", "unchanged", "Choose a password that is not the present one."));
    }
    let gone = || ApiError::unauthorized(Code::TokenRevoked, "The user is gone.");
    let user = user_account::by_id(identity.db.reader(), caller.user_id).await?.ok_or_else(gone)?;
    if user.is_sso() {
        let detail = "You come in by single sign-on and have no password here. Change it at the provider.";
        return Err(ApiError::conflict(detail));
    }
    let attempt = identity.throttle.password(user.id);
    identity.throttle.admit(identity.db.reader(), &attempt).await?;
    let place = identity.passwords.enter()?;
    if !identity.passwords.verify(&place, current, user.password_hash.as_deref()).await? {
        let write = identity.db.begin().await?;
        identity.throttle.failed(&*write, &attempt).await?;
        let event = event(EventType::PasswordChanged, caller.actor(), "user").subject(user.id);
        event.outcome(Outcome::Denied).write(&*write).await?;
        write.commit().await?;
        return Err(ApiError::invalid("/currentPassword", "mismatch", "This is not the present password."));
    }
    drop(place);
    let hash = identity.passwords.hash(new).await?;
    let write = identity.db.begin().await?;
    let work = async {
        let locked = user_account::by_id_locked(&*write, user.id).await?.ok_or_else(gone)?;
        if locked.password_hash != user.password_hash {
            return Err(ApiError::conflict("The password was changed by somebody else meanwhile."));
        }
        identity.throttle.succeeded(&*write, &attempt).await?;
        store_password(&write, locked, hash, false).await?;
        let which = caller.session_id().map_or(Which::All, Which::AllBut);
        session::revoke(&*write, user.id, which).await?;
        event(EventType::PasswordChanged, caller.actor(), "user").subject(user.id).write(&*write).await?;
        Ok(())
    };
    let done = work.await;
    write.settle(done).await
}

/// Replaces a user's password hash in the caller's transaction.
pub(super) async fn store_password(
    write: &Write,
    user: user_account::Model,
    hash: String,
    generated: bool,
) -> Result<(), DbErr> {
    let (version, now) = (user.version, clock::micros(clock::now(&**write).await?));
    let mut user = user_account::ActiveModel::from(user);
    user.password_hash = Set(Some(hash));
    user.password_generated = Set(generated);
    user.updated_at = Set(now);
    user.version = Set(version + 1);
    throttle::unlock(&**write, *user.id.as_ref()).await?;
    user.update(&**write).await.map(|_| ())
}

/// An event of the request that is being answered.
pub(super) fn event(event_type: EventType, actor: Actor, subject_type: &'static str) -> Event {
    Event::new(event_type, actor, subject_type).request(context::request_id())
}
