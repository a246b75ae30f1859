//! Events, checkpoints and proofs as clients see them.

use crate::{error::ApiError, timestamp::Timestamp, wire::ActorType};
use keywright_jobs::audit::{
    check::Verdict,
    log::{self, Logged},
    proof::{Hash, checkpoint::Checkpoint, keys::KeyEntry},
};
use poem_openapi::{Enum, Object, types::Any};
use serde_json::Value;
use uuid::Uuid;

/// An event of the audit log.
#[derive(Debug, Object)]
#[oai(rename = "AuditEvent", rename_all = "camelCase")]
pub struct AuditEventView {
    /// Its number: 0 for the first event, without gaps.
    pub seq: i64,
    pub id: Uuid,
    pub at: Timestamp,
    /// What happened, e.g. `user.created`.
    #[oai(rename = "type")]
    pub event_type: String,
    pub actor: AuditActorView,
    pub subject: AuditSubjectView,
    pub outcome: AuditOutcome,
    pub request_id: Option<String>,
    pub job_id: Option<Uuid>,
    pub details: Any<Value>,
}

/// Who did it.
#[derive(Debug, Object)]
#[oai(rename = "AuditActor", rename_all = "camelCase")]
pub struct AuditActorView {
    #[oai(rename = "type")]
    pub actor_type: ActorType,
    pub id: Option<String>,
    /// `null` also once it was erased.
    pub name: Option<String>,
}

/// To what.
#[derive(Debug, Object)]
#[oai(rename = "AuditSubject", rename_all = "camelCase")]
pub struct AuditSubjectView {
    #[oai(rename = "type")]
    pub subject_type: String,
    pub id: Option<String>,
    /// Of a user; `null` also once it was erased.
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum AuditOutcome {
    Success,
    Failure,
    Denied,
}

impl AuditOutcome {
    pub const fn stored(self) -> keywright_entities::types::Outcome {
        use keywright_entities::types::Outcome;
        match self {
            Self::Success => Outcome::Success,
            Self::Failure => Outcome::Failure,
            Self::Denied => Outcome::Denied,
        }
    }
}

impl From<keywright_entities::types::Outcome> for AuditOutcome {
    fn from(outcome: keywright_entities::types::Outcome) -> Self {
        use keywright_entities::types::Outcome;
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Failure => Self::Failure,
            Outcome::Denied => Self::Denied,
        }
    }
}

impl From<Logged> for AuditEventView {
    fn from(event: Logged) -> Self {
        let names = event.names();
        let row = event.row;
        Self {
            seq: row.seq.unwrap_or_default(),
            id: row.id,
            at: row.at.into(),
            event_type: row.event_type,
            actor: AuditActorView {
                actor_type: row.actor_type.into(),
                id: row.actor_id,
                name: names.actor.map(|name| name.text),
            },
            subject: AuditSubjectView {
                subject_type: row.subject_type,
                id: row.subject_id,
                name: names.subject.map(|name| name.text),
            },
            outcome: row.outcome.into(),
            request_id: row.request_id,
            job_id: row.job_id,
            details: Any(row.details),
        }
    }
}

/// How large the log is and what its root is, signed.
#[derive(Debug, Object)]
#[oai(rename = "AuditCheckpoint", rename_all = "camelCase")]
pub struct CheckpointView {
    /// The log's name.
    pub origin: String,
    /// How many events it covers.
    pub size: i64,
    /// The root of the tree over them (RFC 9162, SHA-256), in base64.
    pub root: String,
    pub created_at: Timestamp,
    /// The signed note (C2SP `tlog-checkpoint`), to be kept elsewhere.
    pub note: String,
}

/// A proof: of inclusion when an event was asked for, else of consistency.
#[derive(Debug, Object)]
#[oai(rename = "AuditProof", rename_all = "camelCase")]
pub struct ProofView {
    /// The event as it is hashed: canonical JSON (RFC 8785).
    pub event: Option<String>,
    /// Its number.
    pub index: Option<i64>,
    /// Its hash, in base64.
    pub leaf: Option<String>,
    /// Of consistency: the size of the older tree.
    pub from: Option<i64>,
    /// The size of the tree, or of the newer one.
    pub to: i64,
    /// The proof (RFC 9162, 2.1.3 and 2.1.4), in base64.
    pub hashes: Vec<String>,
    /// The signed note of the tree; `null` when no checkpoint has this size.
    pub checkpoint: Option<String>,
    /// Of inclusion: the same as C2SP `tlog-proof`.
    pub tlog_proof: Option<String>,
}

