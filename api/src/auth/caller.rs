//! Who calls, and may they. `caller: Caller<perm::JobsStart>` in a handler's signature demands the permission and is the proof of
//! it. The document carries it as `x-required-permission`, by which [`IdentityGate`] refuses before input is looked at.
//!
//! A bearer token (an access token or an API token) wins over the cookie. The row behind either is read with every
//! request, so that what is revoked is revoked at once.

use super::{
    Identity,
    access::{self, Rejected},
    cookies::{self, ACCESS_COOKIE},
    opaque,
    permissions::{Permission, Required},
    signing_keys::KeyError,
};
use crate::{
    client_address::client_address,
    context::{self, RequestContext},
    error::{ApiError, Code},
    strict::{Gate, Operation},
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use keywright_entities::{
    api_token,
    scope::Scope,
    session,
    types::{ActorType, Role},
    user_account,
};
use keywright_jobs::audit::Actor;
use poem::{Request, RequestBody, http::header};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use sea_orm::DbErr;
use serde_json::Value;
use std::{marker::PhantomData, ops::Deref, sync::Arc};
use uuid::Uuid;

/// How old the note of the last use may be before it is written anew: reads must not each cost a write.
const TOUCH_AFTER: TimeDelta = TimeDelta::minutes(1);

/// What a session may do whose user has not yet chosen a password.
const BEFORE_OWN_PASSWORD: [&str; 3] = ["getMe", "changePassword", "logout"];

const INVALID: &str = "The token is none of this server's. Log in, or use another API token.";
const EXPIRED: &str = "The token's time is over. Refresh it, log in again, or make a new API token.";
const REVOKED: &str = "The token was revoked, or its session has ended. Log in again, or make a new API token.";
const MISSING: &str = "Send an access token or API token as Authorization: Bearer, or log in with a browser.";

/// Somebody known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user_id: Uuid,
    pub user_name: String,
    /// The user's role as it is now.
    pub role: Role,
    /// The password was made by the program and must be changed.
    pub password_generated: bool,
    pub credential: Credential,
    visible: Scope,
    /// What their user may see, whatever the credential.
    user_sees: Scope,
}

/// By what somebody is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Session {
        id: Uuid,
        expires_at: DateTime<Utc>,
        /// It began with single sign-on.
        sso: bool,
    },
    ApiToken {
        id: Uuid,
        name: String,
        role: Role,
        /// Out of the role's; `None` = all of them.
        permissions: Option<Vec<Permission>>,
        expires_at: Option<DateTime<Utc>>,
    },
}

impl Principal {
    /// Whether the user's role and the token's own role and permissions all have it.
    pub fn may(&self, permission: Permission) -> bool {
        permission.is_of(self.role)
            && match &self.credential {
                Credential::Session { .. } => true,
                Credential::ApiToken { role, permissions, .. } => {
                    permission.is_of(*role) && permissions.as_ref().is_none_or(|some| some.contains(&permission))
                }
            }
    }

    /// Whether they have every permission of this role, or of these out of it: nobody hands out more than they have.
    ///
    /// # Errors
    /// 403 `permission_denied` that names the first one that they lack.
    pub fn require_all_of(&self, role: Role, only: Option<&[Permission]>) -> Result<(), ApiError> {
        let wanted = Permission::ALL.iter().copied().filter(|permission| permission.is_of(role));
        wanted
            .filter(|permission| only.is_none_or(|only| only.contains(permission)))
            .try_for_each(|one| self.require(one))
    }

    /// # Errors
    /// 403 `permission_denied`.
    pub fn require(&self, permission: Permission) -> Result<(), ApiError> {
        if self.may(permission) { Ok(()) } else { Err(ApiError::permission_denied(permission.as_str())) }
    }

    /// Who logged in with a password that the program made must choose one first. API tokens, which an operator can make
    /// without logging in, are not held up.
    ///
    /// # Errors
    /// 403 `password_change_required`.
    pub fn require_own_password(&self) -> Result<(), ApiError> {
        if self.password_generated && self.session_id().is_some() {
            let detail = "This password was made by the program. Set your own with POST /api/auth/password first.";
            return Err(ApiError::new(Code::PasswordChangeRequired, detail));
        }
        Ok(())
    }

    /// The subscriptions whose rows they may see.
    pub fn visible(&self) -> Scope {
        self.visible.clone()
    }

    /// Whether the credential is restricted more than its user.
    pub fn sees_less_than_user(&self) -> bool {
        self.visible != self.user_sees
    }

