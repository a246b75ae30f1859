//! The machine against a model of a provider and a store, with workers that die, replies that are lost, calls that arrive late,
//! credentials that work only after a while, and people who interfere: whatever happens, the credential in use works.
//!
//! Long because the world, what must hold in it and what befalls it are read together.

use super::*;
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use proptest::{
    prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest},
    strategy::Strategy as Cases,
};
use std::collections::BTreeMap;

/// One credential at the provider.
#[derive(Clone, Debug)]
struct Key {
    active: bool,
    value: u32,
    works_from: DateTime<Utc>,
    listed_from: DateTime<Utc>,
    used: bool,
}

/// A change that was handed over by somebody who will never hear of its outcome.
#[derive(Clone, Debug)]
struct Late {
    at: DateTime<Utc>,
    call: Call,
    by: Rotation,
    value: u32,
}

struct World {
    now: DateTime<Utc>,
    strategy: Strategy,
    keys: BTreeMap<String, Key>,
    limit: Option<usize>,
    /// version → (key, value)
    versions: BTreeMap<u32, (String, u32)>,
    current: u32,
    pending: Option<u32>,
    strangers: Vec<String>,
    late: Vec<Late>,
    made: u32,
    promotions: u32,
    /// Values that nobody but us ever had, sealed in the record.
    sealed: Option<u32>,
    promoted_at: Option<DateTime<Utc>>,
    disabled_at: BTreeMap<String, DateTime<Utc>>,
    propagation: i64,
    human_moved: bool,
}

const OLD_VERSION: u32 = 1;
const NEW_VERSION: u32 = 2;
const HUMAN_VERSION: u32 = 3;

impl World {
    fn new(strategy: Strategy, stranger: bool, propagation: i64) -> Self {
        let now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let long_ago = now - TimeDelta::days(90);
        let key = |active, value| Key { active, value, works_from: long_ago, listed_from: long_ago, used: true };
        let mut keys = BTreeMap::from([("old".to_owned(), key(true, 10))]);
        let mut strangers = Vec::new();
        if strategy.mint == Mint::Ours && strategy.applies && strategy.overlaps {
            keys.insert("other".to_owned(), key(false, 5));
        }
        if stranger {
            keys.insert("stranger".to_owned(), key(true, 7));
            strangers.push("stranger".to_owned());
        }
        Self {
            now,
            strategy,
            keys,
            limit: (strategy.mint == Mint::Theirs).then_some(2),
            versions: BTreeMap::from([(OLD_VERSION, ("old".to_owned(), 10))]),
            current: OLD_VERSION,
            pending: None,
            strangers,
            late: Vec::new(),
            made: 0,
            promotions: 0,
            sealed: None,
            promoted_at: None,
            disabled_at: BTreeMap::new(),
            propagation,
            human_moved: false,
        }
    }

    fn advance(&mut self, to: DateTime<Utc>) {
        while let Some(place) = self
            .late
            .iter()
            .enumerate()
            .filter(|(_, late)| late.at <= to)
            .min_by_key(|(_, late)| late.at)
            .map(|(place, _)| place)
        {
            let late = self.late.remove(place);
            self.now = self.now.max(late.at);
            self.apply(late.call, &late.by, late.value);
            self.check(&late.by);
        }
        self.now = self.now.max(to);
    }

    fn works(&self, key: &str, value: u32) -> bool {
        if !self.strategy.applies {
            return true;
        }
        self.keys.get(key).is_some_and(|held| held.active && held.value == value && self.now >= held.works_from)
    }

    /// What must be true at every instant.
    fn check(&self, rotation: &Rotation) {
        let (key, value) = &self.versions[&self.current];
        let stored = self.works(key, *value);
        let sealed =
            self.sealed.is_some_and(|value| self.keys.get(key).is_some_and(|held| held.value == value && held.active));
        if self.strategy.overlaps {
            assert!(stored, "what is current does not work: {rotation:#?}\n{:?}", self.keys);
        } else {
            assert!(stored || sealed, "neither what is current nor what is sealed works: {rotation:#?}");
        }
        if let Some(limit) = self.limit {
            assert!(self.keys.len() <= limit, "{:?}", self.keys);
        }
        for stranger in &self.strangers {
            assert!(
                self.keys.get(stranger).is_some_and(|key| key.active),
                "a stranger's credential was touched: {rotation:#?}"
            );
        }
        assert!(
            self.promotions <= if rotation.reversed || rotation.reason == Some(Reason::RolledBack) { 2 } else { 1 }
        );
    }

    fn version(&self, rotation: &Rotation, who: Who) -> u32 {
        match (who, rotation.reversed) {
            (Who::Candidate, false) | (Who::Previous, true) => NEW_VERSION,
            _ => OLD_VERSION,
        }
    }

