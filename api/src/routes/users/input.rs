//! What clients may say about a user.

use crate::{
    auth::{Identity, users},
    error::ApiError,
    patch::Patch,
    routes::role::Role,
};
use keywright_entities::user_account;
use poem_openapi::{
    Object,
    types::{Example, Password},
};
use secrecy::SecretString;
use uuid::Uuid;

/// A user to be.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct NewUser {
    /// By which they log in, whatever its case. Without control characters, and without spaces at its ends.
    #[oai(validator(
        max_length = 200,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    ))]
    name: String,
    role: Role,
    /// 12 to 1024 characters, none of the common ones. Absent: one is made and shown once.
    #[oai(validator(min_length = 12, max_length = 1024))]
    password: Option<Password>,
    /// Default `true`.
    enabled: Option<bool>,
    /// The subscriptions that they are to see; absent or null = all. Not with the role `admin`.
    #[oai(validator(max_items = 1000))]
    subscriptions: Option<Vec<Uuid>>,
}

impl Example for NewUser {
    fn example() -> Self {
        Self { name: "ada".to_owned(), role: Role::Operator, password: None, enabled: None, subscriptions: None }
    }
}

impl NewUser {
    pub fn into_parts(self) -> (users::NewUser, Option<SecretString>) {
        let new = users::NewUser {
            name: self.name,
            role: self.role.into(),
            enabled: self.enabled.unwrap_or(true),
            subscriptions: self.subscriptions.map(distinct),
        };
        (new, self.password.map(|password| password.0.into()))
    }
}

/// A merge patch: what is absent stays as it is.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct UserPatch {
    #[oai(validator(
        max_length = 200,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    ))]
    name: Option<String>,
    role: Option<Role>,
    enabled: Option<bool>,
    /// `null`: all.
    #[oai(validator(max_items = 1000))]
    subscriptions: Patch<Vec<Uuid>>,
    /// A new password of 12 to 1024 characters; `null`: one is made, shown in this answer alone, and must be changed.
    #[oai(validator(min_length = 12, max_length = 1024))]
    password: Patch<Password>,
}

impl UserPatch {
    /// The change, with a new password hashed.
    ///
    /// # Errors
    /// 404 for a password of nobody; 400 for one that breaks the rules.
    pub async fn into_change(self, identity: &Identity, id: Uuid) -> Result<users::Change, ApiError> {
        let password = match self.password {
            Patch::Keep => None,
            given => {
                let user = user_account::by_id(identity.db.reader(), id).await?;
                let name =
                    self.name.clone().or(user.map(|user| user.name)).ok_or_else(|| ApiError::not_found("user"))?;
                let given = given.apply(None).map(|password| password.0.into());
                Some(users::NewPassword::prepare(identity, given, &name).await?)
            }
        };
        let subscriptions = match self.subscriptions {
            Patch::Set(ids) => Patch::Set(distinct(ids)),
            other => other,
        };
        Ok(users::Change {
            name: self.name,
            role: self.role.map(Into::into),
            enabled: self.enabled,
            subscriptions,
            password,
        })
    }
}

fn distinct(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
