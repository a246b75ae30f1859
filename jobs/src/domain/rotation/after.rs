//! What the record becomes by what was done.

use super::{
    Begun, Call, Current, Mint, Outcome, Pending, Reason, Refusal, Rotation, Seen, State, Stopped, Who,
    next::{SWITCH_ON, end},
    record::seconds,
};
use chrono::{DateTime, TimeDelta, Utc};

/// Candidates that are tried before the rotation is given up.
const MOST_INTENTS: u8 = 3;
/// Failures in a row of one test, from PROMOTED on, that are believed.
const BELIEVED: u32 = 3;
/// Failures in a row of one call, from PROMOTED on, after which a person is asked: about a day.
const MOST_TRIES: u32 = 30;
/// Times that the provider may list what was deleted, each longer after the other.
const MOST_LISTED: u32 = 8;
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);

/// That `call` is about to be made.
#[must_use]
pub fn begin(rotation: &Rotation, call: Call, now: DateTime<Utc>) -> Rotation {
    Rotation { begun: Some(Begun { call, at: now }), not_before: None, ..rotation.clone() }
}

/// The candidate is about to be made. `candidate` is what the provider will call it, where that is known beforehand.
#[must_use]
pub fn prepared(rotation: &Rotation, candidate: Option<String>, now: DateTime<Utc>) -> Rotation {
    Rotation { candidate, intents: rotation.intents.saturating_add(1), ..enter(rotation, State::MintIntent, None, now) }
}

/// It enters a state, by itself or because of `reason`.
#[must_use]
pub fn enter(rotation: &Rotation, state: State, reason: Option<Reason>, now: DateTime<Utc>) -> Rotation {
    let entered = Rotation {
        state,
        entered_at: now,
        step: 0,
        begun: None,
        not_before: None,
        tries: 0,
        proofs: 0,
        checked_at: None,
        reason: reason.or_else(|| rotation.reason.clone()),
        ..rotation.clone()
    };
    // The way back from a way back: the credential in use was not touched, so that it drains the other one once more.
    if state == State::Compensating && rotation.reversed {
        return Rotation { state: State::Draining, reversed: false, ..exchanged(entered) };
    }
    entered
}

/// The former credential and the new one change places.
pub(super) fn exchanged(rotation: Rotation) -> Rotation {
    Rotation {
        previous: rotation.candidate,
        candidate: rotation.previous,
        previous_version: rotation.candidate_version,
        candidate_version: rotation.previous_version,
        ..rotation
    }
}

/// What the record becomes when `call` ended so. Pure, and total: what does not fit stops the rotation rather than the worker.
#[must_use]
pub fn after(rotation: &Rotation, call: Call, outcome: &Outcome, now: DateTime<Utc>) -> Rotation {
    let settled = Rotation { begun: None, not_before: None, ..rotation.clone() };
    match outcome {
        Outcome::Refused(Refusal::Throttled { until }) => {
            // A definite no, so that a begun call is known not to have happened, but not what one before it did.
            let begun = if call.changes() { None } else { rotation.begun };
            Rotation { begun, not_before: Some(*until), ..rotation.clone() }
        }
        Outcome::Unknown if call == Call::Prove && rotation.state == State::Staged => failed_proof(&settled, now),
        Outcome::Unknown => again(rotation, rotation.begun, &format!("{call:?}"), now),
        Outcome::Refused(refusal) => refused(rotation, &settled, call, refusal, now),
        Outcome::Seen(seen) => inspected(rotation, &settled, seen, now),
        Outcome::Works => tested(rotation, &settled, call, true, now),
        Outcome::Fails => tested(rotation, &settled, call, false, now),
        Outcome::LastUsed(at) => last_used(&settled, *at, now),
        Outcome::Unfinished { again } => Rotation { not_before: Some(*again), ..settled },
        Outcome::Done { id } => done(&settled, call, id.as_ref(), now),
    }
}

