//! What is recorded of a rotation, and the words in which the executor and the machine speak.

use super::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Where the value of the new credential comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mint {
    /// We choose it: a password, a key pair. Setting the same one again is harmless.
    Ours,
    /// The provider chooses it and shows it once. Asking twice makes two.
    Theirs,
}

/// What can be done with credentials of this sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "independent abilities, each of which a target has or has not")]
pub struct Strategy {
    pub mint: Mint,
    /// There is somebody to tell about the value beside the store. A generated secret has nobody.
    pub applies: bool,
    /// The former credential goes on working beside the new one. Without it every rotation has a gap.
    pub overlaps: bool,
    /// The store can hold a version that is not current yet.
    pub stages: bool,
    /// A credential can be switched off and on again.
    pub disables: bool,
    /// A credential that is switched off can be deleted.
    pub deletes: bool,
    /// The provider tells when a credential was last used.
    pub tells_use: bool,
}

impl Strategy {
    /// Of a rotation that is not planned yet.
    pub const NOTHING: Self = Self {
        mint: Mint::Ours,
        applies: false,
        overlaps: true,
        stages: false,
        disables: false,
        deletes: false,
        tells_use: false,
    };
}

/// How patient a rotation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// A call that was handed over longer ago than this can no longer arrive, in seconds.
    pub call_deadline: u32,
    /// A provider's list shows what was made at most so many seconds later.
    pub settle: u32,
    /// Successes in a row that prove the new credential.
    pub proofs: u8,
    /// Seconds between two of them.
    pub proof_spacing: u32,
    /// Seconds after which a credential that does not work is given up.
    pub proof_deadline: u32,
    /// Seconds for which both credentials work after the new one became current.
    pub grace: u32,
    /// Seconds for which the former one must have been unused before it is switched off; 0 = it need not.
    pub quiet: u32,
    /// Seconds after the grace in which it must have become quiet.
    pub quiet_deadline: u32,
    /// Seconds between switching the former one off and deleting it.
    pub hold: u32,
    /// Seconds, from the beginning, in which the new one must have become current.
    pub patience: u32,
}

/// The outside calls. Each of [`Call::changes`] is begun before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Call {
    /// Lists the identity's credentials, and what the store holds as current and as pending.
    Inspect,
    /// Makes the candidate, or sets it, or, when the rotation is reversed, switches it on.
    Mint,
    /// Puts the candidate into the store as pending, under a token that makes a repetition harmless.
    Stage,
    /// One test of the candidate over a fresh connection.
    Prove,
    /// One test of what the store says is current.
    ProveStored,
    /// Makes the candidate current, if what is current is still what was recorded.
    Promote,
    /// Brings the linked entries up to date, each for itself.
    Push,
    /// When was the former credential last used?
    LastUsed,
    Disable(Who),
    Enable(Who),
    /// Deletes by id what is disabled.
    Delete(Who),
    /// Takes the pending version out of the store.
    Unstage,
    /// Sets what the store says is current again, where there is but one slot.
    Revert,
}

/// Whose credential a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Who {
    Previous,
    Candidate,
    /// Was made by this rotation or an earlier one, and nobody knows its value.
    Orphan,
}

impl Call {
    /// Whether it changes something outside.
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Inspect | Self::Prove | Self::ProveStored | Self::LastUsed)
    }
}

/// One credential as the provider lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub id: String,
    pub active: bool,
    /// Was used at least once, as far as the provider tells.
    pub used: bool,
    /// An earlier rotation recorded that it made it.
    pub ours: bool,
}

/// What the store holds as current, compared with the record by version and keyed digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// What was current when the rotation was planned.
    Expected,
    Candidate,
    /// Something else: a person or another tool was here.
    Other,
}

/// What the store holds as pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    Nothing,
    /// This rotation's or an earlier one's of ours.
    Ours,
    Strange,
}

/// What [`Call::Inspect`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub live: Vec<Live>,
    /// The most credentials that the identity may have; `None` = no limit that matters.
    pub limit: Option<usize>,
    pub current: Current,
    /// The store's name of the current version.
    pub version: Option<String>,
    pub pending: Pending,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Seen(Seen),
    /// Done; of [`Call::Mint`] with the id that the provider gave, of [`Call::Stage`] and [`Call::Promote`] with the store's version.
    Done {
        id: Option<String>,
    },
    Works,
    Fails,
    /// Not all linked entries have it yet; ask again then.
    Unfinished {
        again: DateTime<Utc>,
    },
    LastUsed(Option<DateTime<Utc>>),
    /// The provider said no: nothing happened.
    Refused(Refusal),
    /// A timeout, a reset, a server error: it may have happened.
    Unknown,
}

/// A definite no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The permission that is missing.
    Denied(String),
    /// What the call was about does not exist.
    NotFound,
    /// The identity has as many credentials as it may have.
    Quota,
    /// The value is not accepted.
    Policy,
    /// What is current is not what was expected.
    Conflict,
    Throttled {
        until: DateTime<Utc>,
    },
    /// Another code of the provider's.
    Rejected(String),
}

