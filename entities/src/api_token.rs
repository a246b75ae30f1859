//! Tokens for programs. They act for their owner, with at most the owner's rights.

use crate::{clock, scope::Scope, types::Role, user_account};
use sea_orm::{Condition, DbBackend, ExprTrait, PaginatorTrait, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "api_token")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    /// Its owner.
    pub user_id: Uuid,
    pub role: Role,
    /// The ids of the subscriptions whose rows it may see, out of its owner's; none = all of those.
    pub subscriptions: Option<Json>,
    /// The names of the permissions that it has, out of its role's; none = all of those.
    pub permissions: Option<Json>,
    /// SHA-256 of the token, in hex; the token itself is shown once and not stored.
    pub token_hash: String,
    /// Its first characters, by which people tell their tokens apart.
    pub hint: String,
    pub created_at: DateTimeUtc,
    pub expires_at: Option<DateTimeUtc>,
    pub last_used_at: Option<DateTimeUtc>,
    pub revoked_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    #[sea_orm(belongs_to = "user_account::Entity", from = "Column::UserId", to = "user_account::Column::Id")]
    User,
}

impl Related<user_account::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::User.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The subscriptions whose rows it may see, as far as its owner may.
    pub fn visible(&self) -> Scope {
        Scope::of_column(self.subscriptions.as_ref())
    }
}

/// Whose tokens may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Anyone,
    User(Uuid),
}

fn owned(owner: Owner) -> Select<Entity> {
    match owner {
        Owner::Anyone => Entity::find(),
        Owner::User(id) => Entity::find().filter(Column::UserId.eq(id)),
    }
}

/// The token of this hash, valid or not, with its owner.
pub async fn by_hash(
    db: &impl ConnectionTrait,
    hash: &str,
) -> Result<Option<(Model, Option<user_account::Model>)>, DbErr> {
    Entity::find().filter(Column::TokenHash.eq(hash)).find_also_related(user_account::Entity).one(db).await
}

/// The token of this id, revoked ones included, unless it belongs to somebody outside `owner`.
pub async fn by_id(db: &impl ConnectionTrait, owner: Owner, id: Uuid) -> Result<Option<Model>, DbErr> {
    owned(owner).filter(Column::Id.eq(id)).one(db).await
}

/// The tokens that are not revoked.
pub fn visible(owner: Owner) -> Select<Entity> {
    owned(owner).filter(Column::RevokedAt.is_null())
}

/// Ends a token by the database's clock; false if it was ended before.
pub async fn revoke(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    let update = Entity::update_many()
        .col_expr(Column::RevokedAt, now)
        .filter(Column::Id.eq(id))
        .filter(Column::RevokedAt.is_null());
    Ok(update.exec(db).await?.rows_affected == 1)
}

/// Ends all tokens of a user by the database's clock; tells how many.
pub async fn revoke_of(db: &impl ConnectionTrait, user: Uuid) -> Result<u64, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    let update = Entity::update_many()
        .col_expr(Column::RevokedAt, now)
        .filter(Column::UserId.eq(user))
        .filter(Column::RevokedAt.is_null());
    Ok(update.exec(db).await?.rows_affected)
}

/// Whether the token of this id is still within its time, by the database's clock.
pub async fn in_time(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(Entity::find_by_id(id).filter(within_time(db.get_database_backend())).count(db).await? == 1)
}

fn within_time(backend: DbBackend) -> Condition {
    let now = Expr::cust(clock::sql(backend, 0));
    Condition::any().add(Column::ExpiresAt.is_null()).add(Column::ExpiresAt.into_expr().gt(now))
}

/// Those of these tokens that are valid and whose owner is not disabled, with the owner.
pub async fn valid_with_owners(
    db: &impl ConnectionTrait,
    ids: &[Uuid],
) -> Result<Vec<(Model, user_account::Model)>, DbErr> {
    let rows = visible(Owner::Anyone)
        .filter(Column::Id.is_in(ids.iter().copied()))
        .filter(within_time(db.get_database_backend()))
        .find_also_related(user_account::Entity)
        .filter(user_account::Column::Disabled.eq(false))
        .all(db)
        .await?;
    Ok(rows.into_iter().filter_map(|(token, owner)| Some((token, owner?))).collect())
}

/// Notes that the token was used now.
pub async fn touch(db: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::update_many().col_expr(Column::LastUsedAt, now).filter(Column::Id.eq(id)).exec(db).await.map(|_| ())
}
