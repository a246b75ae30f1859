//! How often somebody may ask: so many requests per minute and per hour, over all API processes of a database.
//!
//! Each principal has one row per window, from which a process draws a twentieth of the limit at a time and which it then
//! spends by a counter in memory. A window begins with the first draw and ends by the database's clock, so that processes
//! whose own clocks differ agree. What was drawn and not spent ages out with the window; a process that is killed takes no
//! more than that with it.

mod buckets;
mod budget;
mod gate;
mod headers;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use keywright_entities::rate_limit;
use keywright_jobs::setup::{clock::Clock, database::Database};
use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::buckets::{Bucket, Buckets};
pub use self::budget::{Rule, Standing};
use self::budget::{Taken, Windows};
pub use self::gate::LimitGate;
pub use self::headers::{retry_after, set as set_headers};
use crate::client_address::network;

/// How long a draw may take before the request goes on without it.
const DRAW_PATIENCE: Duration = Duration::from_secs(2);
/// After a draw that failed nobody tries again for this long: requests must not queue for a database that is away.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often windows that are over are removed, and how many in one transaction.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const PRUNE_BATCH: u32 = 500;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// All sessions of a user.
    User(Uuid),
    Token(Uuid),
    /// Nobody known; an IPv6 address stands for its network of 64 bits, which one client has for itself.
    Address(IpAddr),
    /// Logins from an address.
    Login(IpAddr),
}

impl Whose {
    pub fn address(address: IpAddr) -> Self {
        Self::Address(network(address))
    }

    pub fn login(address: IpAddr) -> Self {
        Self::Login(network(address))
    }

    fn row(self, rule: &Rule) -> String {
        let seconds = rule.span.as_secs();
        match self {
            Self::User(id) => format!("user:{id}/{seconds}"),
            Self::Token(id) => format!("token:{id}/{seconds}"),
            Self::Address(address) => format!("address:{address}/{seconds}"),
            Self::Login(address) => format!("login:{address}/{seconds}"),
        }
    }
}

/// The limits in force. Clones share what they count.
#[derive(Clone)]
pub struct RateLimits(Arc<Shared>);

struct Shared {
    rules: Vec<Rule>,
    database: Database,
    clock: Clock,
    /// Apart, so that a flood from many addresses drives out nothing of those who are known.
    known: Buckets,
    strangers: Buckets,
    failed: Mutex<Option<Instant>>,
}

/// What was taken for a request. In the request's data, see [`ChargeSlot`].
pub struct Charge {
    bucket: Arc<Bucket>,
    from: Windows,
}

/// Where the gate leaves what it took, for the layer that writes the headers.
#[derive(Clone, Default)]
pub struct ChargeSlot(Arc<OnceLock<Charge>>);

/// Why a request was not let through.
#[derive(Debug)]
pub enum Refusal {
    /// The limit is used up; a request after so many seconds will be let through.
    UsedUp { retry_after: u32 },
    /// The database did not say whether it may be.
    Unknown,
}

