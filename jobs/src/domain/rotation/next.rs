//! What is to be done.

use super::{Begun, Call, Mint, Reason, Rotation, State, Step, Who, record::seconds};
use chrono::{DateTime, Utc};

/// For how many seconds at least what was seen of the store is believed.
const LOOK_HOLDS: u32 = 10;

/// The one thing to do now.
pub fn next(rotation: &Rotation, now: DateTime<Utc>) -> Step {
    if rotation.state.is_over() || rotation.state == State::NeedsHuman {
        return Step::Stop;
    }
    let free = rotation.begun.map(|begun| no_longer_under_way(rotation, begun));
    if let Some(until) = free.max(rotation.not_before).filter(|until| now < *until) {
        return Step::Wait(until);
    }
    if let Some(begun) = rotation.begun {
        return settle(rotation, begun);
    }
    if rotation.orphan.is_some() {
        return match rotation.step {
            0 if rotation.strategy.disables => Step::Begin(Call::Disable(Who::Orphan)),
            _ => Step::Begin(Call::Delete(Who::Orphan)),
        };
    }
    if rotation.state.can_go_back() {
        if rotation.cancel_asked {
            return Step::Enter(State::Compensating, Some(Reason::Canceled));
        }
        if now >= rotation.since + seconds(rotation.pace.patience) {
            return Step::Enter(State::Compensating, Some(Reason::Deadline));
        }
    }
    in_state(rotation, now)
}

/// When a begun call can neither arrive any more nor be missing from the provider's lists.
fn no_longer_under_way(rotation: &Rotation, begun: Begun) -> DateTime<Utc> {
    let listed = if made_by_them(rotation, begun.call) { rotation.pace.settle } else { 0 };
    begun.at + seconds(rotation.pace.call_deadline) + seconds(listed)
}

fn made_by_them(rotation: &Rotation, call: Call) -> bool {
    call == Call::Mint && rotation.strategy.mint == Mint::Theirs && !rotation.reversed
}

/// Finds out what became of a call whose outcome is unknown. What may be repeated is begun again; what may not is looked for.
fn settle(rotation: &Rotation, begun: Begun) -> Step {
    match begun.call {
        Call::Promote => Step::Look(Call::Inspect),
        call if made_by_them(rotation, call) => Step::Look(Call::Inspect),
        Call::Mint if !rotation.reversed => Step::Look(Call::Prove),
        call => Step::Begin(call),
    }
}

fn in_state(rotation: &Rotation, now: DateTime<Utc>) -> Step {
    let strategy = rotation.strategy;
    match rotation.state {
        State::Planned => Step::Look(Call::Inspect),
        State::Reserved => Step::Prepare,
        State::MintIntent if rotation.reversed && !strategy.disables => Step::Enter(State::Minted, None),
        State::MintIntent if !strategy.applies && !rotation.reversed => Step::Enter(State::Minted, None),
        State::MintIntent => Step::Begin(Call::Mint),
        State::Minted if strategy.stages && !rotation.reversed => Step::Begin(Call::Stage),
        State::Minted => Step::Enter(State::Staged, None),
        State::Staged => Step::Look(Call::Prove),
        State::Proven => match rotation.checked_at {
            Some(at) if now < at + seconds(rotation.pace.call_deadline.max(LOOK_HOLDS)) => Step::Begin(Call::Promote),
            _ => Step::Look(Call::Inspect),
        },
        State::Promoted => Step::Begin(Call::Push),
        State::Synced => Step::Enter(State::Draining, None),
        State::Draining => draining(rotation, now),
        State::Disabled => disabled(rotation, now),
        State::Retired if strategy.deletes && rotation.previous.is_some() => Step::Look(Call::Inspect),
        State::Retired => Step::Enter(end(rotation), None),
        State::Compensating => compensating(rotation),
        State::Done | State::RolledBack | State::Abandoned | State::NeedsHuman => Step::Stop,
    }
}

fn draining(rotation: &Rotation, now: DateTime<Utc>) -> Step {
    let until = rotation.entered_at + seconds(rotation.pace.grace);
    if now < until {
        return Step::Wait(until);
    }
    if !rotation.strategy.disables || rotation.previous.is_none() {
        return Step::Enter(State::Retired, None);
    }
    match rotation.step {
        0 if rotation.strategy.tells_use && rotation.pace.quiet > 0 => Step::Look(Call::LastUsed),
        0 | 1 => Step::Look(Call::Inspect),
        2 => Step::Look(Call::ProveStored),
        _ => Step::Begin(Call::Disable(Who::Previous)),
    }
}

fn disabled(rotation: &Rotation, now: DateTime<Utc>) -> Step {
    if rotation.step == SWITCH_ON {
        return Step::Begin(Call::Enable(Who::Previous));
    }
    // At once, while switching it on again is one call.
    if rotation.step == 0 {
        return Step::Look(Call::ProveStored);
    }
    let until = rotation.entered_at + seconds(rotation.pace.hold);
    if now < until {
        return Step::Wait(until);
    }
    match rotation.step {
        _ if !rotation.strategy.deletes => Step::Enter(State::Retired, None),
        1 => Step::Look(Call::Inspect),
        2 => Step::Look(Call::ProveStored),
        _ => Step::Begin(Call::Delete(Who::Previous)),
    }
}

/// The step of DISABLED in which the former credential is switched on again.
pub(super) const SWITCH_ON: u8 = 9;

fn compensating(rotation: &Rotation) -> Step {
    let strategy = rotation.strategy;
    let candidate = rotation.candidate.is_some() && strategy.applies;
    match rotation.step {
        0 => Step::Look(Call::Inspect),
        1 if strategy.stages => Step::Begin(Call::Unstage),
        1 | 2 if candidate && !strategy.overlaps => Step::Begin(Call::Revert),
        3 if candidate && !strategy.overlaps => Step::Look(Call::ProveStored),
        1 | 2 if candidate && strategy.disables => Step::Begin(Call::Disable(Who::Candidate)),
        1..=3 if candidate && strategy.overlaps && strategy.deletes => Step::Begin(Call::Delete(Who::Candidate)),
        1..=4 if candidate && strategy.overlaps && strategy.deletes => Step::Look(Call::Inspect),
        _ => Step::Enter(State::RolledBack, None),
    }
}

/// How it ends when all went well.
pub(super) fn end(rotation: &Rotation) -> State {
    if rotation.reversed { State::RolledBack } else { State::Done }
}