    /// As the audit log and jobs name them.
    pub fn actor(&self) -> Actor {
        match &self.credential {
            Credential::Session { .. } => Actor::user(self.user_id, self.user_name.as_str()),
            Credential::ApiToken { id, name, .. } => Actor::token(*id, name.as_str()),
        }
    }

    /// Whether this is the user or token that an actor's type and id name.
    pub fn is_actor(&self, actor_type: ActorType, id: Option<&str>) -> bool {
        let own = self.actor();
        own.actor_type == actor_type && own.id.as_deref() == id
    }

    /// The session, when it is one.
    pub fn session_id(&self) -> Option<Uuid> {
        match self.credential {
            Credential::Session { id, .. } => Some(id),
            Credential::ApiToken { .. } => None,
        }
    }

    pub(super) fn of_session(session: &session::Model, user: user_account::Model) -> Self {
        let credential = Credential::Session { id: session.id, expires_at: session.expires_at, sso: session.sso };
        Self::new(user, credential, Scope::All)
    }

    pub(super) fn of_token(token: api_token::Model, user: user_account::Model) -> Self {
        let (sees, permissions) = (token.visible(), token.permissions.as_ref().map(named));
        let (id, role, expires_at) = (token.id, token.role, token.expires_at);
        Self::new(user, Credential::ApiToken { id, name: token.name, role, permissions, expires_at }, sees)
    }

    fn new(user: user_account::Model, credential: Credential, sees: Scope) -> Self {
        let user_sees = user.visible();
        Self {
            visible: user_sees.clone().and(sees),
            user_sees,
            user_id: user.id,
            user_name: user.name,
            role: user.role,
            password_generated: user.password_generated,
            credential,
        }
    }
}

/// The permissions that a token's column names. One that this version does not know gives nothing.
fn named(names: &Value) -> Vec<Permission> {
    let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.filter_map(Permission::parse).collect()
}

/// A [`Principal`] that may do `P`.
pub struct Caller<P> {
    principal: Principal,
    permission: PhantomData<fn() -> P>,
}

impl<P> Deref for Caller<P> {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<'a, P: Required> ApiExtractor<'a> for Caller<P> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("bearer", bearer_scheme());
        registry.create_security_scheme("cookie", cookie_scheme());
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["bearer", "cookie", P::PERMISSION.as_str()] // taken out again by `crate::openapi`
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let principal = request.data::<Principal>().cloned();
        let principal = principal.ok_or_else(|| ApiError::internal("the application has no identity gate"))?;
        principal.require(P::PERMISSION)?;
        Ok(Self { principal, permission: PhantomData })
    }
}

/// Lets nobody unknown, and nobody without the permission, through to an operation. Without it no [`Caller`] comes about.
pub struct IdentityGate(pub Arc<Identity>);

#[async_trait]
impl Gate for IdentityGate {
    async fn admit(&self, request: &mut Request, operation: &Operation) -> Result<(), ApiError> {
        if operation.secured {
            let principal = authenticate(&self.0, request).await?;
            if let Some(context) = request.data::<Arc<RequestContext>>() {
                context.set_caller(principal.actor());
            }
            request.extensions_mut().insert(principal.clone());
            if !BEFORE_OWN_PASSWORD.contains(&operation.id.as_str()) {
                principal.require_own_password()?;
            }
            operation.permission.map_or(Ok(()), |permission| principal.require(permission))?;
        }
        Ok(())
    }
}

/// Finds out who sent the request.
///
/// # Errors
/// 401 with one of the `token_…` codes; 403 `csrf_failed` for a change by cookie without evidence of our own origin.
pub async fn authenticate(identity: &Identity, request: &Request) -> Result<Principal, ApiError> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let cookie = identity.cookies.read_access(request).filter(|token| !token.is_empty());
    if let Some(value) = values.next() {
        if cookie.is_some() {
            tracing::debug!(request_id = %context::request_id(), "a bearer token and a cookie came together; the token counts");
        }
        let token = value.to_str().ok().and_then(bearer).filter(|_| values.next().is_none());
        let token = token.ok_or_else(|| ApiError::unauthorized(Code::TokenInvalid, INVALID))?;
        return by_token(identity, token).await;
    }
    let token = cookie.ok_or_else(|| ApiError::unauthorized(Code::TokenMissing, MISSING))?;
    let changes = !cookies::is_safe(request.method());
    if changes {
        require_same_origin(request)?;
    }
    let principal = by_access_token(identity, token).await?;
    if changes && let Some(session) = principal.session_id() {
        require_csrf_token(identity, request, session)?;
    }
    Ok(principal)
}

