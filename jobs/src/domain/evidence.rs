//! What an evidence package is asked to hold, and how an auditor's sample is drawn.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The period of a package whose request names none.
pub const DEFAULT_PERIOD: TimeDelta = TimeDelta::days(90);
/// The longest period.
pub const LONGEST_PERIOD: TimeDelta = TimeDelta::days(3 * 366);
pub const DEFAULT_SAMPLE: u32 = 25;
pub const LARGEST_SAMPLE: u32 = 1000;

/// What to put into a package, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `None`: as far back as [`DEFAULT_PERIOD`] reaches.
    pub from: Option<DateTime<Utc>>,
    /// `None`: the instant of asking.
    pub to: Option<DateTime<Utc>>,
    /// `None`: all that the caller may see.
    pub subscriptions: Option<Vec<Uuid>>,
    /// By name; frameworks that this version does not know are named in the package as such.
    pub frameworks: Vec<String>,
    pub include: Include,
    pub sample: Sample,
}

/// Which sections a package has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Include {
    pub policy: bool,
    pub score: bool,
    pub violations: bool,
    pub cis: bool,
    pub rotation: bool,
    pub sync: bool,
    pub inventory: bool,
    pub audit: bool,
    pub exceptions: bool,
    pub coverage: bool,
}

impl Include {
    pub const ALL: Self = Self {
        policy: true,
        score: true,
        violations: true,
        cis: true,
        rotation: true,
        sync: true,
        inventory: true,
        audit: true,
        exceptions: true,
        coverage: true,
    };
}

/// How many rows of each population are drawn, and by which seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// `None`: the package's id.
    pub seed: Option<String>,
    pub size: u32,
}

/// What became of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Included,
    /// The request left it out.
    NotRequested,
    /// Whoever asked may not see it.
    NotPermitted,
    /// This version of Keywright does not have what it would tell.
    NotInThisVersion,
}

/// The sections by name, in the order in which a package tells them.
pub fn sections(include: &Include, restricted: bool) -> Vec<(&'static str, Standing)> {
    let here = |wanted: bool| if wanted { Standing::Included } else { Standing::NotRequested };
    let absent = |wanted: bool| if wanted { Standing::NotInThisVersion } else { Standing::NotRequested };
    // what administrators have set is about no subscription
    let policy = if include.policy && restricted { Standing::NotPermitted } else { here(include.policy) };
    vec![
        ("policy", policy),
        ("inventory", here(include.inventory)),
        ("coverage", here(include.coverage)),
        ("audit", here(include.audit)),
        ("score", absent(include.score)),
        ("violations", absent(include.violations)),
        ("cis", absent(include.cis)),
        ("exceptions", absent(include.exceptions)),
        ("rotation", here(include.rotation)),
        ("sync", absent(include.sync)),
    ]
}

/// A row's place in the order by which samples are drawn: SHA-256 over seed, line feed and the row's key, in hex.
pub fn rank(seed: &str, key: &str) -> String {
    hex::encode(digest(&SHA256, format!("{seed}\n{key}").as_bytes()))
}

/// Draws the rows of least rank. Holds no more than it draws.
#[derive(Debug)]
pub struct Draw<T> {
    seed: String,
    size: usize,
    drawn: BTreeMap<String, T>,
}

impl<T> Draw<T> {
    pub fn new(seed: &str, size: u32) -> Self {
        Self { seed: seed.to_owned(), size: usize::try_from(size).unwrap_or(usize::MAX), drawn: BTreeMap::new() }
    }

    /// Takes the row if it is among those of least rank so far.
    pub fn offer(&mut self, key: &str, row: impl FnOnce() -> T) {
        let rank = rank(&self.seed, key);
        if self.drawn.len() >= self.size && self.drawn.last_key_value().is_none_or(|(last, _)| *last <= rank) {
            return;
        }
        self.drawn.insert(rank, row());
        if self.drawn.len() > self.size {
            self.drawn.pop_last();
        }
    }

    /// The rows by rank.
    pub fn drawn(self) -> BTreeMap<String, T> {
        self.drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rank_can_be_computed_with_sha256sum() {
        // printf '%s\n%s' 2026-q4 018f-a | sha256sum
        assert_eq!(rank("2026-q4", "018f-a"), "61b69f1db6d9b8db93b2a50465b869ce9e77364c450ac65b7c6e65f739b79795");
    }

    #[test]
    fn every_section_is_told_whatever_was_asked_for() {
        let names = |include: &Include, restricted| -> Vec<Standing> {
            sections(include, restricted).into_iter().map(|(_, standing)| standing).collect()
        };
        assert!(!names(&Include::ALL, false).contains(&Standing::NotRequested));
        assert_eq!(names(&Include::ALL, true).first(), Some(&Standing::NotPermitted));
        let none: Include = serde_json::from_value(serde_json::json!({
            "policy": false, "score": false, "violations": false, "cis": false, "rotation": false, "sync": false,
            "inventory": false, "audit": false, "exceptions": false, "coverage": false,
        }))
        .unwrap();
        assert!(names(&none, false).iter().all(|standing| *standing == Standing::NotRequested));
    }

    proptest! {
        #[test]
        fn a_draw_is_what_sorting_everything_would_take(keys in prop::collection::btree_set("[a-z]{1,6}", 0..60), size in 0u32..20) {
            let mut draw = Draw::new("seed", size);
            for key in &keys {
                draw.offer(key, || key.clone());
            }
            let mut all: Vec<_> = keys.iter().map(|key| (rank("seed", key), key.clone())).collect();
            all.sort();
            all.truncate(size as usize);
            prop_assert_eq!(draw.drawn().into_iter().collect::<Vec<_>>(), all);
        }
    }
}
