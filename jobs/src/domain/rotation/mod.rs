//! What a rotation does next. Pure: the executor asks [`next`] for the one thing to do, does it, and tells [`after`] how it ended;
//! both answer from the record alone, so that any worker goes on at any point.
//!
//! ```text
//! PLANNED → RESERVED → MINT_INTENT → MINTED → STAGED → PROVEN → PROMOTED → SYNCED → DRAINING → DISABLED → RETIRED → DONE
//!    └───────────┴─────────┴───────────┴────────┴────────┴──> COMPENSATING → ROLLED_BACK        └──> (reversed) MINT_INTENT …
//! any of them ──> NEEDS_HUMAN ──> where it was | COMPENSATING | ABANDONED
//! ```
//!
//! Three rules make a crash at any point harmless:
//! - A call that changes something is *begun* first: that it is about to be made is committed before it is made. Whoever finds a
//!   begun call without an outcome treats the outcome as unknown, waits until the call can no longer arrive, and looks.
//! - Going back ends at PROMOTED. Up to there the credential in use was never touched; from there the only way is forward, or, while
//!   the former credential still exists, the same way with both exchanged.
//! - Nothing is deleted that this rotation did not record by its id, nothing before it was disabled, and nothing while the
//!   credential in use fails its test.

mod after;
mod asked;
mod next;
pub mod plan;
mod record;
#[cfg(test)]
mod simulation;
mod terms;

pub use after::{after, begin, enter, prepared, stand_still};
pub use asked::{NotNow, Resolution, ask_cancel, resolve, roll_back};
pub use next::next;
pub use record::{
    Begun, Call, Current, Live, Mint, Outcome, Pace, Pending, Reason, Refusal, Rotation, Seen, Stopped, Strategy, Who,
};
pub use terms::{AWS_SECRET, ByPolicy, Characters, GCP_SECRET, Method, Terms, Verify};

use serde::{Deserialize, Serialize};

/// Where a rotation stands. Each is committed before the outside call that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// What is to be replaced is recorded, by the store's version and the provider's id.
    Planned,
    /// The credentials that the identity had before are recorded, and there is room for one more.
    Reserved,
    /// A credential is about to be made; when its value is ours, it is sealed and recorded already.
    MintIntent,
    /// The new credential exists, its value is sealed and its id recorded.
    Minted,
    /// The store holds it as a pending version, where the store has such.
    Staged,
    /// It worked as often in a row as was asked.
    Proven,
    /// The store was read back: it is the current one.
    Promoted,
    /// The linked entries have it.
    Synced,
    /// Both work; whoever still holds the former one has time to change over.
    Draining,
    /// The former one is switched off, which can be undone.
    Disabled,
    /// The former one is deleted.
    Retired,
    Done,
    /// What was made is being taken away again; the credential in use was never touched.
    Compensating,
    /// The credential that was in use before is the current one.
    RolledBack,
    /// It stands still until a person decides.
    NeedsHuman,
    /// A person decided to leave everything as it is.
    Abandoned,
}

impl State {
    pub const ALL: &'static [Self] = &[
        Self::Planned,
        Self::Reserved,
        Self::MintIntent,
        Self::Minted,
        Self::Staged,
        Self::Proven,
        Self::Promoted,
        Self::Synced,
        Self::Draining,
        Self::Disabled,
        Self::Retired,
        Self::Done,
        Self::Compensating,
        Self::RolledBack,
        Self::NeedsHuman,
        Self::Abandoned,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "PLANNED",
            Self::Reserved => "RESERVED",
            Self::MintIntent => "MINT_INTENT",
            Self::Minted => "MINTED",
            Self::Staged => "STAGED",
            Self::Proven => "PROVEN",
            Self::Promoted => "PROMOTED",
            Self::Synced => "SYNCED",
            Self::Draining => "DRAINING",
            Self::Disabled => "DISABLED",
            Self::Retired => "RETIRED",
            Self::Done => "DONE",
            Self::Compensating => "COMPENSATING",
            Self::RolledBack => "ROLLED_BACK",
            Self::NeedsHuman => "NEEDS_HUMAN",
            Self::Abandoned => "ABANDONED",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text)
    }

    /// How far a rotation is that goes as planned: 0 is the beginning, [`State::LAST`] the end.
    pub fn place(self) -> u8 {
        let place = Self::ALL.iter().position(|state| *state == self).and_then(|place| u8::try_from(place).ok());
        place.filter(|place| *place <= Self::LAST).unwrap_or_default()
    }

    /// The place of [`State::Done`].
    pub const LAST: u8 = 11;

    /// No step follows, and another rotation of the same identity may begin.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Abandoned)
    }

    /// Whether the credential in use was not touched yet, so that giving up means going back.
    pub const fn can_go_back(self) -> bool {
        matches!(self, Self::Planned | Self::Reserved | Self::MintIntent | Self::Minted | Self::Staged | Self::Proven)
    }

    /// The states that may follow this one.
    pub const fn followers(self) -> &'static [Self] {
        use State::{
            Abandoned, Compensating, Disabled, Done, Draining, MintIntent, Minted, NeedsHuman, Planned, Promoted,
            Proven, Reserved, Retired, RolledBack, Staged, Synced,
        };
        match self {
            Planned => &[Reserved, RolledBack, NeedsHuman, Compensating],
            Reserved => &[MintIntent, NeedsHuman, Compensating],
            MintIntent => &[Minted, Reserved, NeedsHuman, Compensating, Draining],
            Minted => &[Staged, NeedsHuman, Compensating, Draining],
            Staged => &[Proven, NeedsHuman, Compensating, Draining],
            Proven => &[Promoted, NeedsHuman, Compensating, Draining],
            Promoted => &[Synced, NeedsHuman],
            Synced => &[Draining, NeedsHuman],
            Draining => &[Disabled, Retired, NeedsHuman, MintIntent],
            Disabled => &[Retired, NeedsHuman, MintIntent],
            Retired => &[Done, RolledBack, NeedsHuman],
            Compensating => &[RolledBack, Promoted, NeedsHuman],
            NeedsHuman => &[
                Planned,
                Reserved,
                MintIntent,
                Minted,
                Staged,
                Proven,
                Promoted,
                Synced,
                Draining,
                Disabled,
                Retired,
                Compensating,
                Abandoned,
            ],
            Done | RolledBack | Abandoned => &[],
        }
    }
}

/// The one thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make and seal the candidate when its value is ours, then commit [`prepared`].
    Prepare,
    /// Commit [`begin`], make the call, then commit [`after`].
    Begin(Call),
    /// Make the call, which changes nothing, then commit [`after`].
    Look(Call),
    /// Commit [`enter`].
    Enter(State, Option<Reason>),
    /// Nothing before this instant, unless a person asks for something.
    Wait(chrono::DateTime<chrono::Utc>),
    /// Nothing more, or nothing before a person decides.
    Stop,
}
