//! Sign-ins. An access token is worth no more than its session's row, which is read with every request.

use crate::{clock, user_account};
use sea_orm::{DbBackend, ExprTrait, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "session")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub user_id: Uuid,
    pub created_at: DateTimeUtc,
    pub last_used_at: DateTimeUtc,
    /// No refresh prolongs a session beyond this.
    pub expires_at: DateTimeUtc,
    pub revoked_at: Option<DateTimeUtc>,
    pub user_agent: Option<String>,
    pub address: Option<String>,
    /// It began with single sign-on, not with a password.
    pub sso: bool,
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

fn live(backend: DbBackend) -> Select<Entity> {
    let now = Expr::cust(clock::sql(backend, 0));
    Entity::find().filter(Column::RevokedAt.is_null()).filter(Column::ExpiresAt.into_expr().gt(now))
}

/// The sessions of a user that are neither ended nor run out.
pub fn live_of(backend: DbBackend, user: Uuid) -> Select<Entity> {
    live(backend).filter(Column::UserId.eq(user))
}

/// The session of this id with its user, if it is live and the user is not disabled.
pub async fn live_with_user(
    db: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<(Model, user_account::Model)>, DbErr> {
    let row = live(db.get_database_backend())
        .filter(Column::Id.eq(id))
        .find_also_related(user_account::Entity)
        .filter(user_account::Column::Disabled.eq(false))
        .one(db)
        .await?;
    Ok(row.and_then(|(session, user)| Some((session, user?))))
}

/// Those of these sessions that are live and whose user is not disabled, with the user.
pub async fn live_with_users(
    db: &impl ConnectionTrait,
    ids: &[Uuid],
) -> Result<Vec<(Model, user_account::Model)>, DbErr> {
    let rows = live(db.get_database_backend())
        .filter(Column::Id.is_in(ids.iter().copied()))
        .find_also_related(user_account::Entity)
        .filter(user_account::Column::Disabled.eq(false))
        .all(db)
        .await?;
    Ok(rows.into_iter().filter_map(|(session, user)| Some((session, user?))).collect())
}

/// Whether the user ever logged in at this address, as far as that is remembered: until a week after the session's end.
pub async fn began_at(db: &impl ConnectionTrait, user: Uuid, address: &str) -> Result<bool, DbErr> {
    let sessions = Entity::find().filter(Column::UserId.eq(user)).filter(Column::Address.eq(address));
    Ok(sessions.one(db).await?.is_some())
}

/// Ends these sessions of a user that are not yet ended, by the database's clock; tells how many.
pub async fn revoke(db: &impl ConnectionTrait, user: Uuid, which: Which) -> Result<u64, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    let update = Entity::update_many()
        .col_expr(Column::RevokedAt, now)
        .filter(Column::UserId.eq(user))
        .filter(Column::RevokedAt.is_null());
    let update = match which {
        Which::All => update,
        Which::One(id) => update.filter(Column::Id.eq(id)),
        Which::AllBut(id) => update.filter(Column::Id.ne(id)),
    };
    Ok(update.exec(db).await?.rows_affected)
}

/// Sessions out of those of one user.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    All,
    One(Uuid),
    AllBut(Uuid),
}

/// Notes that the session was used now.
pub async fn touch(db: &impl ConnectionTrait, id: Uuid) -> Result<(), DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::update_many().col_expr(Column::LastUsedAt, now).filter(Column::Id.eq(id)).exec(db).await.map(|_| ())
}