    /// The call arrives at the other side.
    fn apply(&mut self, call: Call, rotation: &Rotation, value: u32) -> Outcome {
        let id = |who| rotation.id_of(who).map(str::to_owned);
        match call {
            Call::Mint if rotation.reversed => match self.keys.get_mut(&id(Who::Candidate).unwrap()) {
                Some(key) => {
                    key.active = true;
                    Outcome::Done { id: None }
                }
                None => Outcome::Refused(Refusal::NotFound),
            },
            Call::Mint if self.strategy.mint == Mint::Theirs => {
                if self.limit.is_some_and(|limit| self.keys.len() >= limit) {
                    return Outcome::Refused(Refusal::Quota);
                }
                self.made += 1;
                let name = format!("new{}", self.made);
                let works_from = self.now + TimeDelta::seconds(self.propagation);
                self.keys.insert(
                    name.clone(),
                    Key {
                        active: true,
                        value: 100 + self.made,
                        works_from,
                        listed_from: self.now + TimeDelta::seconds(3),
                        used: false,
                    },
                );
                Outcome::Done { id: Some(name) }
            }
            Call::Mint => {
                let works_from =
                    if self.strategy.overlaps { self.now + TimeDelta::seconds(self.propagation) } else { self.now };
                let name = id(Who::Candidate).unwrap();
                self.keys.insert(name, Key { active: true, value, works_from, listed_from: self.now, used: false });
                Outcome::Done { id: None }
            }
            Call::Stage => {
                self.versions.insert(NEW_VERSION, (id(Who::Candidate).unwrap_or_else(|| "old".to_owned()), value));
                self.pending = Some(NEW_VERSION);
                Outcome::Done { id: None }
            }
            Call::Unstage => {
                self.pending = None;
                Outcome::Done { id: None }
            }
            Call::Promote => {
                if self.current != self.version(rotation, Who::Previous) {
                    return Outcome::Refused(Refusal::Conflict);
                }
                let version = self.version(rotation, Who::Candidate);
                self.versions
                    .entry(version)
                    .or_insert_with(|| (id(Who::Candidate).unwrap_or_else(|| "old".to_owned()), value));
                self.current = version;
                self.pending = None;
                self.promotions += 1;
                self.promoted_at = Some(self.now);
                Outcome::Done { id: None }
            }
            Call::Push => Outcome::Done { id: None },
            Call::Disable(who) => match self.keys.get_mut(&id(who).unwrap()) {
                Some(key) => {
                    key.active = false;
                    self.disabled_at.insert(id(who).unwrap(), self.now);
                    Outcome::Done { id: None }
                }
                None => Outcome::Refused(Refusal::NotFound),
            },
            Call::Enable(who) => match self.keys.get_mut(&id(who).unwrap()) {
                Some(key) => {
                    key.active = true;
                    Outcome::Done { id: None }
                }
                None => Outcome::Refused(Refusal::NotFound),
            },
            Call::Delete(who) => {
                let name = id(who).unwrap();
                let Some(key) = self.keys.get(&name) else { return Outcome::Refused(Refusal::NotFound) };
                assert!(!key.active, "deleted before it was disabled: {name} {rotation:#?}");
                if who == Who::Previous {
                    let promoted = self.promoted_at.expect("deleted before anything was promoted");
                    assert!(
                        self.now >= promoted + TimeDelta::seconds(i64::from(rotation.pace.grace)),
                        "deleted inside the grace"
                    );
                }
                self.keys.remove(&name);
                Outcome::Done { id: None }
            }
            Call::Revert => {
                let (name, value) = self.versions[&self.current].clone();
                self.keys
                    .insert(name, Key { active: true, value, works_from: self.now, listed_from: self.now, used: true });
                Outcome::Done { id: None }
            }
            Call::Inspect => Outcome::Seen(Seen {
                live: self
                    .keys
                    .iter()
                    .filter(|(_, key)| key.listed_from <= self.now)
                    .map(|(id, key)| Live {
                        id: id.clone(),
                        active: key.active,
                        used: key.used,
                        ours: id.starts_with("ours"),
                    })
                    .collect(),
                limit: self.limit,
                current: if self.current == self.version(rotation, Who::Previous) {
                    Current::Expected
                } else if self.current == self.version(rotation, Who::Candidate) {
                    Current::Candidate
                } else {
                    Current::Other
                },
                version: None,
                pending: match self.pending {
                    None => Pending::Nothing,
                    Some(NEW_VERSION) => Pending::Ours,
                    Some(_) => Pending::Strange,
                },
            }),
            Call::Prove => {
                let name = id(Who::Candidate).unwrap_or_else(|| "old".to_owned());
                let value = match (rotation.reversed, self.strategy.mint) {
                    (true, _) => self.versions[&OLD_VERSION].1,
                    (false, Mint::Ours) => value,
                    (false, Mint::Theirs) => self.keys.get(&name).map_or(0, |key| key.value),
                };
                if self.works(&name, value) { Outcome::Works } else { Outcome::Fails }
            }
            Call::ProveStored => {
                let (name, value) = self.versions[&self.current].clone();
                if self.works(&name, value) { Outcome::Works } else { Outcome::Fails }
            }
            Call::LastUsed => Outcome::LastUsed(self.promoted_at),
        }
    }

