//! Users: who may sign in, as what, and how far they see. Somebody who may administer is always left.

use super::{Identity, Principal, passwords, sessions::event, throttle};
use crate::{
    answer::expect_version,
    error::{ApiError, Code, FieldError},
    patch::Patch,
    strict,
};
use keywright_entities::{
    api_token, clock,
    scope::Scope,
    session::{self, Which},
    subscription,
    types::Role,
    user_account,
};
use keywright_jobs::{
    audit::{EventType, names},
    setup::{database::Write, ids},
};
use sea_orm::{ActiveModelTrait, ColumnTrait, DbErr, IntoActiveModel, ModelTrait, QueryFilter, QuerySelect, SqlErr};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

/// Most characters of a user's name.
pub const MAX_NAME: usize = 200;

/// A password as it is stored, and whether its owner must change it.
pub struct NewPassword {
    hash: String,
    generated: Option<SecretString>,
}

impl NewPassword {
    /// Hashes the password that was given, or makes one.
    ///
    /// # Errors
    /// 400 for one that breaks the rules; 429 when too many are hashed already.
    pub async fn prepare(identity: &Identity, given: Option<SecretString>, name: &str) -> Result<Self, ApiError> {
        if let Some(given) = &given {
            passwords::check(given, name, "/password")?;
        }
        let generated = if given.is_none() { Some(passwords::generate().map_err(ApiError::internal)?) } else { None };
        let Some(password) = given.or_else(|| generated.clone()) else {
            return Err(ApiError::internal("there is no password to hash"));
        };
        Ok(Self { hash: identity.passwords.hash(password).await?, generated })
    }

    /// The one that was made, to be shown once.
    pub fn shown(self) -> Option<SecretString> {
        self.generated
    }
}

/// A user to be.
pub struct NewUser {
    pub name: String,
    pub role: Role,
    pub enabled: bool,
    pub subscriptions: Option<Vec<Uuid>>,
}

/// What is to be changed of a user.
#[derive(Default)]
pub struct Change {
    pub name: Option<String>,
    pub role: Option<Role>,
    pub enabled: Option<bool>,
    pub subscriptions: Patch<Vec<Uuid>>,
    pub password: Option<NewPassword>,
}

/// Adds a user in the caller's transaction.
///
/// # Errors
/// 403 for a role with more rights than the caller has; 400 for a name or restriction that cannot be; 409 for a name that
/// somebody has.
pub async fn create(
    write: &Write,
    caller: &Principal,
    new: NewUser,
    password: &NewPassword,
) -> Result<user_account::Model, ApiError> {
    caller.require_all_of(new.role, None)?;
    check_name(&new.name)?;
    if let Some(ids) = &new.subscriptions {
        check_unrestricted(new.role)?;
        check_subscriptions(write, &Scope::All, ids).await?;
    }
    let now = clock::micros(clock::now(&**write).await?);
    let row = user_account::Model {
        id: ids::new(),
        name_key: user_account::name_key(&new.name),
        name: new.name,
        password_hash: Some(password.hash.clone()),
        password_generated: password.generated.is_some(),
        role: new.role,
        disabled: !new.enabled,
        subscriptions: new.subscriptions.map(|ids| json!(ids)),
        sso_issuer: None,
        sso_subject: None,
        created_at: now,
        updated_at: now,
        version: 1,
    };
    let row = row.into_active_model().insert(&**write).await.map_err(taken)?;
    event(EventType::UserCreated, caller.actor(), "user")
        .subject(row.id)
        .detail("name", row.name.as_str())
        .detail("role", row.role.as_str())
        .detail("enabled", !row.disabled)
        .detail("subscriptions", row.subscriptions.clone())
        .write(&**write)
        .await?;
    Ok(row)
}

