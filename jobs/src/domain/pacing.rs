//! How the time of a call budget is given out, lowered and raised again.
//!
//! A budget is a line of slots, one after the other at the rate in force. A chunk of them is drawn at a time; a slot that nobody
//! drew is lost when it is older than a chunk, so that idle time gives no more than a small burst.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// The part of a second's calls that one chunk holds.
const CHUNK: f64 = 0.05;
const LARGEST_CHUNK: f64 = 100.0;
/// What a throttled rate is multiplied with.
const CUT: f64 = 0.5;
/// The part of the full rate by which a lowered one rises in a second.
const CLIMB: f64 = 0.01;
/// The part of the full rate below which none is lowered: somebody must go on asking.
const LEAST: f64 = 1.0 / 64.0;
/// The longest wait that a provider's word is taken for; after that it is asked again.
pub const LONGEST_TOLD: Duration = Duration::from_secs(3600);
/// Time given out further ahead than can be was given out by a clock that has been put back since.
const CLOCK_PUT_BACK: TimeDelta = TimeDelta::seconds(3660);

/// Where a budget stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Calls per second when it was last lowered.
    pub rate: f64,
    pub cut_at: DateTime<Utc>,
    /// Up to here the time is given out.
    pub until: DateTime<Utc>,
}

/// What came of a draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drawn {
    /// So many calls, the first after this long or, when it is negative, due for so long; then one every `spacing` seconds.
    Slots { count: u32, first: TimeDelta, spacing: f64, rate: f64 },
    /// The next slot is further away than the caller waits; nothing was drawn.
    Later(Duration),
}

/// As many calls as are drawn at once at this rate: a twentieth of a second's, at least one.
pub fn chunk(rate: f64) -> u32 {
    let calls = (rate * CHUNK).ceil().clamp(1.0, LARGEST_CHUNK);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 100")]
    let calls = calls as u32;
    calls
}

impl Standing {
    /// Of a budget that nobody has drawn on.
    pub fn new(full: f64, now: DateTime<Utc>) -> Self {
        Self { rate: full, cut_at: now, until: now }
    }

    /// Calls per second now, when `full` is the most that there may be.
    pub fn rate_at(&self, now: DateTime<Utc>, full: f64) -> f64 {
        let since = (now - self.cut_at).as_seconds_f64().max(0.0);
        (self.rate + full * CLIMB * since).min(full).max(full * LEAST)
    }

    /// Draws a chunk, unless it begins later than after `patience`.
    pub fn draw(&mut self, now: DateTime<Utc>, full: f64, patience: Duration) -> Drawn {
        self.heed_clock(now);
        let rate = self.rate_at(now, full);
        let count = chunk(rate);
        let long = seconds(f64::from(count) / rate);
        let start = self.until.max(now - long);
        let first = start - now;
        if let Ok(wait) = first.to_std()
            && wait > patience
        {
            return Drawn::Later(wait);
        }
        self.until = start + long;
        Drawn::Slots { count, first, spacing: 1.0 / rate, rate }
    }

    /// A call that was sent so long ago was throttled; `told` is how long the provider wants to be left alone. Tells the new rate
    /// when it was lowered: once for all calls that were under way together.
    pub fn throttled(&mut self, now: DateTime<Utc>, full: f64, ago: Duration, told: Option<Duration>) -> Option<f64> {
        self.heed_clock(now);
        if let Some(told) = told {
            self.until = self.until.max(now + delta(told.min(LONGEST_TOLD)));
        }
        if now - delta(ago) < self.cut_at {
            return None;
        }
        self.rate = (self.rate_at(now, full) * CUT).max(full * LEAST);
        self.cut_at = now;
        Some(self.rate)
    }

    fn heed_clock(&mut self, now: DateTime<Utc>) {
        self.cut_at = self.cut_at.min(now);
        if self.until > now + CLOCK_PUT_BACK {
            self.until = now;
        }
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(CLOCK_PUT_BACK)
}

fn seconds(seconds: f64) -> TimeDelta {
    delta(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_TOLD))
}