    /// A person makes a credential of their own and puts it into the store.
    fn human_moves(&mut self, rotation: &Rotation) {
        let Some(value) = self.versions.get(&self.current).map(|(_, value)| *value) else { return };
        let name = self.versions[&self.current].0.clone();
        let _ = rotation;
        self.versions.insert(HUMAN_VERSION, (name, value));
        self.current = HUMAN_VERSION;
        self.human_moved = true;
    }
}

fn pace() -> Pace {
    Pace {
        call_deadline: 10,
        settle: 15,
        proofs: 3,
        proof_spacing: 2,
        proof_deadline: 600,
        grace: 3600,
        quiet: 900,
        quiet_deadline: 7200,
        hold: 86_400,
        patience: 3600,
    }
}

const IAM: Strategy = Strategy {
    mint: Mint::Theirs,
    applies: true,
    overlaps: true,
    stages: true,
    disables: true,
    deletes: true,
    tells_use: true,
};
const GENERATED: Strategy = Strategy {
    mint: Mint::Ours,
    applies: false,
    overlaps: true,
    stages: true,
    disables: false,
    deletes: false,
    tells_use: false,
};
const TWO_USERS: Strategy = Strategy {
    mint: Mint::Ours,
    applies: true,
    overlaps: true,
    stages: true,
    disables: true,
    deletes: false,
    tells_use: false,
};
const ONE_USER: Strategy = Strategy {
    mint: Mint::Ours,
    applies: true,
    overlaps: false,
    stages: true,
    disables: false,
    deletes: false,
    tells_use: false,
};
const UNSTAGED: Strategy = Strategy { stages: false, ..IAM };

/// What goes wrong at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The worker dies before the call, after what it began was committed.
    DiesBefore,
    /// The call is made, the worker dies before it commits the outcome.
    DiesAfter,
    /// The call is made, the reply is lost.
    ReplyLost,
    /// The call is not made, and nobody knows.
    RequestLost,
    /// The worker freezes with the call handed over; it arrives so many seconds later, and somebody else goes on.
    Arrives(u8),
    Throttled,
    Denied,
    Cancel,
    RollBack,
    HumanMoves,
}

fn fault() -> impl Cases<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        2 => Just(Fault::DiesBefore),
        2 => Just(Fault::DiesAfter),
        2 => Just(Fault::ReplyLost),
        2 => Just(Fault::RequestLost),
        3 => (0_u8..10).prop_map(Fault::Arrives),
        1 => Just(Fault::Throttled),
        1 => Just(Fault::Cancel),
        1 => Just(Fault::RollBack),
    ]
}

fn fault_of_people() -> impl Cases<Value = Fault> {
    prop_oneof![8 => fault(), 1 => Just(Fault::HumanMoves), 1 => Just(Fault::Denied)]
}