/// Changes a user in the caller's transaction. Disabling ends their sessions and API tokens, a new password their sessions; a
/// role and a restriction count from their next request on, since both are read with every one.
///
/// # Errors
/// 404; 412; 403 for a user or a role with more rights than the caller has; 409 `last_admin`; as [`create`].
pub async fn change(
    write: &Write,
    caller: &Principal,
    id: Uuid,
    if_match: Option<&str>,
    change: &Change,
) -> Result<user_account::Model, ApiError> {
    let (before, admins) = find_to_change(write, id).await?;
    expect_version(if_match, before.version)?;
    caller.require_all_of(before.role, None)?;
    let mut after = before.clone();
    if let Some(name) = &change.name {
        check_name(name)?;
        after.name_key = user_account::name_key(name);
        after.name.clone_from(name);
    }
    if let Some(role) = change.role {
        caller.require_all_of(role, None)?;
        after.role = role;
    }
    after.disabled = change.enabled.map_or(before.disabled, |enabled| !enabled);
    match &change.subscriptions {
        Patch::Keep => {}
        Patch::Clear => after.subscriptions = None,
        Patch::Set(ids) => {
            // one that was there may have been deleted since
            let kept = Scope::of_column(before.subscriptions.as_ref());
            let kept = |id: &Uuid| matches!(&kept, Scope::Subscriptions(had) if had.contains(id));
            let added: Vec<Option<Uuid>> = ids.iter().map(|id| Some(*id).filter(|id| !kept(id))).collect();
            check_added(write, &Scope::All, &added).await?;
            after.subscriptions = Some(json!(ids));
        }
    }
    if after.subscriptions.is_some() {
        check_unrestricted(after.role)?;
    }
    if let Some(password) = &change.password {
        refuse_own(caller, id)?;
        refuse_sso(&before)?;
        after.password_hash = Some(password.hash.clone());
        after.password_generated = password.generated.is_some();
    }
    if after.role != Role::Admin || after.disabled {
        refuse_last(&admins, id)?;
    }
    after.updated_at = clock::micros(clock::now(&**write).await?);
    after.version += 1;
    let after = after.into_active_model().reset_all().update(&**write).await.map_err(taken)?;
    end_access(write, &before, &after, change.password.is_some()).await?;
    tell(write, caller, &before, &after, change.password.is_some()).await?;
    Ok(after)
}

/// Removes a user in the caller's transaction, with all sessions and tokens. What they did stays in the audit log; their
/// schedules are blocked until somebody else takes them over.
///
/// # Errors
/// 404; 412, 428; 403 for a user with more rights than the caller has; 409 `last_admin`.
pub async fn delete(write: &Write, caller: &Principal, id: Uuid, if_match: Option<&str>) -> Result<(), ApiError> {
    let (row, admins) = find_to_change(write, id).await?;
    if if_match.is_none() {
        return Err(ApiError::precondition_required());
    }
    expect_version(if_match, row.version)?;
    caller.require_all_of(row.role, None)?;
    refuse_last(&admins, id)?;
    session::revoke(&**write, id, Which::All).await?;
    api_token::revoke_of(&**write, id).await?;
    event(EventType::UserDeleted, caller.actor(), "user")
        .subject(id)
        .detail("name", row.name.as_str())
        .detail("role", row.role.as_str())
        .write(&**write)
        .await?;
    row.delete(&**write).await?;
    names::erase(write, id).await?;
    Ok(())
}

/// The user, and all who administer; nobody else changes any of them before this transaction ends.
async fn find_to_change(write: &Write, id: Uuid) -> Result<(user_account::Model, Vec<user_account::Model>), ApiError> {
    // always in this order, so that two changes do not wait for each other
    let admins = user_account::admins_locked(&**write).await?;
    let row = user_account::by_id_locked(&**write, id).await?.ok_or_else(|| ApiError::not_found("user"))?;
    Ok((row, admins))
}

/// # Errors
/// 409 `last_admin` when nobody else may administer.
pub(super) fn refuse_last(admins: &[user_account::Model], id: Uuid) -> Result<(), ApiError> {
    if matches!(admins, [only] if only.id == id) {
        let detail = "This is the last enabled administrator. Make another user one first.";
        return Err(ApiError::new(Code::LastAdmin, detail));
    }
    Ok(())
}