fn done(settled: &Rotation, call: Call, id: Option<&String>, now: DateTime<Utc>) -> Rotation {
    let step = |step| Rotation { step, tries: 0, ..settled.clone() };
    match (settled.state, call) {
        (_, Call::Disable(Who::Orphan)) => step(1),
        (State::MintIntent, Call::Delete(Who::Orphan)) if settled.intents >= MOST_INTENTS => {
            give_up(&Rotation { orphan: None, ..settled.clone() }, Reason::MintFails, now)
        }
        (State::MintIntent, Call::Delete(Who::Orphan)) => {
            enter(&Rotation { orphan: None, ..settled.clone() }, State::Reserved, None, now)
        }
        (_, Call::Delete(Who::Orphan)) => Rotation { orphan: None, ..step(0) },
        (State::MintIntent, Call::Mint) if settled.strategy.mint == Mint::Ours || settled.reversed || id.is_some() => {
            let candidate = id.cloned().or_else(|| settled.candidate.clone());
            enter(&Rotation { candidate, ..settled.clone() }, State::Minted, None, now)
        }
        (State::Minted, Call::Stage) => enter(&stored(settled, id), State::Staged, None, now),
        // Not believed before the store was read back.
        (State::Proven, Call::Promote) => Rotation { checked_at: None, ..stored(settled, id) },
        (State::Promoted, Call::Push) => enter(settled, State::Synced, None, now),
        (State::Draining, Call::Disable(Who::Previous)) => enter(settled, State::Disabled, None, now),
        (State::Disabled, Call::Enable(Who::Previous)) => {
            let on_again = enter(settled, State::Draining, None, now);
            stop(&on_again, Reason::CurrentFails, now)
        }
        (State::Disabled, Call::Delete(Who::Previous)) => enter(settled, State::Retired, None, now),
        (State::Retired, Call::Delete(Who::Previous)) => Rotation { step: 0, ..settled.clone() },
        (State::Compensating, Call::Unstage) => step(2),
        (State::Compensating, Call::Revert | Call::Disable(Who::Candidate)) => step(3),
        (State::Compensating, Call::Delete(Who::Candidate)) => step(4),
        _ => stop(settled, Reason::CallFails(format!("{call:?}")), now),
    }
}

/// The store calls the candidate so.
fn stored(settled: &Rotation, version: Option<&String>) -> Rotation {
    let candidate_version = version.cloned().or_else(|| settled.candidate_version.clone());
    Rotation { candidate_version, ..settled.clone() }
}

fn inspected(rotation: &Rotation, settled: &Rotation, seen: &Seen, now: DateTime<Utc>) -> Rotation {
    match rotation.state {
        State::Planned => reserve(settled, seen, now),
        State::MintIntent => look_for_orphan(settled, seen, now),
        State::Proven => match seen.current {
            Current::Candidate => enter(&stored(settled, seen.version.as_ref()), State::Promoted, None, now),
            Current::Expected => Rotation { checked_at: Some(now), ..settled.clone() },
            Current::Other => stop(settled, Reason::Moved, now),
        },
        State::Draining => match seen.current {
            Current::Candidate => Rotation { step: 2, tries: 0, ..settled.clone() },
            Current::Expected | Current::Other => stop(settled, Reason::Moved, now),
        },
        State::Disabled => match seen.current {
            Current::Candidate => Rotation { step: 2, tries: 0, ..settled.clone() },
            // What is switched off is in use again: at once back on, then a person.
            Current::Expected => Rotation { step: SWITCH_ON, ..settled.clone() },
            Current::Other => stop(settled, Reason::Moved, now),
        },
        State::Retired => {
            let listed = settled.previous.as_ref().is_some_and(|id| seen.live.iter().any(|live| live.id == *id));
            if !listed {
                enter(settled, end(settled), None, now)
            } else if settled.tries >= MOST_LISTED {
                stop(settled, Reason::NotGone, now)
            } else {
                again(settled, None, "Inspect", now)
            }
        }
        State::Compensating if settled.step == 0 => match seen.current {
            // It was promoted after all, by a call nobody heard of again: the way is forward.
            Current::Candidate if settled.candidate.is_some() => {
                enter(&stored(settled, seen.version.as_ref()), State::Promoted, None, now)
            }
            _ => Rotation { step: 1, tries: 0, ..settled.clone() },
        },
        State::Compensating => {
            let listed = settled.candidate.as_ref().is_some_and(|id| seen.live.iter().any(|live| live.id == *id));
            if !listed {
                enter(settled, State::RolledBack, None, now)
            } else if settled.tries >= MOST_LISTED {
                stop(settled, Reason::NotGone, now)
            } else {
                again(settled, None, "Inspect", now)
            }
        }
        _ => stop(settled, Reason::CallFails("Inspect".to_owned()), now),
    }
}

