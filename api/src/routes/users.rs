//! Users: for administrators.

mod input;

use super::{Tag, role::Role};
use crate::{
    answer::{Created, Current, Found, NoContent},
    auth::{Caller, Identity, Principal, perm, users},
    error::ApiError,
    idempotency::{Begun, Made, Once},
    page::{ListParams, Page, SortKey, Sorting},
    timestamp::Timestamp,
};
use input::{NewUser, UserPatch};
use keywright_entities::{scope::Scope, user_account};
use keywright_jobs::{domain::licence::Limit, licence::Licence, setup::database::Write};
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
    types::Password,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use uuid::Uuid;

/// Somebody who may log in.
#[derive(Debug, Object)]
#[oai(rename = "User", rename_all = "camelCase")]
pub struct UserView {
    pub id: Uuid,
    pub name: String,
    pub role: Role,
    /// Who is disabled cannot log in and has no session and no API token.
    pub enabled: bool,
    /// The subscriptions that they see, with what belongs to them; null = all.
    pub subscriptions: Option<Vec<Uuid>>,
    /// They come in by single sign-on, and have no password here.
    pub sso: bool,
    /// The password was made by the program: until it is changed, a session can do nothing else.
    pub password_change_required: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The password that was made, in the answer to the request that had it made; null ever after.
    pub password: Option<Password>,
}

impl UserView {
    fn of(row: user_account::Model, password: Option<&SecretString>) -> Self {
        let subscriptions = match row.visible() {
            Scope::All => None,
            Scope::Subscriptions(ids) => Some(ids),
        };
        Self {
            id: row.id,
            sso: row.is_sso(),
            name: row.name,
            role: row.role.into(),
            enabled: !row.disabled,
            subscriptions,
            password_change_required: row.password_generated,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            password: password.map(|password| Password(password.expose_secret().to_owned())),
        }
    }
}

static USERS: Sorting<user_account::Model> = Sorting {
    keys: &[
        SortKey {
            name: "createdAt",
            column: || user_account::Column::CreatedAt.into_expr(),
            nullable: false,
            read: |row| row.created_at.into(),
        },
        SortKey {
            name: "name",
            column: || user_account::Column::NameKey.into_expr(),
            nullable: false,
            read: |row| row.name_key.clone().into(),
        },
    ],
    default: "createdAt",
    unique: SortKey {
        name: "id",
        column: || user_account::Column::Id.into_expr(),
        nullable: false,
        read: |row| row.id.into(),
    },
};

/// Users.
pub struct UsersApi {
    identity: Arc<Identity>,
    licence: Arc<Licence>,
}

impl UsersApi {
    #[must_use]
    pub fn new(identity: Arc<Identity>, licence: Arc<Licence>) -> Self {
        Self { identity, licence }
    }

    async fn add(
        &self,
        write: &Write,
        caller: &Principal,
        new: users::NewUser,
        password: &users::NewPassword,
    ) -> Result<user_account::Model, ApiError> {
        if new.enabled {
            self.licence.admit(write, Limit::Users).await?;
        }
        users::create(write, caller, new, password).await
    }

    /// Whoever enables a user adds one.
    async fn change(
        &self,
        write: &Write,
        caller: &Principal,
        id: Uuid,
        if_match: Option<&str>,
        change: &users::Change,
    ) -> Result<user_account::Model, ApiError> {
        if change.enabled == Some(true) {
            self.licence.take_turn(write, Limit::Users).await?;
            if user_account::by_id(&**write, id).await?.is_some_and(|user| user.disabled) {
                self.licence.admit(write, Limit::Users).await?;
            }
        }
        users::change(write, caller, id, if_match, change).await
    }
}

