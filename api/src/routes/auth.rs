//! Log in and out, the caller, their password and sessions, the public keys.
//!
//! Long because of the examples that the document shows.

use std::sync::Arc;

use chrono::DateTime;
use keywright_entities::session;
use poem::Request;
use poem::web::cookie::CookieJar;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Form, Json};
use poem_openapi::types::Example;
use poem_openapi::{ApiRequest, Enum, Object, OpenApi};
use secrecy::ExposeSecret;
use serde::Deserialize;
use uuid::Uuid;

use super::Tag;
use super::role::Role;
use crate::answer::NoContent;
use crate::auth::sessions::{self, SignedIn};
use crate::auth::signing_keys::Jwk;
use crate::auth::{Caller, Client, Credential, Identity, Permission, Principal, caller, cookies, perm};
use crate::error::{ApiError, Code};
use crate::page::{Key, ListParams, Page, SortKey, Sorting};
use crate::timestamp::Timestamp;

/// A user name and password. The names are those of OAuth 2.
#[derive(Object, Deserialize)]
#[oai(example)]
#[serde(deny_unknown_fields)]
pub struct Login {
    #[oai(validator(min_length = 1, max_length = 200, pattern = r"^[^\x00]*$"))]
    username: String,
    #[oai(validator(min_length = 1, max_length = 1024, pattern = r"^[^\x00]*$"))]
    password: String,
    /// `password`, as clients of OAuth 2 send it.
    #[oai(validator(pattern = "^password$"))]
    grant_type: Option<String>,
}

impl Example for Login {
    fn example() -> Self {
        Self { username: "admin".to_owned(), password: "correct-horse-battery".to_owned(), grant_type: None }
    }
}

#[derive(ApiRequest)]
enum LoginRequest {
    Json(Json<Login>),
    Form(Form<Login>),
}

/// A refresh token; browsers leave it out and send their cookie.
#[derive(Object, Deserialize)]
#[oai(example)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    #[oai(validator(max_length = 4096, pattern = r"^[^\x00]*$"))]
    refresh_token: Option<String>,
    /// `refresh_token`, as clients of OAuth 2 send it.
    #[oai(validator(pattern = "^refresh_token$"))]
    grant_type: Option<String>,
}

impl Example for Refresh {
    fn example() -> Self {
        let refresh_token = Some("kwr_l4sVbN0yq0b1mE8cJ3tQH2xkU6oZr9dWfPgA5iXeT7c".to_owned());
        Self { refresh_token, grant_type: None }
    }
}

#[derive(ApiRequest)]
enum RefreshRequest {
    Json(Json<Refresh>),
    Form(Form<Refresh>),
}

/// The tokens of a session (RFC 6749, 5.1). Browsers also get them as HttpOnly cookies.
#[derive(Object)]
#[oai(example)]
pub struct Tokens {
    access_token: String,
    /// `Bearer`.
    token_type: String,
    /// Seconds for which the access token is valid.
    expires_in: i64,
    /// Good for one use of `/api/auth/refresh`.
    refresh_token: String,
    /// The password was made by the program: set one of your own with `/api/auth/password`.
    password_change_required: bool,
    /// For browsers: what a change by cookie carries in `X-CSRF-Token`. The same for the whole session.
    csrf_token: String,
}

impl Example for Tokens {
    fn example() -> Self {
        Self {
            access_token: "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9…".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: 900,
            refresh_token: "kwr_l4sVbN0yq0b1mE8cJ3tQH2xkU6oZr9dWfPgA5iXeT7c".to_owned(),
            password_change_required: false,
            csrf_token: "mD3cVQ0b8n…".to_owned(),
        }
    }
}

/// A change of the caller's password.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub struct PasswordChange {
    #[oai(validator(min_length = 1, max_length = 1024))]
    current_password: String,
    #[oai(validator(min_length = 12, max_length = 1024))]
    new_password: String,
}

impl Example for PasswordChange {
    fn example() -> Self {
        Self { current_password: "qk7mz4…".to_owned(), new_password: "correct-horse-battery".to_owned() }
    }
}

/// By what the caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum CredentialType {
    Session,
    Token,
}

/// How a session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum SignInMethod {
    Password,
    Sso,
}

/// The caller.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct Me {
    /// The user's id.
    id: Uuid,
    name: String,
    role: Role,
    /// What the caller may do with the credential at hand: a token may have less than its owner.
    permissions: Vec<String>,
    password_change_required: bool,
    credential_type: CredentialType,
    /// How the session began; null for an API token.
    sign_in_method: Option<SignInMethod>,
    /// The session or the token.
    credential_id: Uuid,
    /// When the session or the token ends; null = never.
    expires_at: Option<Timestamp>,
    /// For browsers: what a change by cookie carries in `X-CSRF-Token`; null for an API token.
    csrf_token: Option<String>,
}

