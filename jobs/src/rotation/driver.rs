//! Asks the machine what is next, does it, and commits what came of it, until there is nothing more to do or it is too early.

use super::{
    Opened,
    calls::{At, Known},
    ledger::{self, Also, Change, Written},
    look,
    planned::planned,
};
use crate::{
    audit::Actor,
    context::Context,
    domain::rotation::{self, Call, Outcome, Reason, Rotation, State, Step},
    job::{Done, JobError},
    kinds::discovery::{connect, noted},
    provider::{
        ProviderError, Stopped,
        rotation::{Parts, Rotations, SecretValue, UNSUPPORTED},
    },
    setup::sealing::{SealError, places},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use keywright_entities::{
    asset, clock, rotation as row, rotation_credential, rotation_secret, subscription, types::WaitingFor,
};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// A wait that is not worth giving the slot back for.
const SHORT: Duration = Duration::from_secs(2);
/// A rotation that waits for a person looks once in a while, beside being woken.
const UNTIL_PERSON: Duration = Duration::from_secs(3600);

/// Drives a rotation as far as it goes now.
///
/// # Errors
/// [`JobError::Snooze`] when it must wait, [`JobError::Fail`] with the reason when it went back.
pub async fn drive(context: &Context, id: Uuid) -> Result<Done, JobError> {
    let opened = load(context, id).await?;
    if let Some(done) = Driver::idle(context, &opened).await? {
        return Ok(done);
    }
    let subscription = subscription::by_id(context.database.reader(), opened.row.subscription_id).await?;
    let subscription =
        subscription.ok_or_else(|| JobError::fail("subscription_deleted", "the subscription was deleted meanwhile"))?;
    let connection = noted(context, subscription.id, connect(context, &subscription).await).await??;
    let rotations = connection.rotations.as_deref().ok_or_else(|| unsupported(subscription.provider.as_str()))?;
    let mut parts = open(rotations, &opened).await?;
    loop {
        let opened = load(context, id).await?;
        if opened.row.identity.is_none() && !opened.record.state.is_over() {
            Driver { context, parts: &parts, opened }.plan(rotations).await?;
            // now it is known whose credential it is
            parts = open(rotations, &load(context, id).await?).await?;
        } else if let Some(done) = (Driver { context, parts: &parts, opened }).step().await? {
            return Ok(done);
        }
    }
}

async fn open(rotations: &dyn Rotations, opened: &Opened) -> Result<Parts, ProviderError> {
    let target = &opened.target;
    rotations.open(&target.entry, &target.terms.method, target.owner.as_deref()).await
}

fn unsupported(provider: &str) -> JobError {
    JobError::fail(UNSUPPORTED, format!("nothing of {provider} is rotated by this version"))
}

async fn load(context: &Context, id: Uuid) -> Result<Opened, JobError> {
    let row = row::Entity::find_by_id(id).one(context.database.reader()).await?;
    let row = row.ok_or_else(|| JobError::fail("rotation_gone", "the rotation is not there any more"))?;
    Ok(Opened::read(row)?)
}

/// A rotation as it was read, and whom it talks to.
struct Driver<'a> {
    context: &'a Context,
    parts: &'a Parts,
    opened: Opened,
}