/// Why a rotation went back or stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "code", content = "detail")]
pub enum Reason {
    Canceled,
    /// It did not become current in the time allowed.
    Deadline,
    /// What is current is not what the plan was made for.
    PlanStale,
    /// The identity has all the credentials it may have, and none of them may be removed by us.
    QuotaFull,
    /// More than one credential appeared that may be ours, or one that somebody uses: none of them is touched.
    StrangeCredentials,
    /// The store holds a pending version that is not ours.
    StrangePending,
    Denied(String),
    /// The identity or the store's entry does not exist any more.
    Gone,
    /// The provider did not accept any of the values.
    ValuesRefused,
    MintFails,
    /// The new credential did not work in the time allowed.
    Unproven,
    /// Between the proof and the promotion somebody moved what is current.
    Moved,
    /// The former credential is still in use after all the time allowed.
    StillInUse,
    /// The credential in use fails its test; the former one was kept, or switched on again.
    CurrentFails,
    /// A linked entry could not be brought up to date for a long time.
    EntriesBehind,
    /// The provider goes on listing what was deleted.
    NotGone,
    /// The same call goes on failing.
    CallFails(String),
    /// Its workers were lost, one after the other.
    WorkerLost,
    /// Another rotation of the same identity is open.
    Busy,
    RolledBack,
}

impl Reason {
    /// Its stable word.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Canceled => "canceled",
            Self::Deadline => "deadline",
            Self::PlanStale => "plan_stale",
            Self::QuotaFull => "quota_full",
            Self::StrangeCredentials => "strange_credentials",
            Self::StrangePending => "strange_pending",
            Self::Denied(_) => "denied",
            Self::Gone => "gone",
            Self::ValuesRefused => "values_refused",
            Self::MintFails => "mint_fails",
            Self::Unproven => "unproven",
            Self::Moved => "moved",
            Self::StillInUse => "still_in_use",
            Self::CurrentFails => "current_fails",
            Self::EntriesBehind => "entries_behind",
            Self::NotGone => "not_gone",
            Self::CallFails(_) => "call_fails",
            Self::WorkerLost => "worker_lost",
            Self::Busy => "busy",
            Self::RolledBack => "rolled_back",
        }
    }

    /// What it says beside its word, e.g. the permission that is missing.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Denied(detail) | Self::CallFails(detail) => Some(detail),
            _ => None,
        }
    }
}

/// A call that was about to be made: until its outcome is recorded nobody knows whether it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    pub call: Call,
    pub at: DateTime<Utc>,
}

/// Where it stood when it stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    pub at: State,
    pub reason: Reason,
}

/// Everything that decides what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    pub strategy: Strategy,
    pub pace: Pace,
    pub state: State,
    /// When it began or, when it was reversed, when that was.
    pub since: DateTime<Utc>,
    pub entered_at: DateTime<Utc>,
    /// How far it is within its state.
    pub step: u8,
    pub begun: Option<Begun>,
    /// Nothing is done before.
    pub not_before: Option<DateTime<Utc>>,
    /// Failures in a row in this state.
    pub tries: u32,
    /// The provider's id of the credential in use when it was planned.
    pub previous: Option<String>,
    pub candidate: Option<String>,
    /// The store's versions of both; that of the former one was current when it was planned.
    pub previous_version: Option<String>,
    pub candidate_version: Option<String>,
    pub orphan: Option<String>,
    /// The ids that the identity had before anything was made.
    pub known: Vec<String>,
    /// How many candidates were about to be made.
    pub intents: u8,
    pub proofs: u8,
    /// When the store was last seen to hold what is expected.
    pub checked_at: Option<DateTime<Utc>>,
    /// The former credential is on its way back: `previous` and `candidate` are exchanged.
    pub reversed: bool,
    pub cancel_asked: bool,
    pub stopped: Option<Stopped>,
    pub reason: Option<Reason>,
}

impl Rotation {
    pub fn planned(strategy: Strategy, pace: Pace, previous: Option<String>, now: DateTime<Utc>) -> Self {
        Self {
            strategy,
            pace,
            state: State::Planned,
            since: now,
            entered_at: now,
            step: 0,
            begun: None,
            not_before: None,
            tries: 0,
            previous,
            candidate: None,
            previous_version: None,
            candidate_version: None,
            orphan: None,
            known: Vec::new(),
            intents: 0,
            proofs: 0,
            checked_at: None,
            reversed: false,
            cancel_asked: false,
            stopped: None,
            reason: None,
        }
    }

    /// The id of `who`, when there is one.
    pub fn id_of(&self, who: Who) -> Option<&str> {
        match who {
            Who::Previous => self.previous.as_deref(),
            Who::Candidate => self.candidate.as_deref(),
            Who::Orphan => self.orphan.as_deref(),
        }
    }
}

pub(super) fn seconds(count: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(count))
}
