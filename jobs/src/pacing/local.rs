//! What one process knows of one budget: the slots that it has drawn and not spent, and the calls that are under way.

use crate::domain::pacing::{Drawn, in_flight};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long after its time a drawn slot may still be used.
pub const KEPT: Duration = Duration::from_secs(2);
/// What a round trip is taken to last before one was seen.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// How much a new round trip counts against those before.
const WEIGHT: f64 = 0.2;

/// What a caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Its slot is at this time; it counts as under way from now on, under this number.
    Go(Instant, u64),
    /// As many are under way as the rate can use.
    Full,
    /// No slot is left.
    Draw,
}

#[derive(Debug)]
pub struct Local {
    slots: VecDeque<Instant>,
    under_way: Vec<(u64, Instant)>,
    next: u64,
    round_trip: Option<Duration>,
    rate: f64,
}

impl Local {
    pub fn new(rate: f64) -> Self {
        Self { slots: VecDeque::new(), under_way: Vec::new(), next: 0, round_trip: None, rate }
    }

    pub fn look(&mut self, now: Instant) -> Look {
        if self.under_way.len() >= in_flight(self.rate, self.round_trip(now)) {
            return Look::Full;
        }
        while self.slots.front().is_some_and(|slot| *slot + KEPT < now) {
            self.slots.pop_front();
        }
        let Some(slot) = self.slots.pop_front() else { return Look::Draw };
        self.next += 1;
        self.under_way.push((self.next, slot.max(now)));
        Look::Go(slot, self.next)
    }

    /// What was drawn by a database that answered at `now`.
    pub fn drew(&mut self, drawn: Drawn, now: Instant) {
        let Drawn::Slots { count, first, spacing, rate } = drawn else { return };
        self.rate = rate;
        let shifted = |seconds: f64| {
            let size = Duration::try_from_secs_f64(seconds.abs()).unwrap_or(KEPT);
            if seconds < 0.0 { now.checked_sub(size).unwrap_or(now) } else { now + size }
        };
        let first = first.as_seconds_f64();
        self.slots.extend((0..count).map(|number| shifted(first + f64::from(number) * spacing)));
    }

    /// The rate was lowered: what was drawn at the old one is not spent.
    pub fn lowered(&mut self, rate: Option<f64>) {
        self.slots.clear();
        if let Some(rate) = rate {
            self.rate = rate;
        }
    }

    /// A call is over; `took` when it tells how long round trips are.
    pub fn ended(&mut self, number: u64, took: Option<Duration>) {
        self.under_way.retain(|(one, _)| *one != number);
        if let Some(took) = took {
            self.round_trip = Some(match self.round_trip {
                Some(before) => before.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT),
                None => took,
            });
        }
    }

    /// A call that has been under way for long tells that round trips are at least that long: else the first slow answer would hold
    /// up all others.
    fn round_trip(&self, now: Instant) -> Duration {
        let oldest = self.under_way.iter().map(|(_, since)| now.saturating_duration_since(*since)).max();
        self.round_trip.unwrap_or(ROUND_TRIP).max(oldest.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn slots(count: u32, first: i64, spacing: f64, rate: f64) -> Drawn {
        Drawn::Slots { count, first: TimeDelta::milliseconds(first), spacing, rate }
    }

    #[test]
    fn slots_are_spent_in_their_order_and_age_out() {
        let (mut local, now) = (Local::new(100.0), Instant::now() + KEPT * 2);
        assert_eq!(local.look(now), Look::Draw);
        local.drew(slots(3, -10, 0.01, 100.0), now);
        let millis = Duration::from_millis;
        assert_eq!(local.look(now), Look::Go(now - millis(10), 1));
        assert_eq!(local.look(now), Look::Go(now, 2));
        local.ended(1, None);
        local.ended(2, None);
        assert_eq!(local.look(now + millis(11) + KEPT), Look::Draw, "the third is too old");
    }

    #[test]
    fn no_more_are_under_way_than_the_rate_can_use() {
        let (mut local, now) = (Local::new(100.0), Instant::now());
        local.drew(slots(100, -1000, 0.0, 100.0), now);
        local.ended(0, Some(Duration::from_millis(30)));
        for _ in 0..3 {
            assert!(matches!(local.look(now), Look::Go(..)));
        }
        assert_eq!(local.look(now), Look::Full);
        // whoever is not answered shows that the round trip is longer
        assert!(matches!(local.look(now + Duration::from_millis(40)), Look::Go(..)));
        local.ended(1, Some(Duration::from_millis(40)));
        assert!(matches!(local.look(now + Duration::from_millis(40)), Look::Go(..)));
    }

    #[test]
    fn one_is_always_let_through() {
        let (mut local, now) = (Local::new(0.1), Instant::now());
        local.drew(slots(1, 0, 10.0, 0.1), now);
        assert_eq!(local.look(now), Look::Go(now, 1));
    }

    #[test]
    fn a_lowered_rate_takes_back_what_was_drawn() {
        let (mut local, now) = (Local::new(100.0), Instant::now());
        local.drew(slots(5, 0, 0.01, 100.0), now);
        local.lowered(Some(50.0));
        assert_eq!(local.look(now), Look::Draw);
    }
}