impl Driver<'_> {
    /// Ends the attempt before anybody is called when there is nothing to do now.
    async fn idle(context: &Context, opened: &Opened) -> Result<Option<Done>, JobError> {
        let now = clock::now(context.database.reader()).await?;
        match rotation::next(&opened.record, now) {
            Step::Stop => ended(&opened.record).map(Some),
            Step::Wait(until) if (until - now).to_std().unwrap_or_default() > SHORT => Err(snooze(until - now)),
            _ => Ok(None),
        }
    }

    /// Does the one thing; tells the end when there is nothing more.
    async fn step(&self) -> Result<Option<Done>, JobError> {
        let record = &self.opened.record;
        let now = clock::now(self.context.database.reader()).await?;
        self.context.report(record.state.as_str(), u64::from(record.state.place()), Some(u64::from(State::LAST)));
        match rotation::next(record, now) {
            Step::Stop => return ended(record).map(Some),
            Step::Wait(until) => self.wait(until - now).await?,
            Step::Enter(state, reason) => {
                let entered = rotation::enter(record, state, reason, now);
                self.commit(&self.opened, &entered, "enter", None, json!({}), None).await?;
            }
            Step::Prepare => self.prepare(now).await?,
            Step::Begin(call) => {
                let begun = rotation::begin(record, call, now);
                // whoever changed it meanwhile is heard before anything is sent
                let details = json!({"call": call});
                if self.commit(&self.opened, &begun, "begin", None, details, None).await? == Written::Stands {
                    let row = row::Model { version: self.opened.row.version + 1, ..self.opened.row.clone() };
                    let opened = Opened { row, record: begun, target: self.opened.target.clone() };
                    Driver { context: self.context, parts: self.parts, opened }.make(call).await?;
                }
            }
            Step::Look(call) => self.make(call).await?,
        }
        Ok(None)
    }

    /// Makes a call and keeps what came of it, also when a person asked for something meanwhile.
    async fn make(&self, call: Call) -> Result<(), JobError> {
        let known = self.known().await?;
        let now = clock::now(self.context.database.reader()).await?;
        let at = At { parts: self.parts, record: &self.opened.record, known: &known };
        let made = at.make(call, now).await?;
        let mut of = self.opened.clone();
        loop {
            let now = clock::now(self.context.database.reader()).await?;
            let record = rotation::after(&of.record, call, &made.outcome, now);
            let details = json!({"call": call, "outcome": told(&made.outcome)});
            let (what, word) = (name(call), Some(word(&made.outcome)));
            if self.commit(&of, &record, &what, word, details, made.shown.as_ref()).await? == Written::Stands {
                return Ok(());
            }
            let now_is = load(self.context, of.row.id).await?;
            let (was, is) = (&self.opened.record, &now_is.record);
            // somebody turned it round: whoever looks next finds out what the call did
            if (was.state, was.step, was.begun, was.reversed) != (is.state, is.step, is.begun, is.reversed) {
                return Ok(());
            }
            of = now_is;
        }
    }

    async fn prepare(&self, now: DateTime<Utc>) -> Result<(), JobError> {
        let record = &self.opened.record;
        let version = record.previous_version.as_deref().unwrap_or_default();
        let (id, value) = if self.parts.issuer.abilities().ours {
            let in_use = self.parts.store.read(version).await?;
            let token = token(self.opened.row.id, record.intents.saturating_add(1));
            self.parts.issuer.prepare(&token, &in_use)?.map(|prepared| (prepared.id, prepared.value)).unzip()
        } else {
            (None, None)
        };
        let prepared = rotation::prepared(record, id, now);
        let details = json!({"candidate": prepared.candidate});
        self.commit(&self.opened, &prepared, "prepare", None, details, value.as_ref()).await?;
        Ok(())
    }

    /// Finds out what is to be replaced, where nobody asked for a plan before.
    async fn plan(&self, rotations: &dyn Rotations) -> Result<(), JobError> {
        let (row, target) = (&self.opened.row, &self.opened.target);
        let open = async |owner: &str| rotations.open(&target.entry, &target.terms.method, Some(owner)).await;
        let facts = look::look(self.parts, open).await?;
        let asset = asset::Entity::find_by_id(row.asset_id).one(self.context.database.reader()).await?;
        let asset = asset.ok_or_else(|| JobError::fail("asset_gone", "the asset is not there any more"))?;
        let planned = planned(self.context, &asset, target, &facts, row.policy_id).await?;
        let now = clock::now(self.context.database.reader()).await?;
        let mut record = facts.record(&planned.as_it_is.target, now);
        if facts.strategy.has_gap() && !target.terms.allow_gap {
            return Err(JobError::fail(
                "gap_not_allowed",
                "for a moment what is stored would not work, and the terms do not allow that",
            ));
        }
        record.cancel_asked = self.opened.record.cancel_asked;
        let (opened, held) = (self.opened.clone(), self.context.lease.held);
        self.context
            .persist(move |db, _| {
                let (opened, planned, mut record) = (opened.clone(), planned.clone(), record.clone());
                async move {
                    let busy = row::Entity::find()
                        .filter(row::Column::OpenIdentity.eq(planned.as_it_is.identity.as_str()))
                        .filter(row::Column::Id.ne(opened.row.id))
                        .one(db)
                        .await?;
                    let mut also = Also::default();
                    if busy.is_some() {
                        record = rotation::enter(&record, State::RolledBack, Some(Reason::Busy), now);
                    } else {
                        planned.clone().save(db).await?;
                        also.planned = Some(planned.as_it_is);
                    }
                    let details = json!({"version": record.previous_version, "credential": record.previous});
                    let (what, actor) = ("plan".to_owned(), Actor::SYSTEM);
                    let (outcome, by) = (Some("seen"), Some(held));
                    let change = Change { of: &opened, record: &record, what, outcome, details, by, actor, also };
                    ledger::write(db, change).await
                }
                .boxed()
            })
            .await?;
        Ok(())
    }

    /// Writes the record, and the value of the candidate where it is not stored yet; [`Written::Moved`] when it changed since.
    async fn commit(
        &self,
        of: &Opened,
        record: &Rotation,
        what: &str,
        outcome: Option<&'static str>,
        details: Value,
        value: Option<&SecretValue>,
    ) -> Result<Written, JobError> {
        let held = self.context.lease.held;
        let (sealing, of) = (self.context.sealing.clone(), of.clone());
        let (record, what, value) = (record.clone(), what.to_owned(), value.cloned());
        self.context
            .persist(move |db, _| {
                let (sealing, of, record) = (sealing.clone(), of.clone(), record.clone());
                let (what, details, value) = (what.clone(), details.clone(), value.clone());
                async move {
                    let sealed = match value {
                        Some(value) => {
                            let version = i64::from(record.intents);
                            let id = of.row.id.to_string();
                            let binding = places::candidate(&id, version);
                            let sealed = sealing.seal(db, &binding, value.expose()).await;
                            let sealed = sealed.map_err(|error| DbErr::Custom(error.to_string()))?;
                            Some(rotation_secret::ActiveModel {
                                rotation_id: Set(of.row.id),
                                version: Set(version),
                                key_id: Set(sealed.key_id),
                                sealed: Set(sealed.bytes),
                                created_at: Set(clock::micros(clock::now(db).await?)),
                            })
                        }
                        None => None,
                    };
                    let also = Also { sealed, ..Also::default() };
                    let (by, actor) = (Some(held), Actor::SYSTEM);
                    let change = Change { of: &of, record: &record, what, outcome, details, by, actor, also };
                    ledger::write(db, change).await
                }
                .boxed()
            })
            .await
    }

    /// Opens what is sealed, for the length of one call.
    async fn known(&self) -> Result<Known, JobError> {
        let (db, row) = (self.context.database.reader(), &self.opened.row);
        let sealed = rotation_secret::Entity::find_by_id(row.id).one(db).await?;
        // not that of an earlier candidate that was given up
        let sealed = sealed.filter(|sealed| sealed.version == i64::from(self.opened.record.intents));
        let candidate = match sealed {
            Some(sealed) => {
                let id = sealed.rotation_id.to_string();
                let opened = self.context.sealing.open(&places::candidate(&id, sealed.version), &sealed.sealed);
                let opened = opened.map_err(|error: SealError| JobError::retry("sealed_value", error))?;
                Some(SecretValue::new(opened.expose_secret().to_vec()))
            }
            None => None,
        };
        let ours = rotation_credential::ours(db, row.identity.as_deref().unwrap_or_default()).await?;
        Ok(Known { candidate, token: token(row.id, self.opened.record.intents), ours })
    }

    async fn wait(&self, rest: TimeDelta) -> Result<(), JobError> {
        if rest.to_std().unwrap_or_default() > SHORT {
            return Err(snooze(rest));
        }
        tokio::select! {
            () = tokio::time::sleep(rest.to_std().unwrap_or_default()) => Ok(()),
            stopped = self.context.lease.stopped() => Err(stopped.into()),
        }
    }
}

