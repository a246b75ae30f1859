//! API tokens: for programs, with a role, an end if wanted, and shown once.

use std::sync::Arc;

use chrono::DateTime;
use keywright_entities::{api_token, scope::Scope};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, Password};
use poem_openapi::{Object, OpenApi};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::Tag;
use super::permission::PermissionName;
use super::role::Role;
use crate::answer::{Created, NoContent};
use crate::auth::api_tokens::{self, NewToken};
use crate::auth::{Caller, Identity, perm};
use crate::error::ApiError;
use crate::idempotency::{Begun, Made, Once};
use crate::page::{Key, ListParams, Page, SortKey, Sorting};
use crate::timestamp::Timestamp;

/// A token to be made.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct NewApiToken {
    /// What it is for; only people read it.
    #[oai(validator(min_length = 1, max_length = 200))]
    name: String,
    /// What it may do: no more than its owner, whatever becomes of the owner's role.
    role: Role,
    /// Out of those of the role; absent or null = all of them.
    #[oai(validator(min_items = 1, unique_items))]
    permissions: Option<Vec<PermissionName>>,
    /// The subscriptions that it sees, out of those that the caller sees; absent or null = all of them. Not with the role `admin`.
    #[oai(validator(max_items = 1000))]
    subscriptions: Option<Vec<Uuid>>,
    /// When it ends; absent = never.
    expires_at: Option<Timestamp>,
}

impl Example for NewApiToken {
    fn example() -> Self {
        let name = "nightly scan".to_owned();
        Self { name, role: Role::Operator, permissions: None, subscriptions: None, expires_at: None }
    }
}

impl NewApiToken {
    fn into_new(self) -> NewToken {
        NewToken {
            name: self.name,
            role: self.role.into(),
            permissions: self.permissions.map(|names| names.into_iter().map(|name| name.0).collect()),
            subscriptions: self.subscriptions,
            expires_at: self.expires_at.map(|time| time.0),
        }
    }
}

/// A token for programs.
#[derive(Object)]
#[oai(rename_all = "camelCase", example)]
pub struct ApiToken {
    id: Uuid,
    name: String,
    role: Role,
    /// Out of those of the role; null = all of them.
    permissions: Option<Vec<String>>,
    /// The subscriptions that it sees, as far as its owner sees them; null = all of those.
    subscriptions: Option<Vec<Uuid>>,
    /// Its owner.
    user: Uuid,
    /// Its first characters.
    hint: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// To about a minute.
    last_used_at: Option<Timestamp>,
    /// The token itself, in the answer that made it; null ever after.
    token: Option<Password>,
}

impl Example for ApiToken {
    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0198_f3c2_5d1c_7a3b_9c57_2f1d_6b0e_4a13),
            name: "nightly scan".to_owned(),
            role: Role::Operator,
            permissions: None,
            subscriptions: None,
            user: Uuid::from_u128(0x0198_f3c2_5d1c_7a3b_9c57_2f1d_6b0e_4a11),
            hint: "kw_l4sVbN".to_owned(),
            created_at: DateTime::UNIX_EPOCH.into(),
            expires_at: None,
            last_used_at: None,
            token: None,
        }
    }
}

impl ApiToken {
    fn of(row: api_token::Model, token: Option<&SecretString>) -> Self {
        let subscriptions = match row.visible() {
            Scope::All => None,
            Scope::Subscriptions(ids) => Some(ids),
        };
        Self {
            subscriptions,
            permissions: row.permissions.map(|names| serde_json::from_value(names).unwrap_or_default()),
            id: row.id,
            name: row.name,
            role: row.role.into(),
            user: row.user_id,
            hint: row.hint,
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Timestamp::from),
            last_used_at: row.last_used_at.map(Timestamp::from),
            token: token.map(|token| Password(token.expose_secret().to_owned())),
        }
    }
}

const ORDER: Sorting<api_token::Model> = Sorting {
    keys: &[SortKey {
        name: "createdAt",
        column: || sea_orm::ColumnTrait::into_expr(api_token::Column::CreatedAt),
        nullable: false,
        read: |row| Key::from(row.created_at),
    }],
    default: "-createdAt",
    unique: SortKey {
        name: "id",
        column: || sea_orm::ColumnTrait::into_expr(api_token::Column::Id),
        nullable: false,
        read: |row| Key::from(row.id),
    },
};

/// API tokens.
pub struct TokensApi {
    identity: Arc<Identity>,
}

impl TokensApi {
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity }
    }
}

#[OpenApi(tag = "Tag::Users")]
impl TokensApi {
    /// List API tokens
    ///
    /// The caller's own; everybody's for an administrator. Sort by `createdAt`.
    #[oai(path = "/api/tokens", method = "get", operation_id = "listTokens")]
    async fn list(
        &self,
        caller: Caller<perm::AccountSelf>,
        params: ListParams,
    ) -> Result<Json<Page<ApiToken>>, ApiError> {
        let visible = api_token::visible(api_tokens::owner(&caller));
        let slice = params.fetch(visible, &ORDER, self.identity.db.reader()).await?;
        Ok(Json(slice.into_page(|row| ApiToken::of(row, None))))
    }

    /// Make an API token
    ///
    /// It acts for the caller, with the role, permissions and subscriptions that are asked for, which reach no further than the
    /// caller's.
    #[oai(path = "/api/tokens", method = "post", operation_id = "createToken")]
    async fn create(
        &self,
        caller: Caller<perm::AccountSelf>,
        once: Once,
        body: Json<NewApiToken>,
    ) -> Result<Made<Created<ApiToken>>, ApiError> {
        let new = body.0.into_new();
        api_tokens::require_rights(&caller, &new)?;
        let write = match once.begin(&self.identity.db).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(replay.stored()),
        };
        match api_tokens::create(&write, &caller, new).await {
            Ok((row, token)) => {
                write.commit(Created::at(format!("/api/tokens/{}", row.id), ApiToken::of(row, Some(&token)))).await
            }
            Err(refusal) => write.refused(refusal).await,
        }
    }

    /// Get an API token
    #[oai(path = "/api/tokens/:id", method = "get", operation_id = "getToken")]
    async fn get(&self, caller: Caller<perm::AccountSelf>, id: Path<Uuid>) -> Result<Json<ApiToken>, ApiError> {
        let row = api_token::by_id(self.identity.db.reader(), api_tokens::owner(&caller), id.0).await?;
        let row = row.filter(|row| row.revoked_at.is_none()).ok_or_else(|| ApiError::not_found("token"))?;
        Ok(Json(ApiToken::of(row, None)))
    }

    /// Revoke an API token
    #[oai(path = "/api/tokens/:id", method = "delete", operation_id = "deleteToken")]
    async fn delete(&self, caller: Caller<perm::AccountSelf>, id: Path<Uuid>) -> Result<NoContent, ApiError> {
        api_tokens::revoke(&self.identity, &caller, id.0).await?;
        Ok(NoContent::NoContent)
    }
}
