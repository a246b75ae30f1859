//! What a scan found, in a few lines.

use super::{
    client::{Asset, Job},
    target::Target,
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Names of bad assets that are shown; the API lists them all.
const SHOWN: usize = 5;

/// The counts of one subscription.
#[derive(Debug)]
pub struct Summary {
    path: PathBuf,
    subscription: String,
    scan: String,
    state: String,
    warnings: u64,
    found: u64,
    expired: Vec<String>,
    /// Within 30 days, as the default thresholds have it: `warning` and `critical`.
    expiring: Vec<String>,
    weak: Vec<String>,
    /// How many assets have each reason.
    reasons: BTreeMap<String, u64>,
}

impl Summary {
    pub fn new(target: &Target, subscription: String, job: Job) -> Self {
        Self {
            path: target.path.clone(),
            subscription,
            scan: job.id,
            state: job.state,
            warnings: job.counts.warnings,
            found: 0,
            expired: Vec::new(),
            expiring: Vec::new(),
            weak: Vec::new(),
            reasons: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, asset: Asset) {
        self.found += 1;
        match asset.status.as_str() {
            "expired" => self.expired.push(asset.name.clone()),
            "critical" | "warning" => self.expiring.push(asset.name.clone()),
            _ => {}
        }
        let weak = asset.attributes.get("weak").and_then(Value::as_array);
        let reasons: Vec<&str> = weak.into_iter().flatten().filter_map(Value::as_str).collect();
        for reason in &reasons {
            *self.reasons.entry((*reason).to_owned()).or_default() += 1;
        }
        if !reasons.is_empty() {
            self.weak.push(asset.name);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!("  ({})", reasons.join(", ")) };
        writeln!(f, "\n  looked at                {}", self.path.display())?;
        writeln!(f, "  subscription             {}", self.subscription)?;
        writeln!(f, "  scan                     {}: {}", self.scan, self.state)?;
        writeln!(f, "\n  found                    {}", self.found)?;
        writeln!(f, "  expired                  {}", self.expired.len())?;
        names(f, &self.expired)?;
        writeln!(f, "  expiring within 30 days  {}", self.expiring.len())?;
        names(f, &self.expiring)?;
        writeln!(f, "  weak                     {}{reasons}", self.weak.len())?;
        names(f, &self.weak)?;
        write!(f, "  warnings                 {}", self.warnings)?;
        if self.warnings > 0 {
            write!(f, "  (GET /api/assets/discovery/scans/{})", self.scan)?;
        }
        Ok(())
    }
}

fn names(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    for name in names.iter().take(SHOWN) {
        writeln!(f, "    {name}")?;
    }
    match names.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "    and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(warnings: u64, assets: Vec<Value>) -> String {
        let target = Target { external_id: String::new(), name: String::new(), path: "/etc/x.pem".into() };
        let job = json!({"id": "S", "state": "partial", "done": true, "counts": {"found": 9, "warnings": warnings}, "error": null});
        let mut summary = Summary::new(&target, "A".to_owned(), serde_json::from_value(job).unwrap());
        assets.into_iter().for_each(|asset| summary.add(serde_json::from_value(asset).unwrap()));
        summary.to_string()
    }

    fn asset(name: &str, status: &str, weak: Value) -> Value {
        json!({"name": name, "status": status, "attributes": {"weak": weak}})
    }

    #[test]
    fn assets_are_counted_by_what_is_wrong_with_them() {
        let assets = vec![
            asset("a", "expired", json!(["sha1_signature", "rsa_below_2048"])),
            asset("b", "critical", json!([])),
            asset("c", "warning", Value::Null),
            asset("d", "healthy", json!(["sha1_signature"])),
            asset("e", "unknown", json!([])),
        ];
        let expected = "
  looked at                /etc/x.pem
  subscription             A
  scan                     S: partial

  found                    5
  expired                  1
    a
  expiring within 30 days  2
    b
    c
  weak                     2  (rsa_below_2048 1, sha1_signature 2)
    a
    d
  warnings                 3  (GET /api/assets/discovery/scans/S)";
        assert_eq!(summary(3, assets), expected);
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let text = summary(0, (0..8).map(|n| asset(&format!("n{n}"), "expired", json!([]))).collect());
        assert!(text.contains("    n4\n    and 3 more\n"), "{text}");
        assert!(text.ends_with("  warnings                 0"), "{text}");
    }
}
