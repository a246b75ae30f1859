//! The buckets that this process knows, bounded in number whatever asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Whose;
use super::budget::Budget;

/// Most buckets of one kind. One takes about 400 bytes.
const MOST: usize = 20_000;
/// How many there are after room was made, unless fewer are still of use.
const AFTER_ROOM_WAS_MADE: usize = MOST / 8 * 7;

/// One bucket: what this process may still spend of it.
#[derive(Debug, Default)]
pub struct Bucket {
    budget: Mutex<Budget>,
    /// Held by whoever draws, so that a burst draws once.
    pub drawing: tokio::sync::Mutex<()>,
}

impl Bucket {
    pub fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buckets by whose they are.
#[derive(Default)]
pub struct Buckets(Mutex<HashMap<Whose, Arc<Bucket>>>);

impl Buckets {
    pub fn of(&self, whose: Whose) -> Arc<Bucket> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(&whose) {
            return Arc::clone(bucket);
        }
        if buckets.len() >= MOST {
            make_room(&mut buckets);
        }
        Arc::clone(buckets.entry(whose).or_default())
    }
}

/// Forgets what is over, then whatever comes first: the database knows what was drawn, so that only budgets are lost.
fn make_room(buckets: &mut HashMap<Whose, Arc<Bucket>>) {
    let now = Instant::now();
    buckets.retain(|_, bucket| !bucket.budget().is_idle(now));
    let mut surplus = buckets.len().saturating_sub(AFTER_ROOM_WAS_MADE);
    buckets.retain(|_, _| {
        let forgotten = surplus > 0;
        surplus = surplus.saturating_sub(1);
        !forgotten
    });
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_hundred_thousand_addresses_do_not_fill_the_memory() {
        let buckets = Buckets::default();
        for address in 0..100_000_u32 {
            let bucket = buckets.of(Whose::Address(Ipv4Addr::from(address).into()));
            bucket.budget().take(
                &[super::super::Rule { name: "minute", limit: 60, span: std::time::Duration::from_secs(60) }],
                Instant::now(),
                Some(0),
            );
        }
        assert!(buckets.0.lock().unwrap().len() <= MOST);
    }
}
