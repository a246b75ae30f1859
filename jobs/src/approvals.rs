//! Four eyes: what one person asks for and another must approve before it is done.
//!
//! An action asks with [`request`] in its own transaction. If it is a job, that rests until the decision and comes into the line in
//! the transaction of the approval; if it has none, [`decide`] does it there (`carry_out` lists those). Nobody decides what they
//! asked for themselves, through whichever of their tokens. What nobody decides within [`LIFE`] is over, and its job is canceled.

use crate::{
    audit::{Actor, Event, EventType},
    domain::permissions::Permission,
    queue::{Requester, approval as held, control},
    settings,
    setup::{
        database::{Database, Write},
        ids,
    },
};
use chrono::TimeDelta;
use keywright_entities::{
    approval, clock, job,
    scope::Scope,
    types::{ApprovalState, Outcome},
    user_account,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter,
    sea_query::Expr,
};
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// For how long an approval may be given, by the database's clock.
pub const LIFE: TimeDelta = TimeDelta::hours(72);
/// The actions for which the setting `fourEyes` may demand an approval.
pub const ACTIONS: &[&str] = &[settings::UPDATE];
/// How often a worker looks for what has had its time.
const LOOK: Duration = Duration::from_secs(5);
/// Approvals per look.
const BATCH: u64 = 100;