#[OpenApi(tag = "Tag::Users")]
impl UsersApi {
    /// List users
    #[oai(path = "/api/users", method = "get", operation_id = "listUsers")]
    async fn list(
        &self,
        caller: Caller<perm::UsersManage>,
        list: ListParams,
        /// Only those with this role.
        role: Query<Option<Role>>,
        /// Only enabled or only disabled ones.
        enabled: Query<Option<bool>>,
        /// `createdAt` (default), `name`.
        sort: Query<Option<String>>,
    ) -> Result<Json<Page<UserView>>, ApiError> {
        let _ = (caller, sort);
        let mut select = user_account::Entity::find();
        if let Some(role) = role.0 {
            select = select.filter(user_account::Column::Role.eq(keywright_entities::types::Role::from(role)));
        }
        if let Some(enabled) = enabled.0 {
            select = select.filter(user_account::Column::Disabled.eq(!enabled));
        }
        let slice = list.fetch(select, &USERS, self.identity.db.reader()).await?;
        Ok(Json(slice.into_page(|row| UserView::of(row, None))))
    }

    /// Add a user
    ///
    /// Without a password one is made, shown in this answer alone, and must be changed at the first login.
    #[oai(path = "/api/users", method = "post", operation_id = "createUser")]
    async fn create(
        &self,
        caller: Caller<perm::UsersManage>,
        once: Once,
        body: Json<NewUser>,
    ) -> Result<Made<Created<UserView>>, ApiError> {
        let (new, given) = body.0.into_parts();
        let password = users::NewPassword::prepare(&self.identity, given, &new.name).await?;
        let write = match once.begin(&self.identity.db).await? {
            Begun::New(write) => write,
            Begun::Replay(replay) => return Ok(replay.stored()),
        };
        match self.add(&write, &caller, new, &password).await {
            Ok(row) => {
                let (location, version) = (format!("/api/users/{}", row.id), row.version);
                let shown = UserView::of(row, password.shown().as_ref());
                write.commit(Created::versioned(location, version, shown)).await
            }
            Err(refusal) => write.refused(refusal).await,
        }
    }

    /// Get a user
    #[oai(path = "/api/users/:id", method = "get", operation_id = "getUser")]
    async fn get(
        &self,
        caller: Caller<perm::UsersManage>,
        id: Path<Uuid>,
        /// The version that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
    ) -> Result<Found<UserView>, ApiError> {
        let _ = caller;
        let row = user_account::by_id(self.identity.db.reader(), id.0).await?;
        let row = row.ok_or_else(|| ApiError::not_found("user"))?;
        Ok(Found::at_version(row.version, if_none_match.0.as_deref(), UserView::of(row, None)))
    }

    /// Change a user
    ///
    /// A merge patch (RFC 7396). Disabling ends the user's sessions and API tokens, a new password ends the sessions; a role and a
    /// restriction count from the user's next request on. The last enabled administrator stays one.
    #[oai(path = "/api/users/:id", method = "patch", operation_id = "updateUser")]
    async fn update(
        &self,
        caller: Caller<perm::UsersManage>,
        id: Path<Uuid>,
        /// The version that is to be changed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<UserPatch>,
    ) -> Result<Current<UserView>, ApiError> {
        let change = body.0.into_change(&self.identity, id.0).await?;
        let write = self.identity.db.begin().await?;
        let done = self.change(&write, &caller, id.0, if_match.0.as_deref(), &change).await;
        let row = write.settle(done).await?;
        let password = change.password.and_then(users::NewPassword::shown);
        Ok(Current::at_version(row.version, UserView::of(row, password.as_ref())))
    }

    /// Remove a user
    ///
    /// With all sessions and API tokens. Schedules of the user are blocked until somebody else changes them.
    #[oai(path = "/api/users/:id", method = "delete", operation_id = "deleteUser")]
    async fn delete(
        &self,
        caller: Caller<perm::UsersManage>,
        id: Path<Uuid>,
        /// The version that is to be removed.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<NoContent, ApiError> {
        let write = self.identity.db.begin().await?;
        let done = users::delete(&write, &caller, id.0, if_match.0.as_deref()).await;
        write.settle(done).await.map(|()| NoContent::NoContent)
    }
}