/// Runs it to its end and returns the record and the world; asserts what must hold at every instant.
fn run(strategy: Strategy, faults: &[Fault], stranger: bool, propagation: i64) -> (Rotation, World) {
    let mut world = World::new(strategy, stranger, propagation);
    let mut rotation = Rotation::planned(strategy, pace(), Some("old".to_owned()), world.now);
    let mut faults = faults.iter().copied();
    for _ in 0..2000 {
        world.check(&rotation);
        let fault = match faults.next() {
            Some(Fault::Cancel) => {
                if let Ok(asked) = ask_cancel(&rotation) {
                    rotation = asked;
                }
                Fault::None
            }
            Some(Fault::RollBack) => {
                if let Ok(turned) = roll_back(&rotation, world.now) {
                    rotation = turned;
                }
                Fault::None
            }
            Some(Fault::HumanMoves) => {
                world.human_moves(&rotation);
                Fault::None
            }
            Some(fault) => fault,
            None => Fault::None,
        };
        let before = rotation.state;
        match next(&rotation, world.now) {
            Step::Stop => {
                let end = world.now + TimeDelta::days(1);
                world.advance(end);
                world.check(&rotation);
                return (rotation, world);
            }
            Step::Wait(until) => {
                assert!(until > world.now);
                world.advance(until);
            }
            Step::Prepare => {
                let candidate = match (strategy.mint, strategy.applies, strategy.overlaps) {
                    (Mint::Theirs, ..) => None,
                    (Mint::Ours, true, true) => Some("other".to_owned()),
                    (Mint::Ours, ..) => Some("old".to_owned()),
                };
                if fault != Fault::DiesBefore {
                    rotation = prepared(&rotation, candidate, world.now);
                    world.sealed = Some(50 + u32::from(rotation.intents));
                }
            }
            Step::Enter(state, reason) => {
                if fault != Fault::DiesBefore {
                    rotation = enter(&rotation, state, reason, world.now);
                }
            }
            step @ (Step::Begin(call) | Step::Look(call)) => {
                let value = match strategy.mint {
                    Mint::Ours => world.sealed.unwrap_or(0),
                    Mint::Theirs => {
                        rotation.candidate.as_ref().and_then(|id| world.keys.get(id)).map_or(0, |key| key.value)
                    }
                };
                if matches!(step, Step::Begin(_)) {
                    rotation = begin(&rotation, call, world.now);
                } else {
                    assert!(!call.changes(), "{call:?} was not begun");
                }
                let outcome = match fault {
                    Fault::DiesBefore => None,
                    Fault::DiesAfter => {
                        world.apply(call, &rotation, value);
                        None
                    }
                    Fault::ReplyLost => {
                        world.apply(call, &rotation, value);
                        Some(Outcome::Unknown)
                    }
                    Fault::RequestLost => Some(Outcome::Unknown),
                    Fault::Arrives(later) => {
                        if call.changes() {
                            let at = world.now + TimeDelta::seconds(i64::from(later));
                            world.late.push(Late { at, call, by: rotation.clone(), value });
                        }
                        None
                    }
                    Fault::Throttled => {
                        Some(Outcome::Refused(Refusal::Throttled { until: world.now + TimeDelta::seconds(30) }))
                    }
                    Fault::Denied => Some(Outcome::Refused(Refusal::Denied("a:Permission".to_owned()))),
                    _ => Some(world.apply(call, &rotation, value)),
                };
                world.check(&rotation);
                if let Some(outcome) = outcome {
                    rotation = after(&rotation, call, &outcome, world.now);
                }
                let shortly = world.now + TimeDelta::milliseconds(200);
                world.advance(shortly);
            }
        }
        assert!(
            before == rotation.state || before.followers().contains(&rotation.state),
            "{before:?} became {:?}",
            rotation.state
        );
    }
    panic!("it does not end: {rotation:#?}");
}

/// Nobody interfered: it ends, and only what ought to be is left.
fn tidy(strategy: Strategy, rotation: &Rotation, world: &World) {
    assert!(rotation.state.is_over(), "{rotation:#?}");
    let (key, value) = &world.versions[&world.current];
    assert!(world.works(key, *value), "{rotation:#?}");
    if strategy.mint == Mint::Theirs {
        assert_eq!(world.keys.keys().collect::<Vec<_>>(), [key], "{rotation:#?}");
    }
    assert_eq!(world.current == NEW_VERSION, rotation.state == State::Done, "{rotation:#?}");
    assert_eq!(world.pending, None, "{rotation:#?}");
}

fn any_strategy() -> impl Cases<Value = Strategy> {
    prop::sample::select(vec![IAM, GENERATED, TWO_USERS, ONE_USER, UNSTAGED])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_the_credential_in_use_works_and_it_ends_tidily(
        strategy in any_strategy(),
        faults in prop::collection::vec(fault(), 0..60),
        propagation in 0_i64..40,
    ) {
        let (rotation, world) = run(strategy, &faults, false, propagation);
        tidy(strategy, &rotation, &world);
    }

    #[test]
    fn whoever_interferes_the_credential_in_use_works_and_nothing_strange_is_touched(
        strategy in any_strategy(),
        faults in prop::collection::vec(fault_of_people(), 0..60),
        stranger in any::<bool>(),
    ) {
        run(strategy, &faults, stranger, 5);
    }
}

#[test]
fn undisturbed_it_passes_each_state_once() {
    for strategy in [IAM, GENERATED, TWO_USERS, ONE_USER, UNSTAGED] {
        let (rotation, world) = run(strategy, &[], false, 5);
        assert_eq!((rotation.state, rotation.reason.clone(), world.promotions), (State::Done, None, 1), "{strategy:?}");
        tidy(strategy, &rotation, &world);
    }
}

#[test]
fn a_strangers_key_in_the_last_slot_stops_it() {
    let (rotation, _) = run(IAM, &[], true, 0);
    assert_eq!(rotation.stopped, Some(Stopped { at: State::Planned, reason: Reason::QuotaFull }));
}

#[test]
fn a_credential_that_never_works_is_taken_away_again() {
    let (rotation, world) = run(IAM, &[], false, 100_000);
    assert_eq!((rotation.state, rotation.reason.clone()), (State::RolledBack, Some(Reason::Unproven)));
    tidy(IAM, &rotation, &world);
}