/// A stolen token must not be worth a new password.
fn refuse_own(caller: &Principal, id: Uuid) -> Result<(), ApiError> {
    if caller.user_id == id {
        let message = "Change your own password with POST /api/auth/password, which asks for the present one.";
        return Err(ApiError::invalid("/password", "own", message));
    }
    Ok(())
}

/// Whoever comes in by single sign-on does so in no other way.
fn refuse_sso(user: &user_account::Model) -> Result<(), ApiError> {
    if user.is_sso() {
        let message = "This user comes in by single sign-on and has no password here.";
        return Err(ApiError::invalid("/password", "sso", message));
    }
    Ok(())
}

async fn end_access(
    write: &Write,
    before: &user_account::Model,
    after: &user_account::Model,
    new_password: bool,
) -> Result<(), DbErr> {
    let disabled = after.disabled && !before.disabled;
    if disabled || new_password {
        session::revoke(&**write, after.id, Which::All).await?;
    }
    if new_password {
        throttle::unlock(&**write, after.id).await?;
    }
    if disabled {
        api_token::revoke_of(&**write, after.id).await?;
    }
    Ok(())
}

async fn tell(
    write: &Write,
    caller: &Principal,
    before: &user_account::Model,
    after: &user_account::Model,
    new_password: bool,
) -> Result<(), DbErr> {
    let mut changed = event(EventType::UserUpdated, caller.actor(), "user").subject(after.id);
    let fields = [
        ("name", json!(before.name), json!(after.name)),
        ("role", json!(before.role), json!(after.role)),
        ("enabled", json!(!before.disabled), json!(!after.disabled)),
        ("subscriptions", json!(before.subscriptions), json!(after.subscriptions)),
    ];
    for (field, before, after) in fields {
        if before != after {
            changed = changed.detail(field, json!({"from": before, "to": after}));
        }
    }
    changed.write(&**write).await?;
    if new_password {
        event(EventType::PasswordReset, caller.actor(), "user").subject(after.id).write(&**write).await?;
    }
    Ok(())
}

/// Names are shown beside each other and compared by eye: no white space at their ends, nothing that does not show.
fn check_name(name: &str) -> Result<(), ApiError> {
    let shows = name.trim() == name && !name.chars().any(char::is_control);
    if shows && (1..=MAX_NAME).contains(&name.chars().count()) {
        return Ok(());
    }
    let message =
        format!("Must be 1 to {MAX_NAME} characters, without control characters and without spaces at the ends.");
    Err(ApiError::invalid("/name", "format", message))
}

/// # Errors
/// 400: who administers could lift any restriction, so there is none.
pub fn check_unrestricted(role: Role) -> Result<(), ApiError> {
    if role == Role::Admin {
        let message = "An administrator sees everything. Leave it out, or choose another role.";
        return Err(ApiError::invalid("/subscriptions", "admin", message));
    }
    Ok(())
}

/// # Errors
/// 400 that points to each subscription that does not exist or is outside of `visible`.
pub async fn check_subscriptions(write: &Write, visible: &Scope, ids: &[Uuid]) -> Result<(), ApiError> {
    check_added(write, visible, &ids.iter().copied().map(Some).collect::<Vec<_>>()).await
}

/// `None` stands for one that need not be looked at.
async fn check_added(write: &Write, visible: &Scope, ids: &[Option<Uuid>]) -> Result<(), ApiError> {
    let found: Vec<Uuid> = subscription::live()
        .filter(visible.on(subscription::Column::Id))
        .filter(subscription::Column::Id.is_in(ids.iter().flatten().copied()))
        .select_only()
        .column(subscription::Column::Id)
        .into_tuple()
        .all(&**write)
        .await?;
    let unknown = ids.iter().enumerate().filter(|(_, id)| id.is_some_and(|id| !found.contains(&id)));
    let text = "There is no such subscription, or you may not see it.";
    strict::refuse(unknown.map(|(at, _)| FieldError::new(format!("/subscriptions/{at}"), "unknown", text)).collect())
}

fn taken(error: DbErr) -> ApiError {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => ApiError::conflict("There is a user of this name already."),
        _ => error.into(),
    }
}