impl Example for Me {
    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0198_f3c2_5d1c_7a3b_9c57_2f1d_6b0e_4a11),
            name: "admin".to_owned(),
            role: Role::Admin,
            permissions: vec!["account:self".to_owned(), "inventory:read".to_owned()],
            password_change_required: false,
            credential_type: CredentialType::Session,
            sign_in_method: Some(SignInMethod::Password),
            credential_id: Uuid::from_u128(0x0198_f3c2_5d1c_7a3b_9c57_2f1d_6b0e_4a12),
            expires_at: Some(DateTime::UNIX_EPOCH.into()),
            csrf_token: Some("mD3cVQ0b8n…".to_owned()),
        }
    }
}

/// A session.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct Session {
    id: Uuid,
    user: Uuid,
    /// It is the one that asks.
    current: bool,
    created_at: Timestamp,
    /// To about a minute.
    last_used_at: Timestamp,
    expires_at: Timestamp,
    user_agent: Option<String>,
    /// Where the login came from.
    address: Option<String>,
}

impl Session {
    fn of(row: session::Model, current: Option<Uuid>) -> Self {
        Self {
            id: row.id,
            user: row.user_id,
            current: Some(row.id) == current,
            created_at: row.created_at.into(),
            last_used_at: row.last_used_at.into(),
            expires_at: row.expires_at.into(),
            user_agent: row.user_agent,
            address: row.address,
        }
    }
}

/// The public keys of this instance (RFC 7517).
#[derive(Debug, Object)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

const SESSION_ORDER: Sorting<session::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || sea_orm::ColumnTrait::into_expr(session::Column::CreatedAt),
        nullable: false,
        read: |row| Key::from(row.created_at),
    }],
    default: "-createdAt",
    unique: SortKey {
        name: "id",
        column: || sea_orm::ColumnTrait::into_expr(session::Column::Id),
        nullable: false,
        read: |row| Key::from(row.id),
    },
};

/// Log in and out, the caller, their password and sessions, the public keys.
pub struct AuthApi {
    identity: Arc<Identity>,
}

impl AuthApi {
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity }
    }

    async fn session_for(&self, caller: &Principal, id: Uuid) -> Result<session::Model, ApiError> {
        let live = session::live_with_user(self.identity.db.reader(), id).await?;
        let seen = live.filter(|(_, user)| user.id == caller.user_id || caller.may(Permission::UsersManage));
        seen.map(|(row, _)| row).ok_or_else(|| ApiError::not_found("session"))
    }

    fn hand_out(&self, tokens: SignedIn, jar: &CookieJar) -> Json<Tokens> {
        let (access, refresh) = tokens.tokens();
        self.identity.cookies.set(jar, tokens.issued_at, access, refresh);
        Json(Tokens {
            access_token: tokens.access.expose_secret().to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: (tokens.access_ends - tokens.issued_at).num_seconds(),
            refresh_token: tokens.refresh.expose_secret().to_owned(),
            password_change_required: tokens.password_generated,
            csrf_token: self.identity.csrf.token(tokens.session),
        })
    }
}

#[OpenApi(tag = "Tag::Auth")]
impl AuthApi {
    /// Log in
    ///
    /// Starts a session. Programs use the tokens of the answer; browsers are given them as HttpOnly cookies too.
    #[oai(path = "/api/auth/login", method = "post", operation_id = "login")]
    async fn login(&self, request: &Request, jar: &CookieJar, body: LoginRequest) -> Result<Json<Tokens>, ApiError> {
        let (LoginRequest::Json(Json(login)) | LoginRequest::Form(Form(login))) = body;
        // Another site must not be able to sign a browser in as somebody else.
        if cookies::is_cross_site(request) {
            caller::require_same_origin(request)?;
        }
        let tokens = sessions::login(&self.identity, &login.username, login.password.into(), client(request)).await?;
        Ok(self.hand_out(tokens, jar))
    }

