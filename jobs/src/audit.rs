//! Audit events: what happened, by whom, to what, written in the transaction of what they tell.
//!
//! * [`sequencer`] numbers them afterwards, hashes them into a Merkle tree and signs checkpoints of it.
//! * [`checkpoints`] signs what it made.
//! * [`log`] reads what it made: events, hashes, proofs.
//! * [`check`] compares all of it with what was signed.
//! * [`export`] writes a part of the log so that others can do the same.
//! * [`keys`]: the keys that sign. [`names`]: who acted, apart from the events, so that it can be erased.

pub mod check;
pub mod checkpoints;
pub mod export;
pub mod keys;
pub mod log;
pub mod names;
pub mod sequencer;

pub use keywright_proof as proof;

use crate::setup::ids;
use keywright_entities::{
    clock,
    types::{ActorType, Outcome},
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use serde_json::{Map, Value, json};
use std::fmt::Display;
use uuid::Uuid;

/// Defines the event types and the list of them.
macro_rules! event_types {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// What happened. A type is never renamed; a new one is one line in the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventType { $($variant),+ }

        impl EventType {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

event_types! {
    Login = "auth.login",
    LoginFailed = "auth.login_failed",
    Logout = "auth.logout",
    RefreshReused = "auth.refresh_reused",
    PasswordChanged = "auth.password_changed",
    PasswordReset = "auth.password_reset",
    SessionRevoked = "auth.session_revoked",
    TokenCreated = "token.created",
    TokenRevoked = "token.revoked",
    UserCreated = "user.created",
    UserUpdated = "user.updated",
    UserDeleted = "user.deleted",
    AccessDenied = "access.denied",
    SigningKeyRotated = "signing_key.rotated",
    MasterKeyChanged = "master_key.changed",
    MasterKeyRewrapped = "master_key.rewrapped",
    SubscriptionCreated = "subscription.created",
    SubscriptionUpdated = "subscription.updated",
    SubscriptionDeleted = "subscription.deleted",
    SubscriptionTestRequested = "subscription.test_requested",
    SubscriptionAccountsRequested = "subscription.accounts_requested",
    ScanRequested = "scan.requested",
    ScheduleCreated = "schedule.created",
    ScheduleUpdated = "schedule.updated",
    ScheduleDeleted = "schedule.deleted",
    ScheduleFired = "schedule.fired",
    ScheduleBlocked = "schedule.blocked",
    EgressRefused = "egress.refused",
    SettingsUpdated = "settings.updated",
    ApprovalRequested = "approval.requested",
    ApprovalApproved = "approval.approved",
    ApprovalDenied = "approval.denied",
    ApprovalExpired = "approval.expired",
    EvidenceRequested = "evidence.requested",
    EvidenceDownloaded = "evidence.downloaded",
    JobStarted = "job.started",
    JobEnded = "job.ended",
    JobCanceled = "job.canceled",
    JobPaused = "job.paused",
    JobResumed = "job.resumed",
    AuditRead = "audit.read",
    AuditExported = "audit.exported",
    AuditVerified = "audit.verified",
    AuditVerificationRequested = "audit.verification_requested",
    EvidenceKeyRotated = "evidence_key.rotated",
    RotationPolicyCreated = "rotation_policy.created",
    RotationPolicyUpdated = "rotation_policy.updated",
    RotationPolicyDeleted = "rotation_policy.deleted",
    RotationPlanRequested = "rotation.plan_requested",
    RotationRequested = "rotation.requested",
    RotationStep = "rotation.step",
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub actor_type: ActorType,
    pub id: Option<String>,
    pub name: Option<String>,
}

impl Actor {
    /// The program itself, or its operator at the command line.
    pub const SYSTEM: Self = Self { actor_type: ActorType::System, id: None, name: None };

    pub fn user(id: Uuid, name: impl Into<String>) -> Self {
        Self { actor_type: ActorType::User, id: Some(id.to_string()), name: Some(name.into()) }
    }

    pub fn token(id: Uuid, name: impl Into<String>) -> Self {
        Self { actor_type: ActorType::Token, id: Some(id.to_string()), name: Some(name.into()) }
    }

    /// Somebody who did not prove who they are.
    pub const ANONYMOUS: Self = Self { actor_type: ActorType::User, id: None, name: None };
}

/// An event about to be written. Never holds a secret.
#[derive(Clone, Debug)]
#[must_use = "an event counts only once it is written"]
pub struct Event {
    event_type: EventType,
    actor: Actor,
    subject_type: &'static str,
    subject_id: Option<String>,
    outcome: Outcome,
    request_id: Option<String>,
    job_id: Option<Uuid>,
    details: Map<String, Value>,
}

impl Event {
    /// A success, until [`Event::outcome`] says otherwise. `subject_type` is the kind of thing: `job`, `user`, `token`.
    pub fn new(event_type: EventType, actor: Actor, subject_type: &'static str) -> Self {
        Self {
            event_type,
            actor,
            subject_type,
            subject_id: None,
            outcome: Outcome::Success,
            request_id: None,
            job_id: None,
            details: Map::new(),
        }
    }

    pub fn subject(mut self, id: impl Display) -> Self {
        self.subject_id = Some(id.to_string());
        self
    }

    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The request that caused it; empty counts as none.
    pub fn request(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into()).filter(|id| !id.is_empty());
        self
    }

    pub fn job(mut self, id: Uuid) -> Self {
        self.job_id = Some(id);
        self
    }

    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Writes it in the caller's transaction, dated by the database's clock.
    pub async fn write(self, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        Self::write_all([self], db).await
    }

    /// Writes any number of them with one statement.
    pub async fn write_all(events: impl IntoIterator<Item = Self>, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        let rows: Vec<Value> = events.into_iter().map(Self::into_row).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let backend = db.get_database_backend();
        let text = if backend == DbBackend::Sqlite { INSERT_SQLITE } else { INSERT_POSTGRES };
        db.execute_raw(clock::statement(backend, text, [Value::Array(rows).into()])).await.map(|_| ())
    }

    fn into_row(self) -> Value {
        json!({
            "id": ids::new(),
            "type": self.event_type.as_str(),
            "actor_type": self.actor.actor_type.as_str(),
            "actor_id": self.actor.id,
            "actor_name": self.actor.name,
            "subject_type": self.subject_type,
            "subject_id": self.subject_id,
            "outcome": self.outcome.as_str(),
            "request_id": self.request_id,
            "job_id": self.job_id,
            "details": self.details,
        })
    }
}

/// The rows are one parameter, so that the text is the same for any number of them and is prepared once.
const INSERT_POSTGRES: &str = "INSERT INTO audit_outbox (id, at, type, actor_type, actor_id, actor_name, subject_type, \
     subject_id, outcome, request_id, job_id, details) \
     SELECT id, {now}, type, actor_type, actor_id, actor_name, subject_type, subject_id, outcome, request_id, job_id, details \
     FROM jsonb_to_recordset($1) AS event(id uuid, type text, actor_type text, actor_id text, actor_name text, \
     subject_type text, subject_id text, outcome text, request_id text, job_id uuid, details jsonb)";

/// Identifiers are kept as their 16 bytes.
const INSERT_SQLITE: &str = "INSERT INTO audit_outbox (id, at, type, actor_type, actor_id, actor_name, subject_type, \
     subject_id, outcome, request_id, job_id, details) \
     SELECT unhex(value ->> 'id', '-'), {now}, value ->> 'type', value ->> 'actor_type', value ->> 'actor_id', \
     value ->> 'actor_name', value ->> 'subject_type', value ->> 'subject_id', value ->> 'outcome', value ->> 'request_id', \
     unhex(value ->> 'job_id', '-'), value -> 'details' FROM json_each($1)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::database::Database;
    use keywright_entities::audit_outbox::Entity;
    use sea_orm::EntityTrait;

    #[tokio::test]
    async fn an_event_is_there_exactly_when_its_transaction_is() {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&format!("sqlite://{}/k.db", folder.path().display()), 2).await.unwrap();
        db.migrate().await.unwrap();
        let (user, job) = (ids::new(), ids::new());
        let event = Event::new(EventType::ScanRequested, Actor::user(user, "ada"), "job")
            .subject(job)
            .job(job)
            .request("r-1")
            .detail("mode", "full");
        let write = db.begin().await.unwrap();
        event.clone().write(&*write).await.unwrap();
        write.rollback().await.unwrap();
        assert_eq!(Entity::find().all(db.reader()).await.unwrap(), []);
        let write = db.begin().await.unwrap();
        event.write(&*write).await.unwrap();
        write.commit().await.unwrap();
        let rows = Entity::find().all(db.reader()).await.unwrap();
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.event_type.as_str(), row.outcome, row.seq), ("scan.requested", Outcome::Success, None));
        assert_eq!((row.actor_type, row.actor_id.clone()), (ActorType::User, Some(user.to_string())));
        assert_eq!((row.job_id, row.request_id.as_deref()), (Some(job), Some("r-1")));
        assert_eq!(row.details, serde_json::json!({"mode": "full"}));
        let age = clock::now(db.reader()).await.unwrap() - row.at;
        assert!(age >= chrono::TimeDelta::zero() && age < chrono::TimeDelta::minutes(1), "{age}");
    }

    #[test]
    fn event_types_are_distinct() {
        let names: std::collections::HashSet<_> = EventType::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(names.len(), EventType::ALL.len());
    }
}
