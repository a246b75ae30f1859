//! The requests with a key that this process is making right now. Their duplicates wait here, without a database connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// By name, the end of each request that is under way.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashMap<String, CancellationToken>>>);

/// The right to make what the name stands for. Its drop lets the next one.
pub struct Turn {
    name: String,
    all: InFlight,
}

/// A request that has the turn.
pub struct Other(CancellationToken);

impl InFlight {
    /// Takes the turn, or tells who has it.
    pub fn take(&self, name: &str) -> Result<Turn, Other> {
        let mut all = self.lock();
        if let Some(end) = all.get(name) {
            return Err(Other(end.clone()));
        }
        all.insert(name.to_owned(), CancellationToken::new());
        Ok(Turn { name: name.to_owned(), all: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(end) = self.all.lock().remove(&self.name) {
            end.cancel();
        }
    }
}

impl Other {
    /// Returns when it has been answered, or given up.
    pub async fn ended(self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::InFlight;

    #[tokio::test]
    async fn one_at_a_time_and_the_others_are_told() {
        let all = InFlight::default();
        let first = all.take("a").ok().unwrap();
        let other = all.take("a").err().unwrap();
        let elsewhere = all.take("b").ok();
        assert!(elsewhere.is_some());
        drop(first);
        other.ended().await;
        assert!(all.take("a").is_ok());
        drop(elsewhere);
        assert!(all.lock().is_empty());
    }
}
