//! The pace of calls to clouds: one budget per credential, scope and API, shared by all workers through the database.
//!
//! A process draws a chunk of slots at a time (`domain/pacing.rs` decides), and spends them by its own monotonic clock. What it
//! does not spend within [`KEPT`] is lost, as is the chunk of a process that dies. A provider that throttles lowers the rate in the
//! row, so for every worker, and it rises again slowly; a restart does not forget it.

mod local;

use crate::{
    domain::{
        floor::{self, Ledger},
        inventory::ProviderKind,
        pacing::{Drawn, Standing},
        quotas::Counted,
    },
    metrics,
    provider::Target,
    setup::database::Database,
};
use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use keywright_entities::{call_budget, clock};
use local::{Local, Look};
use sea_orm::DbErr;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

pub use local::KEPT;

/// A call waits this long for its slot; beyond that its job should give its place to others.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a draw may take before the caller looks again whether it is still to go on.
const DRAW_PATIENCE: Duration = Duration::from_secs(1);
/// Most budgets that a process remembers; those that nobody uses are forgotten first.
const MOST: usize = 10_000;

/// The budgets of one process.
pub struct Budgets {
    database: Database,
    /// The part of every rate that may be used, 0 to 1.
    share: f64,
    open: Mutex<HashMap<String, Arc<Budget>>>,
}

impl Budgets {
    /// `percent` of every rate may be used, 1 to 100: the rest is for others who call the same accounts.
    pub fn new(database: Database, percent: u32) -> Arc<Self> {
        let share = f64::from(percent.clamp(1, 100)) / 100.0;
        Arc::new(Self { database, share, open: Mutex::default() })
    }

    fn of(self: &Arc<Self>, account: &Account, what: &str) -> Arc<Budget> {
        let counted = Counted::of(account.provider, what);
        let key = format!("{}/{}/{}/{}", counted.provider, account.digest, counted.scope, counted.name);
        let mut open = lock(&self.open);
        if let Some(budget) = open.get(&key) {
            return Arc::clone(budget);
        }
        if open.len() >= MOST {
            // the database knows what was drawn: no more than chunks are lost
            open.retain(|_, budget| Arc::strong_count(budget) > 1);
        }
        let full = counted.per_second * self.share;
        let budget = Arc::new(Budget {
            key: key.clone(),
            counted,
            full,
            database: self.database.clone(),
            local: Mutex::new(Local::new(full)),
            freed: Notify::new(),
            drawing: tokio::sync::Mutex::default(),
        });
        open.insert(key, Arc::clone(&budget));
        budget
    }
}

/// Whose calls are counted together: an account as somebody is logged in to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    provider: ProviderKind,
    /// Tells nothing of what it was made of.
    digest: String,
}

impl Account {
    pub fn of(target: &Target) -> Self {
        let whose = serde_json::json!([target.external_id, target.auth_mode, target.settings]);
        let digest = hex::encode(digest(&SHA256, whose.to_string().as_bytes())).chars().take(16).collect();
        Self { provider: target.provider, digest }
    }
}

/// The calls that one attempt has made so far, of which its job's row is told.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<Ledger>>);

impl Tally {
    pub fn so_far(&self) -> Ledger {
        lock(&self.0).clone()
    }
}

/// The pace of one attempt's calls to one account. Clones are the same.
#[derive(Clone)]
pub struct Pacer {
    budgets: Arc<Budgets>,
    account: Account,
    tally: Tally,
}

/// What a call is to do.
pub enum Ask {
    /// It may be made from this time on.
    Go(Instant, Permit),
    /// As many are under way as the rate can use; ask again when [`Call::freed`], or soon.
    Full,
    /// Its turn comes after so long, which is longer than [`PATIENCE`].
    Later(Duration),
    /// The database did not tell; ask again soon.
    Unknown,
}

impl Pacer {
    pub fn new(budgets: Arc<Budgets>, account: Account, tally: Tally) -> Self {
        Self { budgets, account, tally }
    }

    /// `what` names the call: `SCOPE service:Operation`, or without a scope where the account has none.
    pub fn call(&self, what: &str) -> Call {
        Call { budget: self.budgets.of(&self.account, what), tally: self.tally.clone() }
    }
}

/// A call that is to be made, perhaps more than once.
pub struct Call {
    budget: Arc<Budget>,
    tally: Tally,
}

impl Call {
    /// Whether it may be made now.
    pub async fn ask(&self) -> Ask {
        let budget = &self.budget;
        if let Some(settled) = self.settled() {
            return settled;
        }
        let _alone = budget.drawing.lock().await;
        // others drew meanwhile
        if let Some(settled) = self.settled() {
            return settled;
        }
        match tokio::time::timeout(DRAW_PATIENCE, budget.draw()).await {
            Ok(Ok(Drawn::Later(wait))) => Ask::Later(wait),
            Ok(Ok(drawn)) => {
                lock(&budget.local).drew(drawn, Instant::now());
                if let Drawn::Slots { rate, .. } = drawn {
                    metrics::provider_rate(budget.counted.provider, budget.counted.label(), rate);
                }
                self.settled().unwrap_or(Ask::Unknown)
            }
            Ok(Err(error)) => {
                tracing::debug!(budget = budget.key, %error, "a call budget could not be drawn on; trying again");
                Ask::Unknown
            }
            Err(_) => Ask::Unknown,
        }
    }