impl RateLimits {
    /// At most two rules hold; `None` where there is none.
    #[must_use]
    pub fn new(rules: Vec<Rule>, database: Database, clock: Clock) -> Option<Self> {
        if rules.is_empty() {
            return None;
        }
        let (known, strangers, failed) = (Buckets::default(), Buckets::default(), Mutex::default());
        Some(Self(Arc::new(Shared { rules, database, clock, known, strangers, failed })))
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// Counts one request.
    ///
    /// # Errors
    /// [`Refusal`]. Without the database only logins are refused: reads go on, and writes fail by themselves.
    pub async fn charge(&self, whose: Whose, slot: &ChargeSlot) -> Result<(), Refusal> {
        let bucket = self.bucket(whose);
        let taken = self.take(whose, &bucket).await;
        let charge = |from| Charge { bucket: Arc::clone(&bucket), from };
        match taken {
            Ok(Some(from)) => drop(slot.0.set(charge(from))),
            Ok(None) => {
                let _ = slot.0.set(charge(Windows::default()));
                let standings = self.standings(&bucket);
                return Err(Refusal::UsedUp { retry_after: retry_after(&standings) });
            }
            Err(error) => {
                tracing::debug!(%error, "a rate limit could not be drawn on");
                let _ = slot.0.set(charge(Windows::default()));
                if matches!(whose, Whose::Login(_)) {
                    return Err(Refusal::Unknown);
                }
            }
        }
        Ok(())
    }

    /// How things stand after the request; for one that was not counted, how they stand for its address.
    #[must_use]
    pub fn after(&self, slot: &ChargeSlot, address: IpAddr, given_back: bool) -> Vec<Standing> {
        match slot.0.get() {
            Some(charge) => {
                if given_back {
                    charge.bucket.budget().give_back(&charge.from);
                }
                self.standings(&charge.bucket)
            }
            None => self.standings(&self.bucket(Whose::address(address))),
        }
    }

    /// Removes windows that are over, from time to time until `stop`. Every API process does.
    pub async fn prune(self, stop: CancellationToken) {
        while tokio::time::timeout(PRUNE_EVERY, stop.cancelled()).await.is_err() {
            if let Err(error) = self.prune_all().await {
                tracing::debug!(%error, "windows of rate limits could not be removed; tried again later");
            }
        }
    }

    async fn prune_all(&self) -> Result<(), DbErr> {
        loop {
            let write = self.0.database.begin().await?;
            let removed = rate_limit::prune(&*write, PRUNE_BATCH).await?;
            write.commit().await?;
            if removed < u64::from(PRUNE_BATCH) {
                return Ok(());
            }
        }
    }

    fn bucket(&self, whose: Whose) -> Arc<Bucket> {
        let buckets = match whose {
            Whose::User(_) | Whose::Token(_) => &self.0.known,
            Whose::Address(_) | Whose::Login(_) => &self.0.strangers,
        };
        buckets.of(whose)
    }

    /// The windows that a request was taken from; `None` when the limit is used up.
    async fn take(&self, whose: Whose, bucket: &Bucket) -> Result<Option<Windows>, DbErr> {
        // strangers could make us write a row each; with a login there is something to write in any case
        let unasked = || matches!(whose, Whose::Address(_)).then(|| self.seconds());
        let look = || bucket.budget().take(&self.0.rules, Instant::now(), unasked());
        if let Some(taken) = settled(look()) {
            return Ok(taken);
        }
        let _alone = bucket.drawing.lock().await;
        loop {
            let wanting = match look() {
                Taken::Draw(wanting) => wanting,
                other => return Ok(settled(other).flatten()),
            };
            self.draw(whose, bucket, &wanting).await?;
        }
    }

    async fn draw(&self, whose: Whose, bucket: &Bucket, wanting: &[usize]) -> Result<(), DbErr> {
        if self.failed_lately() {
            return Err(DbErr::Custom("the database did not answer a moment ago".to_owned()));
        }
        let drawing = async {
            let write = self.0.database.begin().await?;
            let mut drawn = Vec::with_capacity(wanting.len());
            for index in wanting {
                if let Some(rule) = self.0.rules.get(*index) {
                    let wanted = bucket.budget().wanted(*index, rule);
                    drawn.push((*index, rate_limit::draw(&*write, &whose.row(rule), wanted).await?, Instant::now()));
                }
            }
            write.commit().await?;
            Ok(drawn)
        };
        let late = |_| Err(DbErr::Custom("the database did not answer in time".to_owned()));
        match tokio::time::timeout(DRAW_PATIENCE, drawing).await.unwrap_or_else(late) {
            Ok(drawn) => {
                for (index, drawn, at) in &drawn {
                    bucket.budget().drew(*index, drawn, *at);
                }
                Ok(())
            }
            Err(error) => {
                *self.0.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn failed_lately(&self) -> bool {
        let failed = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE)
    }

    fn standings(&self, bucket: &Bucket) -> Vec<Standing> {
        bucket.budget().standings(&self.0.rules, Instant::now(), self.seconds())
    }

    fn seconds(&self) -> i64 {
        self.0.clock.now().timestamp()
    }
}

fn settled(taken: Taken) -> Option<Option<Windows>> {
    match taken {
        Taken::Yes(from) => Some(Some(from)),
        Taken::No => Some(None),
        Taken::Draw(_) => None,
    }
}
