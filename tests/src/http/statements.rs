//! What the facade asks of its database.

use keywright_jobs::setup::database::Database;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The statements that a facade sends.
#[derive(Debug, Default)]
pub struct Statements {
    sent: AtomicU64,
    kept: Mutex<Option<Vec<String>>>,
}

impl Statements {
    pub(super) fn of(self: &Arc<Self>, database: Database) -> Database {
        let all = Arc::clone(self);
        database.telling(move |statement| {
            all.sent.fetch_add(1, Ordering::Relaxed);
            if let Some(kept) = all.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                kept.push(statement.to_string());
            }
        })
    }

    /// How many there were.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Those since the last call, with their values; the first call begins to keep them.
    pub fn take(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).replace(Vec::new()).unwrap_or_default()
    }
}
