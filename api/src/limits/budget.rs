//! What one process may still spend of one bucket. Decides by its arguments alone; drawing from the database is elsewhere.

use keywright_entities::rate_limit::{Drawn, Wanted};
use std::time::{Duration, Instant};

/// One limit: so many requests in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As the headers call it.
    pub name: &'static str,
    pub limit: u32,
    pub span: Duration,
}

impl Rule {
    pub fn per_minute(limit: u32) -> Self {
        Self { name: "minute", limit, span: Duration::from_secs(60) }
    }

    pub fn per_hour(limit: u32) -> Self {
        Self { name: "hour", limit, span: Duration::from_secs(3600) }
    }

    /// As much as a process takes at once: a twentieth of the limit, so that little goes astray with a process.
    pub fn budget(&self) -> u32 {
        (self.limit / 20).max(1)
    }
}

/// How a rule stands for a caller, as its headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub rule: Rule,
    pub remaining: u32,
    /// Until the window ends.
    pub left: Duration,
    /// When that is, in seconds since 1970 by the database's clock.
    pub resets_at: i64,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It may be answered. The windows that it was taken from tell whether it can be given back.
    Yes(Windows),
    /// The limit is used up.
    No,
    /// Nobody knows before these rules were drawn on, in this order.
    Draw(Vec<usize>),
}

/// Most rules that can hold at once.
const RULES: usize = 2;

/// Names a window of each rule.
pub type Windows = [Option<i64>; RULES];

/// The part of a window that this process knows.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// The same for every draw of one window: its end, by the database.
    id: i64,
    ends: Instant,
    resets_at: i64,
    /// Drawn and not spent.
    left: u32,
    /// What all processes have drawn, as far as is known.
    drawn: u64,
    /// Spent, or to be spent, before anything was drawn.
    debt: u32,
    used_up: bool,
}

/// The windows of a bucket, one per rule.
#[derive(Debug, Default)]
pub struct Budget([Option<Window>; RULES]);

impl Budget {
    /// Takes one request out of every rule, or out of none. With `unasked` the first budget of a window is spent before the
    /// database is asked: whoever asks seldom writes no row.
    pub fn take(&mut self, rules: &[Rule], now: Instant, unasked: Option<i64>) -> Taken {
        let mut wanting = Vec::new();
        for (index, (rule, slot)) in rules.iter().zip(&mut self.0).enumerate() {
            *slot = slot.filter(|window| now < window.ends);
            if let (None, Some(seconds)) = (&slot, unasked) {
                *slot = Some(Window::unasked(rule, now, seconds));
            }
            match slot {
                Some(window) if window.left > 0 => {}
                Some(window) if window.used_up => return Taken::No,
                _ => wanting.push(index),
            }
        }
        if !wanting.is_empty() {
            return Taken::Draw(wanting);
        }
        let mut from = [None; RULES];
        for ((slot, from), _) in self.0.iter_mut().zip(&mut from).zip(rules) {
            if let Some(window) = slot {
                window.left -= 1;
                *from = Some(window.id);
            }
        }
        Taken::Yes(from)
    }

    /// Gives one request back to the windows that it was taken from, where they last.
    pub fn give_back(&mut self, from: &Windows) {
        for (slot, from) in self.0.iter_mut().zip(from) {
            if let Some(window) = slot.as_mut().filter(|window| Some(window.id) == *from) {
                window.left += 1;
            }
        }
    }

    /// What to ask the database for.
    pub fn wanted(&self, index: usize, rule: &Rule) -> Wanted {
        let debt = self.0.get(index).copied().flatten().map_or(0, |window| window.debt);
        Wanted { limit: rule.limit, span: rule.span, budget: rule.budget(), debt }
    }

    /// What the database gave.
    pub fn drew(&mut self, index: usize, drawn: &Drawn, now: Instant) {
        let Some(slot) = self.0.get_mut(index) else { return };
        let id = drawn.ends_at.timestamp_micros();
        // what was given back meanwhile
        let kept = slot.filter(|window| window.id == id || window.debt > 0).map_or(0, |window| window.left);
        *slot = Some(Window {
            id,
            ends: now + drawn.left,
            resets_at: ceil_seconds(drawn.ends_at),
            left: kept.saturating_add(drawn.granted),
            drawn: drawn.drawn,
            debt: 0,
            used_up: drawn.granted == 0,
        });
    }

    /// How the rules stand; for what has not begun, as if it began now.
    pub fn standings(&self, rules: &[Rule], now: Instant, seconds: i64) -> Vec<Standing> {
        let standing = |(rule, slot): (&Rule, &Option<Window>)| match slot.filter(|window| now < window.ends) {
            Some(window) => {
                let undrawn = u64::from(rule.limit).saturating_sub(window.drawn);
                let remaining = u64::from(window.left).saturating_add(undrawn).min(u64::from(rule.limit));
                Standing {
                    rule: *rule,
                    remaining: u32::try_from(remaining).unwrap_or(rule.limit),
                    left: window.ends - now,
                    resets_at: window.resets_at,
                }
            }
            None => Standing {
                rule: *rule,
                remaining: rule.limit,
                left: rule.span,
                resets_at: seconds.saturating_add(i64::try_from(rule.span.as_secs()).unwrap_or(0)),
            },
        };
        rules.iter().zip(&self.0).map(standing).collect()
    }