    /// Refresh the tokens
    ///
    /// Spends the refresh token of the body, or of the cookie when the body has none, for a new pair. A refresh token is good
    /// once: a second use ends its session. By cookie it needs the same origin and `X-CSRF-Token`, as every change does.
    #[oai(path = "/api/auth/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        request: &Request,
        jar: &CookieJar,
        body: RefreshRequest,
    ) -> Result<Json<Tokens>, ApiError> {
        let (RefreshRequest::Json(Json(body)) | RefreshRequest::Form(Form(body))) = body;
        let tokens = match (body.refresh_token.as_deref(), self.identity.cookies.read_refresh(request)) {
            (Some(token), _) => sessions::refresh(&self.identity, token, None).await?,
            (None, Some(token)) => {
                caller::require_same_origin(request)?;
                sessions::refresh(&self.identity, token, Some(request)).await?
            }
            (None, None) => {
                let detail = "Send refresh_token in the body, or the cookie of a login.";
                return Err(ApiError::unauthorized(Code::TokenMissing, detail));
            }
        };
        Ok(self.hand_out(tokens, jar))
    }

    /// Log out
    ///
    /// Ends the caller's session: its access and refresh tokens are revoked at once.
    #[oai(path = "/api/auth/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, caller: Caller<perm::AccountSelf>, jar: &CookieJar) -> Result<NoContent, ApiError> {
        sessions::logout(&self.identity, &caller).await?;
        self.identity.cookies.clear(jar);
        Ok(NoContent::NoContent)
    }

    /// Change the password
    ///
    /// All other sessions of the user end. API tokens stay.
    #[oai(path = "/api/auth/password", method = "post", operation_id = "changePassword")]
    async fn password(
        &self,
        caller: Caller<perm::AccountSelf>,
        body: Json<PasswordChange>,
    ) -> Result<NoContent, ApiError> {
        let (current, new) = (body.0.current_password.into(), body.0.new_password.into());
        sessions::change_password(&self.identity, &caller, current, new).await?;
        Ok(NoContent::NoContent)
    }

    /// Who am I
    #[oai(path = "/api/auth/me", method = "get", operation_id = "getMe")]
    async fn me(&self, caller: Caller<perm::AccountSelf>) -> Result<Json<Me>, ApiError> {
        let (credential_type, credential_id, expires_at) = match caller.credential {
            Credential::Session { id, expires_at, .. } => (CredentialType::Session, id, Some(expires_at)),
            Credential::ApiToken { id, expires_at, .. } => (CredentialType::Token, id, expires_at),
        };
        let sign_in_method = match caller.credential {
            Credential::Session { sso: true, .. } => Some(SignInMethod::Sso),
            Credential::Session { sso: false, .. } => Some(SignInMethod::Password),
            Credential::ApiToken { .. } => None,
        };
        let held = Permission::ALL.iter().filter(|permission| caller.may(**permission));
        Ok(Json(Me {
            id: caller.user_id,
            name: caller.user_name.clone(),
            role: caller.role.into(),
            permissions: held.map(|permission| permission.as_str().to_owned()).collect(),
            password_change_required: caller.password_generated,
            credential_type,
            sign_in_method,
            credential_id,
            expires_at: expires_at.map(Timestamp::from),
            csrf_token: caller.session_id().map(|session| self.identity.csrf.token(session)),
        }))
    }

    /// List sessions
    ///
    /// The caller's own; an administrator may name another user. Sort by `createdAt`.
    #[oai(path = "/api/auth/sessions", method = "get", operation_id = "listSessions")]
    async fn sessions(
        &self,
        caller: Caller<perm::AccountSelf>,
        params: ListParams,
        /// Those of this user, which needs `users:manage`.
        user: Query<Option<Uuid>>,
    ) -> Result<Json<Page<Session>>, ApiError> {
        let (db, user) = (&self.identity.db, whose(&caller, user.0)?);
        let slice = params.fetch(session::live_of(db.backend(), user), &SESSION_ORDER, db.reader()).await?;
        Ok(Json(slice.into_page(|row| Session::of(row, caller.session_id()))))
    }

    /// End all other sessions
    ///
    /// Those of the caller but the one that asks; an administrator may name another user.
    #[oai(path = "/api/auth/sessions", method = "delete", operation_id = "deleteOtherSessions")]
    async fn end_others(
        &self,
        caller: Caller<perm::AccountSelf>,
        /// Those of this user, which needs `users:manage`.
        user: Query<Option<Uuid>>,
    ) -> Result<NoContent, ApiError> {
        sessions::revoke(&self.identity, &caller, whose(&caller, user.0)?, None).await?;
        Ok(NoContent::NoContent)
    }

    /// Get a session
    ///
    /// One of the caller's, or anybody's for an administrator.
    #[oai(path = "/api/auth/sessions/:id", method = "get", operation_id = "getSession")]
    async fn session(&self, caller: Caller<perm::AccountSelf>, id: Path<Uuid>) -> Result<Json<Session>, ApiError> {
        let row = self.session_for(&caller, id.0).await?;
        Ok(Json(Session::of(row, caller.session_id())))
    }

    /// End a session
    ///
    /// One of the caller's, or anybody's for an administrator.
    #[oai(path = "/api/auth/sessions/:id", method = "delete", operation_id = "deleteSession")]
    async fn end(&self, caller: Caller<perm::AccountSelf>, id: Path<Uuid>) -> Result<NoContent, ApiError> {
        let row = self.session_for(&caller, id.0).await?;
        sessions::revoke(&self.identity, &caller, row.user_id, Some(row.id)).await?;
        Ok(NoContent::NoContent)
    }

    /// Get the public keys
    ///
    /// With them others can check our access tokens; whether a session has ended only this server knows.
    #[oai(path = "/api/auth/jwks.json", method = "get", operation_id = "getJwks")]
    async fn jwks(&self) -> Result<Json<JwkSet>, ApiError> {
        Ok(Json(JwkSet { keys: self.identity.keys.current().jwks().to_vec() }))
    }
}

/// Whose sessions are meant.
fn whose(caller: &Principal, user: Option<Uuid>) -> Result<Uuid, ApiError> {
    let user = user.unwrap_or(caller.user_id);
    if user != caller.user_id {
        caller.require(Permission::UsersManage)?;
    }
    Ok(user)
}

fn client(request: &Request) -> Client {
    Client { user_agent: request.header("user-agent").map(str::to_owned), address: caller::address(request) }
}
