//! What an administrator can set, what holds when nothing is set, and which settings make no sense.

use super::inventory::{TagKeys, Thresholds};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// The settings in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub thresholds: Thresholds,
    pub retention: Retention,
    pub limits: Limits,
    pub tags: TagKeys,
    /// Actions that somebody else must approve before they are done.
    pub four_eyes: BTreeSet<String>,
}

/// For how long things are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// Days for which ended jobs are kept, 0 = for ever, where a worker's environment does not say; none: the program's own.
    pub jobs_days: Option<u32>,
}

/// How much there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Most schedules; none: no limit.
    pub schedules: Option<u64>,
}

/// One thing that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer (RFC 6901) into the settings.
    pub pointer: String,
    pub code: &'static str,
    pub message: &'static str,
}

impl Settings {
    /// The settings of what was set, the rest as the program has it. What only a newer version knows is left alone.
    ///
    /// # Errors
    /// When something was set that this version cannot read.
    pub fn of(content: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(content)
    }

    /// All that makes no sense.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.thresholds.critical_days > self.thresholds.warning_days {
            let message = "criticalDays must not exceed warningDays: nothing would ever be a warning.";
            faults.push(Fault { pointer: "/thresholds".to_owned(), code: "order", message });
        }
        for (name, keys) in [("ownerKeys", &self.tags.owner_keys), ("environmentKeys", &self.tags.environment_keys)] {
            let mut seen = BTreeSet::new();
            for (number, key) in keys.iter().enumerate() {
                let mut wrong = |code, message| {
                    faults.push(Fault { pointer: format!("/tags/{name}/{number}"), code, message });
                };
                if key.trim() != key || key.is_empty() {
                    wrong("format", "A tag's key is not empty and neither begins nor ends with a space.");
                } else if !seen.insert(key.to_ascii_lowercase()) {
                    wrong("duplicate", "This key is there already; keys are the same whatever their case.");
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_set_is_as_the_program_has_it() {
        assert_eq!(Settings::of(&json!({})).unwrap(), Settings::default());
        let set = Settings::of(&json!({"thresholds": {"warningDays": 60}, "ofLater": 1})).unwrap();
        assert_eq!(set.thresholds, Thresholds { critical_days: 7, warning_days: 60 });
        assert_eq!((set.tags, set.four_eyes.len()), (TagKeys::default(), 0));
        assert!(Settings::of(&json!({"thresholds": {"warningDays": "soon"}})).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let faults = |content| -> Vec<(String, &str)> {
            let faults = Settings::of(&content).unwrap().faults();
            faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
        };
        assert_eq!(faults(json!({})), []);
        assert_eq!(faults(json!({"thresholds": {"criticalDays": 30}})), []);
        assert_eq!(faults(json!({"thresholds": {"criticalDays": 31}})), [("/thresholds".to_owned(), "order")]);
        let tags = json!({"tags": {"ownerKeys": ["a", " b", "A", ""], "environmentKeys": ["a"]}});
        let expected = [("1", "format"), ("2", "duplicate"), ("3", "format")];
        assert_eq!(faults(tags), expected.map(|(number, code)| (format!("/tags/ownerKeys/{number}"), code)));
    }
}