/// Is there room for one more, and is everything as it was planned?
fn reserve(settled: &Rotation, seen: &Seen, now: DateTime<Utc>) -> Rotation {
    if seen.current != Current::Expected {
        return enter(settled, State::RolledBack, Some(Reason::PlanStale), now);
    }
    if seen.pending == Pending::Strange {
        return stop(settled, Reason::StrangePending, now);
    }
    let full = seen.limit.is_some_and(|limit| seen.live.len() >= limit);
    if settled.strategy.mint == Mint::Theirs && full {
        let spare =
            seen.live.iter().find(|live| live.ours && !live.active && Some(&live.id) != settled.previous.as_ref());
        return match spare {
            Some(spare) => Rotation { orphan: Some(spare.id.clone()), step: 0, ..settled.clone() },
            None => stop(settled, Reason::QuotaFull, now),
        };
    }
    let known = seen.live.iter().map(|live| live.id.clone()).collect();
    enter(&Rotation { known, ..settled.clone() }, State::Reserved, None, now)
}

/// Did the call that was not heard of make a credential? Its value is lost, so that nobody can use it: one that is used is a stranger's.
fn look_for_orphan(settled: &Rotation, seen: &Seen, now: DateTime<Utc>) -> Rotation {
    let mut fresh = seen.live.iter().filter(|live| !settled.known.contains(&live.id));
    match (fresh.next(), fresh.next()) {
        (None, _) if seen.limit.is_some_and(|limit| seen.live.len() >= limit) => stop(settled, Reason::QuotaFull, now),
        (None, _) if settled.intents >= MOST_INTENTS => give_up(settled, Reason::MintFails, now),
        (None, _) => enter(settled, State::Reserved, None, now),
        (Some(one), None) if !one.used => {
            Rotation { orphan: Some(one.id.clone()), step: 0, tries: 0, ..settled.clone() }
        }
        (Some(_), _) => stop(settled, Reason::StrangeCredentials, now),
    }
}

fn tested(rotation: &Rotation, settled: &Rotation, call: Call, works: bool, now: DateTime<Utc>) -> Rotation {
    match (rotation.state, call, works) {
        (State::MintIntent, Call::Prove, true) => enter(settled, State::Minted, None, now),
        // The same value is set again.
        (State::MintIntent, Call::Prove, false) => {
            Rotation { tries: rotation.tries.saturating_add(1), ..settled.clone() }
        }
        (State::Staged, Call::Prove, false) => failed_proof(settled, now),
        (State::Staged, Call::Prove, true) => {
            let proofs = rotation.proofs.saturating_add(1);
            if proofs >= rotation.pace.proofs {
                return enter(settled, State::Proven, None, now);
            }
            Rotation {
                proofs,
                tries: 0,
                not_before: Some(now + seconds(rotation.pace.proof_spacing)),
                ..settled.clone()
            }
        }
        (State::Draining, Call::ProveStored, true) => Rotation { step: 3, tries: 0, ..settled.clone() },
        (State::Disabled, Call::ProveStored, true) => {
            Rotation { step: rotation.step.saturating_add(1), tries: 0, ..settled.clone() }
        }
        (State::Compensating, Call::ProveStored, true) => enter(settled, State::RolledBack, None, now),
        (State::Draining | State::Compensating, Call::ProveStored, false) if rotation.tries + 1 >= BELIEVED => {
            stop(settled, Reason::CurrentFails, now)
        }
        (State::Disabled, Call::ProveStored, false) if rotation.tries + 1 >= BELIEVED => {
            Rotation { step: SWITCH_ON, tries: 0, ..settled.clone() }
        }
        (State::Draining | State::Disabled | State::Compensating, Call::ProveStored, false) => {
            again(settled, None, "ProveStored", now)
        }
        _ => stop(settled, Reason::CallFails(format!("{call:?}")), now),
    }
}