    /// Whether nothing is lost when it is forgotten: its windows are over, or the database knows all of it.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.0.iter().flatten().all(|window| now >= window.ends)
    }
}

impl Window {
    fn unasked(rule: &Rule, now: Instant, seconds: i64) -> Self {
        let budget = rule.budget();
        Self {
            id: -seconds,
            ends: now + rule.span,
            resets_at: seconds.saturating_add(i64::try_from(rule.span.as_secs()).unwrap_or(0)),
            left: budget,
            drawn: u64::from(budget),
            debt: budget,
            used_up: false,
        }
    }
}

fn ceil_seconds(time: chrono::DateTime<chrono::Utc>) -> i64 {
    time.timestamp() + i64::from(time.timestamp_subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    const MINUTE: Rule = Rule { name: "minute", limit: 60, span: Duration::from_secs(60) };
    const HOUR: Rule = Rule { name: "hour", limit: 100, span: Duration::from_secs(3600) };

    fn drawn(granted: u32, drawn: u64, left: u64) -> Drawn {
        let ends_at = DateTime::from_timestamp_secs(i64::try_from(left).unwrap()).unwrap();
        Drawn { granted, drawn, left: Duration::from_secs(left), ends_at }
    }

    fn remaining(budget: &Budget, rules: &[Rule], now: Instant) -> Vec<u32> {
        budget.standings(rules, now, 0).iter().map(|standing| standing.remaining).collect()
    }

    #[test]
    fn one_request_is_taken_from_every_rule_or_from_none() {
        let (mut budget, now, rules) = (Budget::default(), Instant::now(), [MINUTE, HOUR]);
        assert_eq!(budget.take(&rules, now, None), Taken::Draw(vec![0, 1]));
        budget.drew(0, &drawn(3, 3, 60), now);
        assert_eq!(budget.take(&rules, now, None), Taken::Draw(vec![1]));
        assert_eq!(remaining(&budget, &rules, now), [60, 100]);
        budget.drew(1, &drawn(5, 5, 3600), now);
        assert!(matches!(budget.take(&rules, now, None), Taken::Yes(_)));
        assert_eq!(remaining(&budget, &rules, now), [59, 99]);
        budget.drew(1, &drawn(0, 100, 3600), now);
        for _ in 0..2 {
            assert!(matches!(budget.take(&rules, now, None), Taken::Yes(_)));
        }
        assert_eq!(budget.take(&rules, now, None), Taken::Draw(vec![0]));
        budget.drew(0, &drawn(9, 12, 60), now);
        assert!(matches!(budget.take(&rules, now, None), Taken::Yes(_)));
        assert!(matches!(budget.take(&rules, now, None), Taken::Yes(_)));
        assert_eq!(budget.take(&rules, now, None), Taken::No);
        assert_eq!(remaining(&budget, &rules, now)[1], 0);
    }

    #[test]
    fn what_is_left_ages_out_with_its_window() {
        let (mut budget, now, rules) = (Budget::default(), Instant::now(), [MINUTE]);
        budget.drew(0, &drawn(3, 60, 10), now);
        let Taken::Yes(from) = budget.take(&rules, now, None) else { panic!("there was some") };
        let later = now + Duration::from_secs(10);
        assert_eq!(budget.take(&rules, later, None), Taken::Draw(vec![0]));
        budget.drew(0, &drawn(1, 1, 60), later);
        budget.give_back(&from);
        assert_eq!(remaining(&budget, &rules, later), [60], "what was taken from another window is not given back");
    }

    #[test]
    fn given_back_it_can_be_taken_again_even_after_the_limit() {
        let (mut budget, now, rules) = (Budget::default(), Instant::now(), [MINUTE]);
        budget.drew(0, &drawn(1, 60, 60), now);
        let Taken::Yes(from) = budget.take(&rules, now, None) else { panic!("there was one") };
        budget.drew(0, &drawn(0, 60, 60), now);
        assert_eq!(budget.take(&rules, now, None), Taken::No);
        budget.give_back(&from);
        assert_eq!(remaining(&budget, &rules, now), [1]);
        assert!(matches!(budget.take(&rules, now, None), Taken::Yes(_)));
    }

    #[test]
    fn who_asks_seldom_is_not_asked_about() {
        let (mut budget, now, rules) = (Budget::default(), Instant::now(), [MINUTE]);
        for left in [59, 58, 57] {
            assert!(matches!(budget.take(&rules, now, Some(7)), Taken::Yes(_)));
            assert_eq!(remaining(&budget, &rules, now), [left]);
        }
        assert_eq!(budget.take(&rules, now, Some(7)), Taken::Draw(vec![0]));
        assert_eq!(budget.wanted(0, &MINUTE).debt, 3);
        budget.drew(0, &drawn(3, 9, 60), now);
        assert_eq!(budget.wanted(0, &MINUTE).debt, 0);
        assert_eq!(remaining(&budget, &rules, now), [54]);
    }

    #[test]
    fn remaining_is_never_negative() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        budget.drew(0, &drawn(0, 90, 60), now);
        assert_eq!(remaining(&budget, &[MINUTE], now), [0]);
    }
}