/// # Errors
/// 403 `csrf_failed`.
pub fn require_csrf_token(identity: &Identity, request: &Request, session: Uuid) -> Result<(), ApiError> {
    if identity.csrf.is_in(request, session) {
        return Ok(());
    }
    let detail = "A change by cookie must carry the session's token in X-CSRF-Token: csrf_token of the login, csrfToken of \
                  GET /api/auth/me. Programs send Authorization: Bearer.";
    Err(ApiError::new(Code::CsrfFailed, detail))
}

/// The address that the request comes from: that of the connection, or what a proxy that is trusted tells.
pub fn address(request: &Request) -> Option<String> {
    Some(client_address(request)).filter(|address| !address.is_unspecified()).map(|address| address.to_string())
}

/// # Errors
/// 403 `csrf_failed`.
pub fn require_same_origin(request: &Request) -> Result<(), ApiError> {
    if cookies::is_same_origin(request) {
        return Ok(());
    }
    let detail = "A change by cookie must come from this server's own pages. Programs send Authorization: Bearer.";
    Err(ApiError::new(Code::CsrfFailed, detail))
}

/// The token of a `Bearer` credential (RFC 6750, 2.1); the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

async fn by_token(identity: &Identity, token: &str) -> Result<Principal, ApiError> {
    if token.starts_with(opaque::API_PREFIX) {
        by_api_token(identity, token).await
    } else {
        by_access_token(identity, token).await
    }
}

async fn by_access_token(identity: &Identity, token: &str) -> Result<Principal, ApiError> {
    let mut verified = access::verify(&identity.keys.current(), token, identity.clock.now());
    if verified == Err(Rejected::UnknownKey) {
        let keys = identity.keys.after_asking().await.map_err(asking_failed)?;
        verified = access::verify(&keys, token, identity.clock.now());
    }
    let (user_id, session_id) = verified.map_err(|rejected| match rejected {
        Rejected::Invalid | Rejected::UnknownKey => ApiError::unauthorized(Code::TokenInvalid, INVALID),
        Rejected::Expired => ApiError::unauthorized(Code::TokenExpired, EXPIRED),
    })?;
    let live = session::live_with_user(identity.db.reader(), session_id).await?;
    let (session, user) = live
        .filter(|(_, user)| user.id == user_id)
        .ok_or_else(|| ApiError::unauthorized(Code::TokenRevoked, REVOKED))?;
    if identity.clock.now() - session.last_used_at > TOUCH_AFTER {
        let write = identity.db.begin().await?;
        session::touch(&*write, session.id).await?;
        write.commit().await?;
    }
    Ok(Principal::of_session(&session, user))
}

async fn by_api_token(identity: &Identity, token: &str) -> Result<Principal, ApiError> {
    if token.len() > access::MAX_BYTES {
        return Err(ApiError::unauthorized(Code::TokenInvalid, INVALID));
    }
    let db = identity.db.reader();
    let found = api_token::by_hash(db, &opaque::hash(token)).await?;
    let (token, owner) = found.ok_or_else(|| ApiError::unauthorized(Code::TokenInvalid, INVALID))?;
    let owner = owner.filter(|owner| !owner.disabled && token.revoked_at.is_none());
    let owner = owner.ok_or_else(|| ApiError::unauthorized(Code::TokenRevoked, REVOKED))?;
    if token.expires_at.is_some() && !api_token::in_time(db, token.id).await? {
        return Err(ApiError::unauthorized(Code::TokenExpired, EXPIRED));
    }
    if token.last_used_at.is_none_or(|last| identity.clock.now() - last > TOUCH_AFTER) {
        touch_token(identity, token.id).await?;
    }
    Ok(Principal::of_token(token, owner))
}

fn asking_failed(error: KeyError) -> ApiError {
    match error {
        KeyError::Database(error) => error.into(),
        error => ApiError::internal(error),
    }
}

async fn touch_token(identity: &Identity, id: Uuid) -> Result<(), DbErr> {
    let write = identity.db.begin().await?;
    api_token::touch(&*write, id).await?;
    write.commit().await
}

fn bearer_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some("An access token from `/api/auth/login`, or an API token (`kw_…`)."),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    }
}

fn cookie_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "apiKey",
        description: Some(
            "The access token as a browser keeps it after `/api/auth/login`. Changes must come from the same origin \
             and carry the session's token in `X-CSRF-Token`. Over plain http the name is `keywright`.",
        ),
        name: Some(ACCESS_COOKIE),
        key_in: Some("cookie"),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}
