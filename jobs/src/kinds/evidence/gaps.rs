//! What a package cannot tell, and why: never silent.
//!
//! A gap's key begins with what it is about; they come in the order of keys, so that the file can be checked like any other.

use super::{
    files::{PopulationFiles, text},
    query,
    source::Source,
};
use crate::{job::JobError, queue::outcome::DENIED};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

pub const COLUMNS: &[&str] =
    &["key", "gap", "subscription", "region", "kind", "path", "code", "detail", "requiredPermission"];

/// Which scopes were listed to their end, and how often each kind of gap was met.
#[derive(Debug, Default)]
pub struct Tally {
    listed: BTreeSet<(String, String, String)>,
    looked_at: BTreeSet<String>,
    by_gap: BTreeMap<String, u64>,
    by_code: BTreeMap<String, u64>,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.by_gap.values().sum()
    }

    /// How many of each kind.
    pub fn by_gap(&self) -> &BTreeMap<String, u64> {
        &self.by_gap
    }

    pub fn json(&self) -> Value {
        json!({"total": self.total(), "byGap": self.by_gap, "byCode": self.by_code, "file": "population/gaps.csv"})
    }

    fn tell(&mut self, files: &mut PopulationFiles, gap: &str, cells: [Value; 8]) -> Result<(), JobError> {
        *self.by_gap.entry(gap.to_owned()).or_default() += 1;
        let [key, subscription, region, kind, path, code, detail, permission] = cells;
        *self.by_code.entry(text(&code)).or_default() += 1;
        let cells = [key, json!(gap), subscription, region, kind, path, code, detail, permission];
        files.row(&cells).map_err(super::disk)
    }

    /// A row of the population `scopes`.
    pub fn scope(&mut self, files: &mut PopulationFiles, cells: &[Value]) -> Result<(), JobError> {
        let cell = |n: usize| cells.get(n).cloned().unwrap_or_default();
        let (state, code) = (text(&cell(5)), text(&cell(11)));
        self.looked_at.insert(text(&cell(2)));
        if state == "succeeded" {
            self.listed.insert((text(&cell(2)), text(&cell(3)), text(&cell(4))));
            return Ok(());
        }
        let gap = match (state.as_str(), code.as_str()) {
            ("canceled", _) => "canceled",
            (_, DENIED) => "denied",
            (_, "not_authenticated") => "not_authenticated",
            _ if code.contains("throttled") => "throttled",
            _ => "failed",
        };
        let code = if code.is_empty() { json!(state) } else { cell(11) };
        let key = json!(format!("scope:{}", text(&cell(0))));
        self.tell(files, gap, [key, cell(2), cell(3), cell(4), Value::Null, code, cell(12), cell(13)])
    }

    /// A row of the population `warnings`.
    pub fn warning(&mut self, files: &mut PopulationFiles, cells: &[Value]) -> Result<(), JobError> {
        let cell = |n: usize| cells.get(n).cloned().unwrap_or_default();
        let key = json!(format!("warning:{}", text(&cell(0))));
        self.tell(files, "skipped", [key, cell(3), cell(4), cell(5), cell(6), cell(7), cell(8), Value::Null])
    }

    /// Places whose assets are told although nobody looked there within the period.
    pub async fn stale(&mut self, files: &mut PopulationFiles, source: &Source<'_>) -> Result<(), JobError> {
        const HELD: &str = "SELECT subscription_id, region, kind, COUNT(*) AS n FROM asset_version \
             WHERE valid_from < {as_of} AND (valid_to IS NULL OR valid_to >= {as_of}) AND change <> 'removed' \
             AND {in:subscription_id} GROUP BY subscription_id, region, kind";
        let mut held = BTreeMap::new();
        for row in query::rows(source, HELD).await? {
            let subscription: Uuid = row.try_get("", "subscription_id")?;
            let place: (String, String, String) =
                (subscription.to_string(), row.try_get("", "region")?, row.try_get("", "kind")?);
            held.insert(place, row.try_get::<i64>("", "n")?);
        }
        for (place, assets) in held {
            if self.listed.contains(&place) {
                continue;
            }
            let (subscription, region, kind) = place;
            let detail = format!(
                "{assets} assets are told as they were last seen: no scan of the period listed this scope to its end."
            );
            let key = json!(format!("stale:{subscription}/{region}/{kind}"));
            let cells = [
                key,
                json!(subscription),
                json!(region),
                json!(kind),
                Value::Null,
                json!("stale"),
                json!(detail),
                Value::Null,
            ];
            self.tell(files, "stale", cells)?;
        }
        Ok(())
    }

    /// Subscriptions at which nobody looked within the period.
    pub fn subscriptions(&mut self, files: &mut PopulationFiles, source: &Source<'_>) -> Result<(), JobError> {
        for row in source.frozen("subscriptions").as_array().into_iter().flatten() {
            let field = |name: &str| row.get(name).cloned().unwrap_or_default();
            let id = text(&field("id"));
            let (gap, detail) = if self.looked_at.contains(&id) {
                continue;
            } else if field("enabled") == json!(false) {
                ("disabled", "The subscription is switched off, and no scan of the period looked at it.")
            } else {
                ("not_scanned", "No scan that ended within the period looked at the subscription.")
            };
            let key = json!(format!("subscription:{id}"));
            let cells = [key, json!(id), Value::Null, Value::Null, Value::Null, json!(gap), json!(detail), Value::Null];
            self.tell(files, gap, cells)?;
        }
        Ok(())
    }
}
