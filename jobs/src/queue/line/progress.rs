//! How far a claimer has seen the line served: where it begins to look, and what it tells the others.
//!
//! While anybody keeps an old snapshot, PostgreSQL cannot forget the index entries of jobs that have left the line, and a look from its
//! beginning passes all of them. So most looks begin where the line was served a moment ago. A job that was given back may stand
//! before that; looks at the whole line, as often as they are cheap and at least once a second, find it.

use crate::queue::enqueue::PRIORITIES;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Looks at the whole line take at most one part in so many of the time, but for [`AT_LEAST`].
const SHARE: u32 = 20;
/// How often the whole line is looked at, whatever it costs.
const AT_LEAST: Duration = Duration::from_secs(1);
/// What the others are told is at most so many places, or so old, behind.
const PLACES: i64 = 16;
const AGE: Duration = Duration::from_millis(100);

/// What one claimer knows.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By priority, the place after the last that was served, as the others were told it.
    told: BTreeMap<i32, i64>,
    /// The same, as told the time before: whoever asked for a place since then got none before this.
    told_before: BTreeMap<i32, i64>,
    told_at: Option<Instant>,
    /// When a look at the whole line may be due again.
    whole_again: Option<Instant>,
}

impl Progress {
    /// The places from which to look, by the priorities of [`PRIORITIES`]; `None`: at the whole line.
    pub(in crate::queue) fn since(&self) -> Option<[i64; PRIORITIES.len()]> {
        let known = self.known();
        known.whole_again.filter(|again| Instant::now() < *again)?;
        Some(PRIORITIES.map(|priority| known.told_before.get(&priority).copied().unwrap_or(i64::MIN)))
    }

    /// A look at the whole line took so long.
    pub(in crate::queue) fn looked(&self, took: Duration) {
        self.known().whole_again = Some(Instant::now() + (took * SHARE).min(AT_LEAST));
    }

    /// What the others are to be told after a claim of these priorities and places: by priority, and often nothing.
    pub(in crate::queue) fn to_tell(&self, claimed: impl Iterator<Item = (i32, i64)>) -> BTreeMap<i32, i64> {
        let mut served: BTreeMap<i32, i64> = BTreeMap::new();
        for (priority, place) in claimed {
            let after = served.entry(priority).or_insert(place + 1);
            *after = (place + 1).max(*after);
        }
        let known = self.known();
        let old = known.told_at.is_none_or(|at| at.elapsed() >= AGE);
        let told = |priority: &i32| known.told.get(priority).copied();
        served.retain(|priority, place| {
            told(priority).is_none_or(|told| *place > told && (old || *place - told >= PLACES))
        });
        served
    }

    /// They were told.
    pub(in crate::queue) fn told(&self, served: BTreeMap<i32, i64>) {
        if served.is_empty() {
            return;
        }
        let mut known = self.known();
        known.told_at = Some(Instant::now());
        for (priority, place) in served {
            if let Some(before) = known.told.insert(priority, place) {
                known.told_before.insert(priority, before);
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(progress: &Progress, priority: i32, place: i64) {
        progress.told(BTreeMap::from([(priority, place)]));
    }

    #[test]
    fn a_cheap_look_at_the_whole_line_is_soon_due_again_and_a_dear_one_is_not() {
        let progress = Progress::default();
        assert_eq!(progress.since(), None, "nothing is known yet");
        progress.looked(Duration::ZERO);
        assert_eq!(progress.since(), None);
        progress.looked(Duration::from_secs(3600));
        assert!(progress.since().is_some());
        let again = progress.known().whole_again.unwrap();
        assert!(again <= Instant::now() + AT_LEAST, "once a second whatever it costs");
    }

    #[test]
    fn looks_begin_where_the_line_was_served_before_the_others_were_told_last() {
        let progress = Progress::default();
        progress.looked(Duration::from_secs(1));
        told(&progress, 0, 100);
        assert_eq!(progress.since(), Some([i64::MIN; 3]));
        told(&progress, 0, 200);
        told(&progress, 1, 7);
        assert_eq!(progress.since(), Some([i64::MIN, 100, i64::MIN]));
        told(&progress, 1, 9);
        assert_eq!(progress.since(), Some([7, 100, i64::MIN]));
    }

    #[test]
    fn they_are_told_in_steps() {
        let progress = Progress::default();
        let after = |places: &[i64]| progress.to_tell(places.iter().map(|place| (0, *place)));
        let first = after(&[3, 5, 4]);
        assert_eq!(first, BTreeMap::from([(0, 6)]));
        progress.told(first);
        assert!(after(&[2]).is_empty(), "the line is never served backwards");
        assert!(after(&[6]).is_empty(), "a small step waits");
        assert_eq!(after(&[5 + PLACES]), BTreeMap::from([(0, 6 + PLACES)]));
        progress.known().told_at = Instant::now().checked_sub(AGE);
        assert_eq!(after(&[6 + PLACES]), BTreeMap::from([(0, 7 + PLACES)]));
    }
}