/// What is to be approved.
#[derive(Clone, Debug)]
pub struct Ask {
    /// A stable word, e.g. `settings.update`.
    pub action: &'static str,
    /// The kind of thing that it is done to, and which one.
    pub subject: (&'static str, Option<String>),
    /// Names exactly what will be done.
    pub plan_hash: String,
    /// What will be done, for whoever decides. Nothing secret.
    pub plan: Value,
    /// The subscription that it is about: whoever may not see that does not see this.
    pub subscription: Option<Uuid>,
    /// The job that does it, put into the queue in the same transaction.
    pub job: Option<Uuid>,
}

/// Why nothing can be asked for a job.
#[derive(Debug, Error)]
pub enum Unaskable {
    #[error("there is no job {0} that could wait for approval")]
    NoJob(Uuid),
    #[error("the job {0} has ended, and needs no approval any more")]
    JobDone(Uuid),
    /// It runs or has run before, or rests for another reason.
    #[error("the job {0} is under way or paused, and cannot wait for approval any more")]
    UnderWay(Uuid),
    #[error("the job {0} waits for another approval")]
    Awaited(Uuid),
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Asks, in the caller's transaction; `user` is the person behind the requester, who may not decide. The job rests from now on.
///
/// # Errors
/// [`Unaskable`]; the transaction is to be ended without a trace then.
pub async fn request(
    write: &Write,
    ask: Ask,
    requester: &Requester,
    user: Option<Uuid>,
) -> Result<approval::Model, Unaskable> {
    let now = clock::micros(clock::now(&**write).await?);
    let (subject_type, subject_id) = ask.subject;
    let row = approval::Model {
        id: ids::new(),
        action: ask.action.to_owned(),
        subject_type: subject_type.to_owned(),
        subject_id,
        plan_hash: ask.plan_hash,
        plan: ask.plan,
        subscription_id: ask.subscription,
        job_id: ask.job,
        state: ApprovalState::Pending,
        requested_by_type: requester.actor,
        requested_by_id: requester.id.clone(),
        requested_by_name: requester.name.clone(),
        requested_by_user: user,
        request_id: requester.request_id.clone(),
        created_at: now,
        expires_at: now + LIFE,
        decided_at: None,
        decided_by_type: None,
        decided_by_id: None,
        decided_by_name: None,
        comment: None,
        version: 1,
    };
    if let Some(job) = row.job_id
        && !held::hold(&**write, job, row.id).await?
    {
        return Err(unaskable(&**write, job).await?);
    }
    let row = row.into_active_model().reset_all().insert(&**write).await?;
    let actor = Actor { actor_type: requester.actor, id: requester.id.clone(), name: requester.name.clone() };
    let event = event(EventType::ApprovalRequested, actor, &row).detail("plan", row.plan.clone());
    event.request(requester.request_id.clone().unwrap_or_default()).write(&**write).await?;
    Ok(row)
}

async fn unaskable(db: &impl ConnectionTrait, job: Uuid) -> Result<Unaskable, DbErr> {
    Ok(match job::by_id(db, job).await? {
        None => Unaskable::NoJob(job),
        Some(row) if row.state.is_done() => Unaskable::JobDone(job),
        Some(row) if row.approval_id.is_some() => Unaskable::Awaited(job),
        Some(_) => Unaskable::UnderWay(job),
    })
}

/// What somebody says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Deny,
}

/// Who decides.
#[derive(Clone, Debug)]
pub struct Decider {
    pub actor: Actor,
    /// The person behind the actor.
    pub user: Uuid,
    /// What they may see.
    pub visible: Scope,
    pub request_id: String,
}

/// Why a decision was not taken. Nothing was written.
#[derive(Debug, Error)]
pub enum Refused {
    #[error("there is no such approval")]
    NotFound,
    #[error("nobody decides what they asked for themselves")]
    SelfApproval,
    /// It stands like this already.
    #[error("it is {} already", .0)]
    Decided(ApprovalState),
    #[error("what was planned does not hold any more")]
    Stale,
    #[error("whoever asked for it may not do it any more")]
    RequesterLostRight,
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Decides, in the caller's transaction: an approved job is let into the line, a denied one canceled, and what has no job is done.
///
/// # Errors
/// [`Refused`]. Of two decisions the second is [`Refused::Decided`].
pub async fn decide(
    write: &Write,
    id: Uuid,
    decision: Decision,
    by: &Decider,
    comment: Option<String>,
) -> Result<approval::Model, Refused> {
    let db = &**write;
    let seen = approval::visible(&by.visible).filter(approval::Column::Id.eq(id)).one(db).await?;
    let job = seen.ok_or(Refused::NotFound)?.job_id;
    if let Some(job) = job {
        held::lock(db, job).await?;
    }
    let row = approval::by_id_locked(db, id).await?.ok_or(Refused::NotFound)?;
    if row.requested_by_user == Some(by.user) {
        return Err(Refused::SelfApproval);
    }
    let now = clock::micros(clock::now(db).await?);
    match row.state_at(now) {
        ApprovalState::Pending => {}
        other => return Err(Refused::Decided(other)),
    }
    let (state, event_type) = match decision {
        Decision::Approve => (ApprovalState::Approved, EventType::ApprovalApproved),
        Decision::Deny => (ApprovalState::Denied, EventType::ApprovalDenied),
    };
    match (decision, row.job_id) {
        (Decision::Approve, Some(job)) => {
            if !held::let_in(db, job, row.id).await? {
                return Err(Refused::Stale);
            }
        }
        (Decision::Approve, None) => carry_out(write, &row, by).await?,
        (Decision::Deny, _) => {}
    }
    let mut after = row.clone().into_active_model();
    after.state = Set(state);
    after.decided_at = Set(Some(now));
    after.decided_by_type = Set(Some(by.actor.actor_type));
    after.decided_by_id = Set(by.actor.id.clone());
    after.decided_by_name = Set(by.actor.name.clone());
    after.comment = Set(comment);
    after.version = Set(row.version + 1);
    let after = after.update(db).await?;
    // the decision first: the end of its job would else end it as expired
    if let (Decision::Deny, Some(job)) = (decision, after.job_id) {
        control::cancel(db, job).await?;
    }
    let event = event(event_type, by.actor.clone(), &after).detail("comment", after.comment.clone());
    event.request(by.request_id.as_str()).write(db).await?;
    Ok(after)
}

/// Does what has no job of its own: THE list.
async fn carry_out(write: &Write, row: &approval::Model, by: &Decider) -> Result<(), Refused> {
    match row.action.as_str() {
        settings::UPDATE => {
            still_allowed(write, row, Permission::SettingsWrite).await?;
            let change: settings::Change = serde_json::from_value(row.plan.clone()).map_err(|_| Refused::Stale)?;
            let before = keywright_entities::settings::row_locked(&**write).await?;
            if before.version != change.version {
                return Err(Refused::Stale);
            }
            let asked = Actor {
                actor_type: row.requested_by_type,
                id: row.requested_by_id.clone(),
                name: row.requested_by_name.clone(),
            };
            settings::apply(write, before, change.content, asked, &by.request_id).await?;
            Ok(())
        }
        // written by another version
        _ => Err(Refused::Stale),
    }
}

/// Whoever asked does it with the rights that they have now.
async fn still_allowed(write: &Write, row: &approval::Model, needed: Permission) -> Result<(), Refused> {
    let Some(user) = row.requested_by_user else { return Ok(()) };
    let user = user_account::by_id(&**write, user).await?;
    let allowed = user.is_some_and(|user| !user.disabled && needed.is_of(user.role));
    if allowed { Ok(()) } else { Err(Refused::RequesterLostRight) }
}

/// Ends what nobody has decided in time until it is told to stop.
pub async fn run(database: Database, stop: CancellationToken) {
    loop {
        let wait = match expire(&database).await {
            Ok(0) => LOOK,
            // perhaps there are more
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "approvals that have had their time could not be ended; trying again");
                LOOK
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Ends what nobody has decided in time, and cancels its jobs; tells how many there were.
///
/// # Errors
/// When the database does not take it; what was ended until then is.
pub async fn expire(database: &Database) -> Result<usize, DbErr> {
    let mut ended = 0;
    for id in approval::lapsed(database.reader(), BATCH).await? {
        let write = database.begin().await?;
        let seen = approval::Entity::find_by_id(id).one(&*write).await?;
        if let Some(job) = seen.and_then(|row| row.job_id) {
            held::lock(&*write, job).await?;
        }
        let now = clock::now(&*write).await?;
        match approval::by_id_locked(&*write, id).await? {
            Some(row) if row.state == ApprovalState::Pending && row.expires_at <= now => {
                end(&*write, &row, "time").await?;
                if let Some(job) = row.job_id {
                    control::cancel(&*write, job).await?;
                }
                write.commit().await?;
                ended += 1;
            }
            // somebody else was faster
            _ => write.rollback().await?,
        }
    }
    Ok(ended)
}

/// What the ends of jobs that still waited for approval mean: there is nothing to decide any more.
pub(crate) async fn jobs_ended(db: &impl ConnectionTrait, jobs: &[job::Model]) -> Result<(), DbErr> {
    for id in jobs.iter().filter_map(|job| job.approval_id) {
        if let Some(row) = approval::by_id_locked(db, id).await?
            && row.state == ApprovalState::Pending
        {
            end(db, &row, "job_ended").await?;
        }
    }
    Ok(())
}

async fn end(db: &impl ConnectionTrait, row: &approval::Model, reason: &str) -> Result<(), DbErr> {
    let now = Expr::cust(clock::sql(db.get_database_backend(), 0));
    approval::Entity::update_many()
        .col_expr(approval::Column::State, Expr::value(ApprovalState::Expired.as_str()))
        .col_expr(approval::Column::DecidedAt, now)
        .col_expr(approval::Column::Version, Expr::value(row.version + 1))
        .filter(approval::Column::Id.eq(row.id))
        .exec(db)
        .await?;
    let event = event(EventType::ApprovalExpired, Actor::SYSTEM, row).outcome(Outcome::Failure);
    event.detail("reason", reason).write(db).await
}

fn event(event_type: EventType, actor: Actor, row: &approval::Model) -> Event {
    let event = Event::new(event_type, actor, "approval")
        .subject(row.id)
        .detail("action", row.action.as_str())
        .detail("subjectType", row.subject_type.as_str())
        .detail("subjectId", row.subject_id.clone())
        .detail("planHash", row.plan_hash.as_str());
    match row.job_id {
        Some(job) => event.job(job),
        None => event,
    }
}
