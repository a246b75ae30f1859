//! What somebody asked for and somebody else must approve.

use crate::{
    clock,
    scope::Scope,
    types::{ActorType, ApprovalState},
};
use sea_orm::{Condition, ExprTrait, QueryOrder, QuerySelect, entity::prelude::*};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "approval")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// What is to be done, e.g. `settings.update`.
    pub action: String,
    /// The kind of thing that it is done to, and which one.
    pub subject_type: String,
    pub subject_id: Option<String>,
    /// SHA-256 over all that will be done, in hex.
    pub plan_hash: String,
    /// What will be done, without anything secret.
    pub plan: Json,
    /// The subscription that it is about; whoever may not see that does not see this.
    pub subscription_id: Option<Uuid>,
    /// The job that waits for it.
    pub job_id: Option<Uuid>,
    /// `pending` also for what has had its time and was not yet seen by anybody: see [`Model::state_at`].
    pub state: ApprovalState,
    pub requested_by_type: ActorType,
    pub requested_by_id: Option<String>,
    pub requested_by_name: Option<String>,
    /// The person behind it, who may not decide.
    pub requested_by_user: Option<Uuid>,
    pub request_id: Option<String>,
    pub created_at: DateTimeUtc,
    pub expires_at: DateTimeUtc,
    pub decided_at: Option<DateTimeUtc>,
    pub decided_by_type: Option<ActorType>,
    pub decided_by_id: Option<String>,
    pub decided_by_name: Option<String>,
    pub comment: Option<String>,
    pub version: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// How it stands at this instant of the database's clock.
    pub fn state_at(&self, now: DateTimeUtc) -> ApprovalState {
        if self.state == ApprovalState::Pending && self.expires_at <= now { ApprovalState::Expired } else { self.state }
    }
}

/// Those that a caller may see.
pub fn visible(to: &Scope) -> Select<Entity> {
    match to {
        Scope::All => Entity::find(),
        restricted => Entity::find().filter(restricted.on(Column::SubscriptionId)),
    }
}

/// Those that stand like one of these at this instant of the database's clock.
pub fn standing(states: &[ApprovalState], now: DateTimeUtc) -> Condition {
    let pending = || Column::State.eq(ApprovalState::Pending);
    let stands = |state: &ApprovalState| match state {
        ApprovalState::Pending => Condition::all().add(pending()).add(Column::ExpiresAt.gt(now)),
        ApprovalState::Expired => Condition::any()
            .add(Column::State.eq(ApprovalState::Expired))
            .add(Condition::all().add(pending()).add(Column::ExpiresAt.lte(now))),
        other => Condition::all().add(Column::State.eq(*other)),
    };
    states.iter().map(stands).fold(Condition::any(), Condition::add)
}

/// The one of this id, held until the caller's transaction ends.
pub async fn by_id_locked(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).lock_exclusive().one(db).await
}

/// What this person asked for with this plan and nobody has decided yet.
pub async fn open_of(db: &impl ConnectionTrait, plan_hash: &str, user: Uuid) -> Result<Option<Model>, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::find()
        .filter(Column::State.eq(ApprovalState::Pending))
        .filter(Column::PlanHash.eq(plan_hash))
        .filter(Column::RequestedByUser.eq(user))
        .filter(Column::ExpiresAt.into_expr().gt(now))
        .order_by_desc(Column::CreatedAt)
        .one(db)
        .await
}

/// Those whose time has passed undecided, the oldest first.
pub async fn lapsed(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<Uuid>, DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::State.eq(ApprovalState::Pending))
        .filter(Column::ExpiresAt.into_expr().lte(now))
        .order_by_asc(Column::ExpiresAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
}
