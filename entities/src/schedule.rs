//! Schedules: a request that is made again and again, at the instants of a cron expression.

use crate::{clock, scope::Scope, types::CatchUp};
use sea_orm::{
    Condition, DbBackend, ExprTrait, QueryOrder, QuerySelect,
    entity::prelude::*,
    sea_query::{LockBehavior, LockType},
};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "schedule")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    pub cron: String,
    /// Its name in the IANA time zone database.
    pub time_zone: String,
    /// The kind of job that it starts.
    pub kind: String,
    /// The body of that kind's own request.
    pub body: Json,
    pub catch_up: CatchUp,
    pub enabled: bool,
    /// The user whose rights count when it fires: who wrote it last.
    pub owner_id: Uuid,
    /// The instant that comes next and has not been dealt with; none while it is disabled.
    pub next_fire_at: Option<DateTimeUtc>,
    /// Since when its owner has not had the right to it, as far as its instants tell.
    pub blocked_at: Option<DateTimeUtc>,
    pub last_run_id: Option<Uuid>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
    /// Rises with every change of the definition, not when it fires.
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Those whose body names only subscriptions that may be seen. A body that names none means all that its owner sees: it is
/// shown to its owner, and to those who see all.
pub fn visible(backend: DbBackend, to: &Scope, user: Uuid) -> Select<Entity> {
    if *to == Scope::All {
        return Entity::find();
    }
    let (named, names_some) = match backend {
        DbBackend::Sqlite => {
            ("json_extract(\"body\", '$.subscriptions')", "json_type(\"body\", '$.subscriptions') = 'array'")
        }
        _ => ("\"body\" -> 'subscriptions'", "jsonb_typeof(\"body\" -> 'subscriptions') = 'array'"),
    };
    // of an absent member this is NULL, which would make its opposite NULL too
    let names_some = Expr::cust(format!("COALESCE({names_some}, FALSE)"));
    let within = Condition::all().add(names_some.clone()).add(to.on_all_of(backend, Expr::cust(named)));
    let own = Condition::all().add(names_some.not()).add(Column::OwnerId.eq(user));
    Entity::find().filter(Condition::any().add(within).add(own))
}

fn due_now(db: &impl ConnectionTrait) -> Select<Entity> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::find().filter(Column::NextFireAt.into_expr().lte(now))
}

/// Those whose next instant has come, by the database's clock, the longest due first.
pub async fn due(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Uuid>, DbErr> {
    due_now(db)
        .select_only()
        .column(Column::Id)
        .order_by_asc(Column::NextFireAt)
        .order_by_asc(Column::Id)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
}

/// The schedule of this id if its next instant has come and nobody else is dealing with it; until the caller's transaction ends
/// nobody else does.
pub async fn take_due(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    due_now(db).filter(Column::Id.eq(id)).lock_with_behavior(LockType::Update, LockBehavior::SkipLocked).one(db).await
}