/// Names a version so that it is recognised: 38 characters and more, as AWS demands 32 to 64.
fn token(rotation: Uuid, intent: u8) -> String {
    format!("{rotation}-{intent}")
}

fn snooze(rest: TimeDelta) -> JobError {
    JobError::Snooze { waiting_for: WaitingFor::Snooze, after: rest.to_std().unwrap_or_default() }
}

fn ended(record: &Rotation) -> Result<Done, JobError> {
    let reason = record.reason.as_ref();
    match record.state {
        State::Done => Ok(Done::Succeeded),
        // what was asked for
        State::RolledBack if reason == Some(&Reason::RolledBack) => Ok(Done::Succeeded),
        State::RolledBack if reason == Some(&Reason::Canceled) => Err(JobError::Stopped(Stopped::Canceled)),
        State::RolledBack => {
            let code = reason.map_or("rolled_back", Reason::code);
            Err(JobError::fail(code, "the rotation was given up; what was in use before is in use"))
        }
        State::Abandoned => Err(JobError::fail("abandoned", "a person decided to leave everything as it is")),
        _ => Err(JobError::Snooze { waiting_for: WaitingFor::Human, after: UNTIL_PERSON }),
    }
}

/// The name that the history keeps of a call, e.g. `promote`, `disable previous`.
fn name(call: Call) -> String {
    match json!(call) {
        Value::String(name) => name,
        Value::Object(fields) => {
            let words = fields.iter().map(|(call, who)| format!("{call} {}", who.as_str().unwrap_or_default()));
            words.collect()
        }
        other => other.to_string(),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Seen(_) | Outcome::LastUsed(_) => "seen",
        Outcome::Done { .. } => "done",
        Outcome::Works => "works",
        Outcome::Fails => "fails",
        Outcome::Unfinished { .. } => "unfinished",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown => "unknown",
    }
}

/// What the history keeps of an outcome: ids, never a value.
fn told(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Seen(seen) => {
            let live: Vec<_> = seen.live.iter().map(|live| json!({"id": live.id, "active": live.active})).collect();
            json!({"credentials": live, "current": format!("{:?}", seen.current), "version": seen.version})
        }
        Outcome::Done { id } => json!({"id": id}),
        Outcome::LastUsed(at) => json!({"lastUsedAt": at}),
        Outcome::Unfinished { again } => json!({"again": again}),
        Outcome::Refused(refusal) => json!({"refusal": format!("{refusal:?}")}),
        Outcome::Works | Outcome::Fails | Outcome::Unknown => json!({}),
    }
}