/// How many calls may be under way at once so that more would not be answered sooner: rate × round trip, at least one.
pub fn in_flight(rate: f64, round_trip: Duration) -> usize {
    let calls = (rate * round_trip.as_secs_f64()).ceil().clamp(1.0, 1e6);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10^6")]
    let calls = calls as usize;
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    /// Draws whatever there is every millisecond for `span` and counts the slots that begin within it.
    fn calls(standing: &mut Standing, full: f64, from: i64, span: i64) -> usize {
        let mut slots = Vec::new();
        for now in from..from + span {
            if let Drawn::Slots { count, first, spacing, .. } = standing.draw(at(now), full, Duration::ZERO) {
                let first = now as f64 + first.as_seconds_f64() * 1000.0;
                slots.extend((0..count).map(|number| first + f64::from(number) * spacing * 1000.0));
            }
        }
        slots.iter().filter(|slot| **slot < (from + span) as f64).count()
    }

    #[test]
    fn no_more_is_given_out_than_the_rate_and_one_burst() {
        for full in [0.5, 1.0, 8.0, 100.0, 1000.0] {
            let mut standing = Standing::new(full, at(0));
            let most = full * 10.0 + f64::from(chunk(full)) + 1.0;
            let given = calls(&mut standing, full, 0, 10_000) as f64;
            assert!(given <= most && given >= full * 10.0 - 1.0, "{given} of {full}/s");
        }
    }

    #[test]
    fn an_hour_of_idling_saves_up_no_more_than_a_chunk() {
        let mut standing = Standing::new(100.0, at(0));
        assert!(calls(&mut standing, 100.0, 3_600_000, 100) <= 10 + 5 + 1);
    }

    #[test]
    fn two_who_draw_in_turns_get_different_slots() {
        let mut standing = Standing::new(100.0, at(0));
        let Drawn::Slots { first: one, .. } = standing.draw(at(0), 100.0, PATIENCE) else { panic!() };
        let Drawn::Slots { first: two, count, .. } = standing.draw(at(0), 100.0, PATIENCE) else { panic!() };
        assert_eq!((two - one, count), (TimeDelta::milliseconds(50), 5));
    }

    #[test]
    fn errors_of_one_round_trip_lower_the_rate_once() {
        let mut standing = Standing::new(100.0, at(0));
        let sent = |ago| Duration::from_millis(ago);
        assert_eq!(standing.throttled(at(200), 100.0, sent(100), None), Some(50.0));
        assert_eq!(standing.throttled(at(201), 100.0, sent(100), None), None);
        assert_eq!(standing.throttled(at(299), 100.0, sent(100), None), None);
        let Some(rate) = standing.throttled(at(301), 100.0, sent(100), None) else {
            panic!("it was sent after the cut")
        };
        assert!((rate - 25.0).abs() < 0.2, "{rate}");
    }

    #[test]
    fn a_lowered_rate_rises_slowly_and_never_above_the_full_one() {
        let mut standing = Standing::new(100.0, at(0));
        standing.throttled(at(1), 100.0, Duration::ZERO, None);
        assert!((standing.rate_at(at(10_001), 100.0) - 60.0).abs() < 0.01);
        assert!((standing.rate_at(at(10_000_000), 100.0) - 100.0).abs() < f64::EPSILON);
        // an operator took half of it away meanwhile
        assert!((standing.rate_at(at(10_000_000), 50.0) - 50.0).abs() < f64::EPSILON);
        for now in 1..100 {
            standing.throttled(at(now * 1000), 100.0, Duration::ZERO, None);
        }
        assert!(standing.rate >= 100.0 / 64.0, "{standing:?}");
    }

    #[test]
    fn a_provider_that_names_a_time_is_left_alone_until_then() {
        let mut standing = Standing::new(100.0, at(0));
        standing.throttled(at(0), 100.0, Duration::ZERO, Some(Duration::from_secs(45)));
        assert_eq!(standing.draw(at(0), 100.0, PATIENCE), Drawn::Later(Duration::from_secs(45)));
        assert!(matches!(standing.draw(at(41_000), 100.0, PATIENCE), Drawn::Slots { .. }));
        standing.throttled(at(42_000), 100.0, Duration::ZERO, Some(Duration::MAX));
        let Drawn::Later(wait) = standing.draw(at(42_000), 100.0, PATIENCE) else { panic!() };
        assert!(wait <= LONGEST_TOLD, "{wait:?}");
    }

    #[test]
    fn a_clock_that_is_put_back_stops_nobody() {
        let mut standing = Standing::new(10.0, at(86_400_000));
        standing.throttled(at(86_400_000), 10.0, Duration::ZERO, None);
        assert!(matches!(standing.draw(at(0), 10.0, PATIENCE), Drawn::Slots { .. }));
        assert!(standing.throttled(at(10), 10.0, Duration::ZERO, None).is_some());
    }

    #[test]
    fn more_calls_than_rate_times_round_trip_are_not_under_way() {
        assert_eq!(in_flight(100.0, Duration::from_millis(100)), 10);
        assert_eq!(in_flight(1.0, Duration::from_millis(20)), 1);
        assert_eq!(in_flight(100.0, Duration::ZERO), 1);
    }
}