pub fn spelled(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(Hash::to_string).collect()
}

/// Proof of inclusion in the text form of C2SP.
pub fn tlog_proof(index: u64, hashes: &[Hash], checkpoint: &str) -> String {
    let lines: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
    format!("c2sp.org/tlog-proof@v1\nindex {index}\n{lines}\n{checkpoint}")
}

impl CheckpointView {
    /// # Errors
    /// When the stored note is none.
    pub fn of(row: keywright_entities::audit_checkpoint::Model) -> Result<Self, ApiError> {
        let note: keywright_jobs::audit::proof::note::Note = row.note.parse().map_err(ApiError::internal)?;
        let checkpoint = Checkpoint::parse(note.unverified()).map_err(ApiError::internal)?;
        Ok(Self {
            origin: checkpoint.origin,
            size: row.size,
            root: checkpoint.root.to_string(),
            created_at: row.created_at.into(),
            note: row.note,
        })
    }
}

/// What was checked, and what is wrong first.
#[derive(Debug, Object)]
#[oai(rename = "AuditVerification", rename_all = "camelCase")]
pub struct VerificationView {
    pub valid: bool,
    pub origin: String,
    /// Events that were checked one by one.
    pub events: i64,
    /// Checkpoints that were compared, signatures included.
    pub checkpoints: i64,
    /// Events that the newest of them covers; those after it are hashed and not signed yet.
    pub covered: i64,
    /// The root over the events that were checked.
    pub root: String,
    pub fault: Option<FaultView>,
}

/// The first thing that is wrong.
#[derive(Debug, Object)]
#[oai(rename = "AuditFault", rename_all = "camelCase")]
pub struct FaultView {
    /// A stable word, e.g. `event_changed`.
    pub code: String,
    /// The event's number, when it is about one.
    pub event: Option<i64>,
    pub detail: String,
}

impl From<Verdict> for VerificationView {
    fn from(verdict: Verdict) -> Self {
        let fault = verdict.wrong.map(|wrong| FaultView {
            code: wrong.code,
            event: wrong.event.map(log::number),
            detail: wrong.detail,
        });
        Self {
            valid: fault.is_none(),
            origin: verdict.origin,
            events: log::number(verdict.events),
            checkpoints: log::number(verdict.checkpoints),
            covered: log::number(verdict.covered),
            root: verdict.root,
            fault,
        }
    }
}

/// The public keys that sign the audit log and evidence, oldest first.
#[derive(Debug, Object)]
#[oai(rename = "EvidenceKeys", rename_all = "camelCase")]
pub struct KeysView {
    pub keys: Vec<KeyView>,
}

/// A public key.
#[derive(Debug, Object)]
#[oai(rename = "EvidenceKey", rename_all = "camelCase")]
pub struct KeyView {
    /// `NAME+ID+KEY` (C2SP `signed-note`): what `keywright-verify --key` takes.
    pub verifier_key: String,
    pub created_at: Timestamp,
    /// When another key took its place; `null` for the one that signs.
    pub retired_at: Option<Timestamp>,
    /// The note in which the key before it vouches for it; `null` for the first one, and for one that replaced a stolen key.
    pub voucher: Option<String>,
}

impl TryFrom<KeyEntry> for KeyView {
    type Error = ApiError;

    fn try_from(entry: KeyEntry) -> Result<Self, ApiError> {
        let time = |time: &str| Timestamp::parse(time).map_err(ApiError::internal);
        Ok(Self {
            created_at: time(&entry.created_at)?,
            retired_at: entry.retired_at.as_deref().map(time).transpose()?,
            verifier_key: entry.verifier_key,
            voucher: entry.voucher,
        })
    }
}
