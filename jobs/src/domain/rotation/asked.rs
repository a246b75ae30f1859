//! What a person may ask of a rotation.

use super::{
    Call, Reason, Rotation, State,
    after::{enter, exchanged},
    record::seconds,
};
use chrono::{DateTime, Utc};
use thiserror::Error;

/// The way out of NEEDS_HUMAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Go on where it stood.
    Resume,
    /// Take away what was made.
    Compensate,
    /// Leave everything as it is, and be over.
    Abandon,
}

/// Why what was asked cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotNow {
    #[error("the rotation is over")]
    Over,
    #[error("the new credential is already the current one; roll back instead")]
    PastPointOfNoReturn,
    #[error("the new credential is not the current one yet; cancel instead")]
    NotPromoted,
    #[error("the former credential does not exist any more")]
    NoWayBack,
    #[error("the rotation does not wait for a decision")]
    NothingToDecide,
}

/// It is to be given up before the new credential becomes the current one.
///
/// # Errors
/// [`NotNow::PastPointOfNoReturn`] from PROMOTED on.
pub fn ask_cancel(rotation: &Rotation) -> Result<Rotation, NotNow> {
    let state = effective(rotation);
    if state.is_over() {
        return Err(NotNow::Over);
    }
    if rotation.reversed || !(state.can_go_back() || state == State::Compensating) {
        return Err(NotNow::PastPointOfNoReturn);
    }
    Ok(Rotation { cancel_asked: true, ..rotation.clone() })
}

/// The former credential is to become the current one again: the same way once more, with both exchanged.
///
/// # Errors
/// [`NotNow::NotPromoted`] before PROMOTED, [`NotNow::NoWayBack`] when the former one is deleted or there is but one slot.
pub fn roll_back(rotation: &Rotation, now: DateTime<Utc>) -> Result<Rotation, NotNow> {
    let state = effective(rotation);
    if state.is_over() {
        return Err(NotNow::Over);
    }
    if state.can_go_back() || state == State::Compensating {
        return Err(if rotation.reversed { NotNow::NoWayBack } else { NotNow::NotPromoted });
    }
    let both = rotation.strategy.overlaps && rotation.previous.is_some() && rotation.candidate.is_some();
    if rotation.reversed || !both || state == State::Retired {
        return Err(NotNow::NoWayBack);
    }
    // What is under way must have arrived before it is turned round; the record says since when.
    let not_before = rotation.begun.map(|begun| begun.at + seconds(rotation.pace.call_deadline));
    let deleting = rotation.begun.is_some_and(|begun| matches!(begun.call, Call::Delete(_)));
    if deleting {
        return Err(NotNow::NoWayBack);
    }
    let turned = enter(rotation, State::MintIntent, Some(Reason::RolledBack), now);
    Ok(Rotation { since: now, reversed: true, stopped: None, not_before, ..exchanged(turned) })
}

/// A person decides what becomes of a rotation that stands still.
///
/// # Errors
/// [`NotNow::NothingToDecide`] when it does not; [`NotNow::PastPointOfNoReturn`] for compensating what was promoted.
pub fn resolve(rotation: &Rotation, resolution: Resolution, now: DateTime<Utc>) -> Result<Rotation, NotNow> {
    let Some(stopped) = rotation.stopped.as_ref().filter(|_| rotation.state == State::NeedsHuman) else {
        return Err(if rotation.state.is_over() { NotNow::Over } else { NotNow::NothingToDecide });
    };
    let began = rotation.begun;
    let went_on = |state| Rotation { begun: began, stopped: None, ..enter(rotation, state, None, now) };
    match resolution {
        // What there is may have been changed by the person: it is looked at afresh before anything is made.
        Resolution::Resume if stopped.at == State::MintIntent && began.is_none() && !rotation.reversed => {
            Ok(Rotation { since: now, ..went_on(State::Planned) })
        }
        Resolution::Resume => Ok(Rotation { since: now, step: 0, ..went_on(stopped.at) }),
        Resolution::Abandon => Ok(Rotation { begun: None, ..went_on(State::Abandoned) }),
        Resolution::Compensate
            if rotation.reversed || !(stopped.at.can_go_back() || stopped.at == State::Compensating) =>
        {
            Err(NotNow::PastPointOfNoReturn)
        }
        // What is begun is settled first, where it stood; then it goes back.
        Resolution::Compensate => Ok(Rotation { since: now, cancel_asked: true, ..went_on(stopped.at) }),
    }
}

/// Where it stands, or stood when it stopped.
fn effective(rotation: &Rotation) -> State {
    rotation
        .stopped
        .as_ref()
        .filter(|_| rotation.state == State::NeedsHuman)
        .map_or(rotation.state, |stopped| stopped.at)
}
