//! What the facade asks of its database.

use keywright_api::context;
use keywright_jobs::setup::database::Database;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The statements that a facade sends.
#[derive(Debug, Default)]
pub struct Statements {
    sent: AtomicU64,
    kept: Mutex<Option<Vec<Sent>>>,
}

#[derive(Debug)]
struct Sent {
    /// The id of the request that it was sent for; empty for what the facade does by itself.
    request: String,
    text: String,
}

impl Statements {
    pub(super) fn of(self: &Arc<Self>, database: Database) -> Database {
        let all = Arc::clone(self);
        database.telling(move |statement| {
            all.sent.fetch_add(1, Ordering::Relaxed);
            if let Some(kept) = all.kept.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                kept.push(Sent { request: context::request_id(), text: statement.to_string() });
            }
        })
    }

    /// How many there were.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Those since the last call, with their values; the first call begins to keep them.
    pub fn take(&self) -> Vec<String> {
        self.taken().into_iter().map(|sent| sent.text).collect()
    }

    /// The same, of this request alone.
    pub fn take_of(&self, request: &str) -> Vec<String> {
        self.taken().into_iter().filter(|sent| sent.request == request).map(|sent| sent.text).collect()
    }

    fn taken(&self) -> Vec<Sent> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).replace(Vec::new()).unwrap_or_default()
    }
}
