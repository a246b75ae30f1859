//! People who may sign in.

use crate::{scope::Scope, types::Role};
use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

#[derive(Clone, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "user_account")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    /// `name` in lower case, see [`name_key`]; unique.
    pub name_key: String,
    /// A PHC string of argon2id; none = cannot sign in with a password.
    pub password_hash: Option<String>,
    /// The password was made by the program and not yet changed by its owner.
    pub password_generated: bool,
    pub role: Role,
    pub disabled: bool,
    /// The ids of the subscriptions whose rows they may see; none = all.
    pub subscriptions: Option<Json>,
    /// Who vouches for them in single sign-on, and by which name; both set or neither.
    pub sso_issuer: Option<String>,
    pub sso_subject: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    pub version: i64,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("user_account").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The subscriptions whose rows they may see.
    pub fn visible(&self) -> Scope {
        Scope::of_column(self.subscriptions.as_ref())
    }

    /// Whether they come in by single sign-on, and no other way.
    pub fn is_sso(&self) -> bool {
        self.sso_issuer.is_some()
    }
}

/// The form of a name by which users are told apart.
pub fn name_key(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The user of this id.
pub async fn by_id(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// The user of this id, held until the caller's transaction ends, so that a sign-in and a new password take turns.
pub async fn by_id_locked(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).lock_exclusive().one(db).await
}

/// Those who administer and may sign in, held until the caller's transaction ends: of several that would take the last one
/// away together, each sees what the one before it left.
pub async fn admins_locked(db: &impl ConnectionTrait) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::Role.eq(Role::Admin))
        .filter(Column::Disabled.eq(false))
        .order_by_asc(Column::Id)
        .lock_exclusive()
        .all(db)
        .await
}

/// The user of this name, whatever its case.
pub async fn by_name(db: &impl ConnectionTrait, name: &str) -> Result<Option<Model>, DbErr> {
    Entity::find().filter(Column::NameKey.eq(name_key(name))).one(db).await
}

/// The user whom this issuer knows as this subject.
pub async fn by_subject(db: &impl ConnectionTrait, issuer: &str, subject: &str) -> Result<Option<Model>, DbErr> {
    Entity::find().filter(Column::SsoIssuer.eq(issuer)).filter(Column::SsoSubject.eq(subject)).one(db).await
}

/// The administrator who was there first, among those who may sign in.
pub async fn first_admin(db: &impl ConnectionTrait) -> Result<Option<Model>, DbErr> {
    Entity::find()
        .filter(Column::Role.eq(Role::Admin))
        .filter(Column::Disabled.eq(false))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .one(db)
        .await
}

/// Whether there is any user at all.
pub async fn any(db: &impl ConnectionTrait) -> Result<bool, DbErr> {
    Ok(Entity::find().one(db).await?.is_some())
}