fn failed_proof(settled: &Rotation, now: DateTime<Utc>) -> Rotation {
    if now >= settled.entered_at + seconds(settled.pace.proof_deadline) {
        return give_up(settled, Reason::Unproven, now);
    }
    Rotation { proofs: 0, ..again(settled, None, "Prove", now) }
}

fn last_used(settled: &Rotation, at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Rotation {
    let quiet_from = at.map(|at| at + seconds(settled.pace.quiet)).filter(|quiet_from| now < *quiet_from);
    let patience = settled.entered_at + seconds(settled.pace.grace) + seconds(settled.pace.quiet_deadline);
    match quiet_from {
        None => Rotation { step: 1, tries: 0, ..settled.clone() },
        Some(_) if now >= patience => stop(settled, Reason::StillInUse, now),
        Some(quiet_from) => Rotation { not_before: Some(quiet_from.min(patience)), ..settled.clone() },
    }
}

fn refused(rotation: &Rotation, settled: &Rotation, call: Call, refusal: &Refusal, now: DateTime<Utc>) -> Rotation {
    let gone = *refusal == Refusal::NotFound;
    match call {
        // What is to be taken away is not there any more.
        Call::Disable(Who::Orphan | Who::Candidate) | Call::Delete(_) | Call::Unstage if gone => {
            return done(settled, call, None, now);
        }
        Call::Disable(Who::Previous) if gone => return enter(settled, State::Retired, None, now),
        Call::Mint => match refusal {
            // Taken by one that was there before, or by one of ours whose birth nobody heard of: it is looked for.
            Refusal::Quota => {
                let long_ago = now - seconds(rotation.pace.call_deadline);
                return Rotation { begun: Some(Begun { call, at: long_ago }), ..settled.clone() };
            }
            Refusal::Policy if rotation.intents < MOST_INTENTS && !rotation.reversed => {
                return enter(settled, State::Reserved, None, now);
            }
            _ => {}
        },
        // Somebody was faster: the store tells who.
        Call::Promote if *refusal == Refusal::Conflict => return Rotation { checked_at: None, ..settled.clone() },
        _ => {}
    }
    let reason = match refusal {
        Refusal::Denied(permission) => Reason::Denied(permission.clone()),
        Refusal::NotFound => Reason::Gone,
        Refusal::Quota => Reason::QuotaFull,
        Refusal::Policy => Reason::ValuesRefused,
        Refusal::Conflict => Reason::Moved,
        Refusal::Rejected(code) => Reason::CallFails(code.clone()),
        Refusal::Throttled { .. } => Reason::CallFails("throttled".to_owned()),
    };
    match rotation.state {
        // A look that is refused tells nothing about the call that it was to find.
        _ if rotation.begun.is_some() && !call.changes() => stop(rotation, reason, now),
        state if state.can_go_back() => give_up(settled, reason, now),
        _ => stop(settled, reason, now),
    }
}

/// Nobody drives it any more: it waits for a person.
#[must_use]
pub fn stand_still(rotation: &Rotation, reason: Reason, now: DateTime<Utc>) -> Rotation {
    stop(rotation, reason, now)
}

/// Before PROMOTED: back.
fn give_up(rotation: &Rotation, reason: Reason, now: DateTime<Utc>) -> Rotation {
    enter(rotation, State::Compensating, Some(reason), now)
}

/// A person must decide; what is begun stays begun.
fn stop(rotation: &Rotation, reason: Reason, now: DateTime<Utc>) -> Rotation {
    Rotation {
        begun: rotation.begun,
        stopped: Some(Stopped { at: rotation.state, reason: reason.clone() }),
        ..enter(rotation, State::NeedsHuman, Some(reason), now)
    }
}

/// The same once more, later each time; from PROMOTED on a person is asked after about a day, before that patience ends it.
fn again(rotation: &Rotation, begun: Option<Begun>, what: &str, now: DateTime<Utc>) -> Rotation {
    let tries = rotation.tries.saturating_add(1);
    if tries >= MOST_TRIES {
        return stop(&Rotation { begun, ..rotation.clone() }, Reason::CallFails(what.to_owned()), now);
    }
    let wait = TimeDelta::seconds(1_i64 << tries.saturating_sub(1).min(12)).min(LONGEST_WAIT);
    Rotation { begun, tries, not_before: Some(now + wait), ..rotation.clone() }
}