    fn settled(&self) -> Option<Ask> {
        match lock(&self.budget.local).look(Instant::now()) {
            Look::Go(slot, number) => {
                let permit = Permit { budget: Arc::clone(&self.budget), tally: self.tally.clone(), number };
                Some(Ask::Go(slot, permit))
            }
            Look::Full => Some(Ask::Full),
            Look::Draw => None,
        }
    }

    /// Ends when a call of this budget does.
    pub async fn freed(&self) {
        self.budget.freed.notified().await;
    }

    /// The call waited so long for its turn, or for the provider.
    pub fn waited(&self, long: Duration) {
        metrics::provider_waited(self.budget.counted.provider, self.budget.counted.label(), long);
    }
}

/// How a call went, as far as its pace is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Answered,
    Throttled {
        retry_after: Option<Duration>,
    },
    /// Of this kind, which says nothing about the pace: one of few words.
    Failed(&'static str),
}

impl Reply {
    fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Throttled { .. } => "throttled",
            Self::Failed(word) => word,
        }
    }
}

/// A call's place among those under way, free again when it is dropped.
pub struct Permit {
    budget: Arc<Budget>,
    tally: Tally,
    number: u64,
}

impl Permit {
    /// The call that was sent at `sent` has come to this.
    pub async fn ended(self, sent: Instant, reply: Reply) {
        let (budget, took) = (Arc::clone(&self.budget), sent.elapsed());
        metrics::provider_called(budget.counted.provider, budget.counted.label(), reply.word());
        match reply {
            Reply::Answered => {
                floor::count(&mut lock(&self.tally.0), &budget.key, &budget.counted, took);
                lock(&budget.local).ended(self.number, Some(took));
            }
            // a refusal comes sooner than an answer
            Reply::Throttled { retry_after } => {
                lock(&budget.local).ended(self.number, None);
                budget.throttled(sent, retry_after).await;
            }
            Reply::Failed(_) => lock(&budget.local).ended(self.number, None),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.budget.local).ended(self.number, None);
        self.budget.freed.notify_one();
    }
}

struct Budget {
    key: String,
    counted: Counted,
    /// The most calls per second, all workers together.
    full: f64,
    database: Database,
    local: Mutex<Local>,
    freed: Notify,
    /// Held by whoever draws, so that a burst draws once.
    drawing: tokio::sync::Mutex<()>,
}

impl Budget {
    async fn draw(&self) -> Result<Drawn, DbErr> {
        self.change(|standing, now| {
            let drawn = standing.draw(now, self.full, PATIENCE);
            (drawn, matches!(drawn, Drawn::Slots { .. }))
        })
        .await
    }

    /// Lowers the rate for all workers. What cannot be written now will be with the next refusal.
    async fn throttled(&self, sent: Instant, told: Option<Duration>) {
        let lowering = self.change(|standing, now| {
            let before = *standing;
            let lowered = standing.throttled(now, self.full, sent.elapsed(), told);
            (lowered, *standing != before)
        });
        let lowered = match tokio::time::timeout(DRAW_PATIENCE, lowering).await {
            Ok(Ok(lowered)) => lowered,
            Ok(Err(error)) => {
                tracing::debug!(budget = self.key, %error, "a rate could not be lowered");
                None
            }
            Err(_) => None,
        };
        if let Some(rate) = lowered {
            metrics::provider_slowed(self.counted.provider, self.counted.label());
            tracing::info!(
                call = self.counted.name,
                scope = self.counted.scope,
                rate,
                most = self.full,
                "the provider throttles: the rate is lowered for all workers"
            );
        }
        if lowered.is_some() || told.is_some() {
            lock(&self.local).lowered(lowered);
        }
    }

    /// Changes the row in a transaction of its own; `change` also tells whether there is anything to write.
    async fn change<T>(&self, change: impl Fn(&mut Standing, DateTime<Utc>) -> (T, bool) + Send) -> Result<T, DbErr> {
        let write = self.database.begin().await?;
        let mut row = call_budget::locked(&*write, &self.key, self.full).await?;
        // after the row was locked: nobody drew later than this
        let now = clock::now(&*write).await?;
        let mut standing = Standing { rate: row.rate, cut_at: row.cut_at, until: row.until };
        let (told, changed) = change(&mut standing, now);
        if changed {
            (row.rate, row.cut_at, row.until) = (standing.rate, standing.cut_at, standing.until);
            call_budget::save(&*write, &row).await?;
            write.commit().await?;
        } else {
            write.rollback().await?;
        }
        Ok(told)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
