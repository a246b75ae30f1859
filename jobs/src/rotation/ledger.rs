//! The record of a rotation and the list of its steps, written together: one more version, one more step, one more audit event.

use super::{Opened, RotationTarget};
use crate::{
    audit::{Actor, Event, EventType},
    domain::rotation::{Rotation, State},
    queue::Held,
};
use keywright_entities::{clock, rotation, rotation_credential, rotation_secret, rotation_step};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter,
    sea_query::{Expr, OnConflict},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What is written.
pub struct Change<'a> {
    /// The rotation as it was read: if it moved since, nothing is written.
    pub of: &'a Opened,
    pub record: &'a Rotation,
    /// `plan`, `enter`, `prepare`, `begin`, a call, or what somebody asked for.
    pub what: String,
    pub outcome: Option<&'static str>,
    /// Ids and versions; no value.
    pub details: Value,
    /// The attempt; `None` for people.
    pub by: Option<Held>,
    pub actor: Actor,
    pub also: Also,
}

/// What some changes write beside.
#[derive(Default)]
pub struct Also {
    /// A candidate's value, sealed, that was not known before.
    pub sealed: Option<rotation_secret::ActiveModel>,
    pub planned: Option<Planned>,
    /// The job that drives it from now on.
    pub job: Option<Uuid>,
}

/// What is known once it is planned.
#[derive(Clone)]
pub struct Planned {
    pub identity: String,
    pub target: RotationTarget,
    pub plan: Uuid,
    pub plan_hash: String,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It stands, perhaps since a try whose answer was lost.
    Stands,
    /// Somebody else changed the rotation first.
    Moved,
}

/// Writes a change in the caller's transaction. The same change of the same attempt may be written again.
pub async fn write(db: &impl ConnectionTrait, change: Change<'_>) -> Result<Written, DbErr> {
    let of = &change.of.row;
    let number = of.version + 1;
    let now = clock::micros(clock::now(db).await?);
    let state = change.record.state;
    let over = state.is_over();
    let promoted = of.promoted_at.or_else(|| (state == State::Promoted).then_some(now));
    let planned = change.also.planned;
    let identity = planned.as_ref().map(|planned| planned.identity.clone()).or_else(|| of.identity.clone());
    let mut update = rotation::Entity::update_many()
        .col_expr(rotation::Column::State, Expr::value(state.as_str()))
        .col_expr(rotation::Column::Record, Expr::value(json!(change.record)))
        .col_expr(rotation::Column::UpdatedAt, Expr::value(now))
        .col_expr(rotation::Column::PromotedAt, Expr::value(promoted))
        .col_expr(rotation::Column::EndedAt, Expr::value(over.then_some(now)))
        .col_expr(rotation::Column::OpenIdentity, Expr::value(identity.clone().filter(|_| !over)))
        .col_expr(rotation::Column::OpenAsset, Expr::value((!over).then_some(of.asset_id)))
        .col_expr(rotation::Column::Version, Expr::value(number));
    if let Some(planned) = planned {
        update = update
            .col_expr(rotation::Column::Identity, Expr::value(planned.identity))
            .col_expr(rotation::Column::Target, Expr::value(json!(planned.target)))
            .col_expr(rotation::Column::PlanId, Expr::value(planned.plan))
            .col_expr(rotation::Column::PlanHash, Expr::value(planned.plan_hash));
    }
    if let Some(job) = change.also.job {
        update = update.col_expr(rotation::Column::JobId, Expr::value(job));
    }
    let updated =
        update.filter(rotation::Column::Id.eq(of.id)).filter(rotation::Column::Version.eq(of.version)).exec(db).await?;
    if updated.rows_affected == 0 {
        return if is_ours(db, of.id, number, change.by).await? { Ok(Written::Stands) } else { Ok(Written::Moved) };
    }
    let (before, after) = (of.state.clone(), state.as_str());
    let step = rotation_step::ActiveModel {
        rotation_id: Set(of.id),
        number: Set(number),
        at: Set(now),
        job_id: Set(change.by.map(|held| held.id)),
        epoch: Set(change.by.map_or(0, |held| held.epoch)),
        what: Set(change.what.clone()),
        before: Set(before.clone()),
        after: Set(after.to_owned()),
        outcome: Set(change.outcome.map(str::to_owned)),
        details: Set(change.details.clone()),
    };
    step.insert(db).await?;
    if let Some(sealed) = change.also.sealed {
        let columns = [
            rotation_secret::Column::Version,
            rotation_secret::Column::KeyId,
            rotation_secret::Column::Sealed,
            rotation_secret::Column::CreatedAt,
        ];
        let replaces = OnConflict::column(rotation_secret::Column::RotationId).update_columns(columns).to_owned();
        rotation_secret::Entity::insert(sealed).on_conflict(replaces).exec_without_returning(db).await?;
    }
    if let Some(identity) = identity {
        record_ids(db, change.of, change.record, &identity).await?;
    }
    if keeps_no_value(change.record) {
        rotation_secret::Entity::delete_many().filter(rotation_secret::Column::RotationId.eq(of.id)).exec(db).await?;
    }
    if before != after || change.by.is_none() {
        let job = change.also.job.unwrap_or(of.job_id);
        let event = Event::new(EventType::RotationStep, change.actor, "rotation").subject(of.id).job(job);
        let event = event.detail("what", change.what).detail("before", before).detail("after", after);
        event.detail("details", change.details).write(db).await?;
    }
    Ok(Written::Stands)
}

/// Keeps the ids of what was made beyond the rotation: what is left of it is known for ours later.
async fn record_ids(db: &impl ConnectionTrait, of: &Opened, record: &Rotation, identity: &str) -> Result<(), DbErr> {
    fn ids(record: &Rotation) -> [Option<&String>; 5] {
        let versions = [record.candidate_version.as_ref(), record.previous_version.as_ref()];
        [record.candidate.as_ref(), record.orphan.as_ref(), record.previous.as_ref(), versions[0], versions[1]]
    }
    let known = ids(&of.record);
    let new = ids(record).into_iter().flatten();
    let rows: Vec<_> = new
        .filter(|id| !known.contains(&Some(*id)))
        .map(|id| rotation_credential::ActiveModel {
            identity: Set(identity.to_owned()),
            external_id: Set(id.clone()),
            rotation_id: Set(of.row.id),
            recorded_at: Set(of.row.updated_at),
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = [rotation_credential::Column::Identity, rotation_credential::Column::ExternalId];
    rotation_credential::Entity::insert_many(rows)
        .on_conflict(OnConflict::columns(columns).do_nothing().to_owned())
        .exec_without_returning(db)
        .await
        .map(|_| ())
}

/// Whether the step of this number was written by this very attempt, by a commit whose answer was lost.
async fn is_ours(db: &impl ConnectionTrait, rotation: Uuid, number: i64, by: Option<Held>) -> Result<bool, DbErr> {
    let Some(held) = by else { return Ok(false) };
    let step = rotation_step::Entity::find_by_id((rotation, number)).one(db).await?;
    Ok(step.is_some_and(|step| step.job_id == Some(held.id) && step.epoch == held.epoch))
}

/// From SYNCED on the value is where it belongs, and what was given up needs none.
fn keeps_no_value(record: &Rotation) -> bool {
    let settled = [State::Synced, State::Draining, State::Disabled, State::Retired];
    record.state.is_over() || (settled.contains(&record.state) && !record.reversed)
}
