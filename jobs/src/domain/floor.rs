//! How fast a scan could have been at best, by the rates that providers publish.
//!
//! Each job keeps which calls were answered, by what they count against. Calls of one budget cannot be faster than its rate,
//! pages of one listing not faster than one after the other; budgets and listings do not wait for each other.

use super::quotas::{Counted, Quota, known};
use keywright_entities::types::ProviderKind;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Calls that count against one budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    pub provider: Option<ProviderKind>,
    /// The quota's name, or the operation's own where there is no quota.
    pub quota: String,
    /// Calls that the provider answered.
    pub calls: u64,
    /// How long the answers took of those among them that could only be made one after the other.
    pub chain_seconds: f64,
}

/// Calls by budget.
pub type Ledger = BTreeMap<String, Made>;

/// What a job's row keeps. Writing it again changes nothing, and what another attempt wrote is kept: calls are counted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// Of attempts before this one.
    before: Ledger,
    /// The attempt that wrote last.
    epoch: i64,
    during: Ledger,
}

/// One more call.
pub fn count(ledger: &mut Ledger, budget: &str, counted: &Counted, took: Duration) {
    let made = ledger.entry(budget.to_owned()).or_insert_with(|| Made {
        provider: Some(counted.provider),
        quota: counted.name.clone(),
        ..Made::default()
    });
    made.calls += 1;
    if counted.known.is_some_and(|quota| quota.page_size.is_some()) {
        made.chain_seconds += took.as_secs_f64();
    }
}

impl Calls {
    /// The attempt of this epoch has made these calls so far.
    #[must_use]
    pub fn told(mut self, epoch: i64, so_far: &Ledger) -> Self {
        if self.epoch != epoch {
            add(&mut self.before, std::mem::take(&mut self.during));
            self.epoch = epoch;
        }
        self.during.clone_from(so_far);
        self
    }

    /// All of them.
    #[must_use]
    pub fn all(mut self) -> Ledger {
        add(&mut self.before, self.during);
        self.before
    }
}

fn add(to: &mut Ledger, more: Ledger) {
    for (budget, made) in more {
        let sum = to.entry(budget).or_insert_with(|| Made { calls: 0, chain_seconds: 0.0, ..made.clone() });
        sum.calls = sum.calls.saturating_add(made.calls);
        sum.chain_seconds += made.chain_seconds;
    }
}

/// The least time for what these jobs did, each with its own ledger, in seconds; `None` when they made no call whose rate is
/// published.
pub fn seconds(jobs: impl IntoIterator<Item = Ledger>) -> Option<f64> {
    let mut calls: BTreeMap<String, (u64, Option<&'static Quota>)> = BTreeMap::new();
    let mut longest_chain = 0.0_f64;
    for ledger in jobs {
        for (budget, made) in ledger {
            longest_chain = longest_chain.max(made.chain_seconds);
            let quota = made.provider.and_then(|provider| known(provider, &made.quota));
            let (sum, _) = calls.entry(budget).or_insert((0, quota));
            *sum = sum.saturating_add(made.calls);
        }
    }
    let published = calls.values().filter_map(|(calls, quota)| Some((calls, quota.filter(|quota| quota.published)?)));
    let by_rate = published.map(|(calls, quota)| *calls as f64 / quota.per_second).reduce(f64::max)?;
    Some(by_rate.max(longest_chain))
}

/// The floor divided by the time taken, between 0 and 1. `None` where there is no floor.
pub fn efficiency(floor: Option<f64>, taken: Option<Duration>) -> Option<f64> {
    let (floor, taken) = (floor.filter(|floor| *floor > 0.0)?, taken?.as_secs_f64());
    // few calls fit into a burst, which takes less time than their rate says
    Some(if taken > floor { floor / taken } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(what: &str, calls: u64, round_trip: f64) -> Ledger {
        let counted = Counted::of(ProviderKind::Aws, what);
        let budget = format!("aws/{}/{}", counted.scope, counted.name);
        let mut ledger = Ledger::new();
        for _ in 0..calls {
            count(&mut ledger, &budget, &counted, Duration::from_secs_f64(round_trip));
        }
        ledger
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-6), "{found:?} instead of {expected}");
    }

    #[test]
    fn a_long_listing_is_bound_by_its_chain() {
        // 10^5 secrets, 100 on a page, 100 ms each: 10 s by the quota, 100 s by the chain
        close(seconds([ledger("eu-west-1 secretsmanager:ListSecrets", 1000, 0.1)]), 100.0);
    }

    #[test]
    fn calls_for_each_asset_are_bound_by_the_quota() {
        close(seconds([ledger("eu-west-1 secretsmanager:GetResourcePolicy", 100_000, 0.1)]), 2000.0);
    }

    #[test]
    fn scopes_do_not_wait_for_each_other_but_share_what_is_one_budget() {
        let listing = |region| ledger(&format!("{region} secretsmanager:ListSecrets"), 10, 0.1);
        close(seconds([listing("eu-west-1"), listing("eu-west-2"), listing("eu-west-3")]), 1.0);
        let described = || ledger("eu-west-1 acm:DescribeCertificate", 50, 0.1);
        close(seconds([described(), described()]), 10.0);
    }

    #[test]
    fn a_rate_that_is_only_planned_is_no_floor() {
        let planned = || ledger("eu-west-1 ssm:DescribeParameters", 100, 0.001);
        assert_eq!(seconds([planned()]), None);
        close(seconds([planned(), ledger("eu-west-1 kms:ListKeys", 1, 0.001)]), 0.1);
        assert_eq!(seconds([]), None);
    }

    #[test]
    fn told_again_or_by_a_later_attempt_calls_count_once() {
        let of = |calls| ledger("eu-west-1 secretsmanager:ListSecrets", calls, 0.1);
        let first = Calls::default().told(3, &of(2)).told(3, &of(5)).told(3, &of(5));
        let kept = serde_json::from_value::<Calls>(serde_json::to_value(first).unwrap()).unwrap();
        let all = kept.told(4, &of(1)).told(4, &of(4)).all();
        assert_eq!(all.values().map(|made| made.calls).collect::<Vec<_>>(), [9]);
        close(seconds([all]), 0.9);
    }

    #[test]
    fn efficiency_lies_between_nothing_and_one() {
        let taken = |seconds| Some(Duration::from_secs_f64(seconds));
        close(efficiency(Some(10.0), taken(12.5)), 0.8);
        close(efficiency(Some(10.0), taken(9.0)), 1.0);
        close(efficiency(Some(10.0), taken(0.0)), 1.0);
        assert_eq!(efficiency(None, taken(1.0)), None);
        assert_eq!(efficiency(Some(1.0), None), None);
        assert_eq!(efficiency(Some(0.0), taken(1.0)), None);
    }
}
