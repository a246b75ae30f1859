//! Choices that a seed repeats.

use keywright_jobs::setup::{config, ids};
use std::{ops::Range, time::Duration};

/// A run with the same number makes the same choices. How processes interleave is up to the machine.
const SEED: &str = "KWTEST_SEED";

/// Set by `./just soak`, where faults last as long as they do in life.
const LONG: &str = "KWTEST_LONG";

/// The one or the other, by whether there is time.
pub fn short_or_long<T>(short: T, long: T) -> T {
    if config::variable(LONG).is_some_and(|long| !long.is_empty()) { long } else { short }
}

/// SplitMix64.
pub struct Dice {
    pub seed: u64,
    state: u64,
}

impl Dice {
    /// From the environment, or of a new seed; prints which.
    pub fn of(name: &str) -> Self {
        let given = config::variable(SEED).map(|seed| seed.parse().expect("KWTEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| ids::new().as_u128() as u64);
        eprintln!("{name}: {SEED}={seed}");
        Self { seed, state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.next() % (range.end - range.start))
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
