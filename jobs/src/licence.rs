//! The licence of this process: read from a file, verified offline, asked by whatever a tier gates.
//!
//! The file is looked at again every minute, so that a renewed licence needs no restart. One that cannot be read or is not genuine
//! any more changes nothing but what [`Licence::standing`] tells: the last good one goes on to its end.

mod token;

use crate::{
    domain::licence::{self, Limit, State, Terms, Tier},
    setup::{
        clock::Clock,
        config::{Config, LicenceKey},
        database::{Database, Write},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use keywright_entities::{clock, licence_seen, licence_use, subscription, user_account};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// How often the file and the clock are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// By how much the highest time may have risen before it is written again.
const COARSE: TimeDelta = TimeDelta::hours(1);
/// A licence has some 500 bytes; what is much longer is none.
const MAX_BYTES: u64 = 16 * 1024;

/// Why a licence does not count.
#[derive(Debug, Error)]
pub enum LicenceError {
    #[error("KEYWRIGHT_LICENCE_FILE: {path} cannot be read ({source}); name a file that this process may read")]
    Unreadable { path: String, source: std::io::Error },
    #[error(
        "KEYWRIGHT_LICENCE_FILE: {path} {reason}; put the licence there as it was issued, with the issuer's key in \
         KEYWRIGHT_LICENCE_PUBLIC_KEY"
    )]
    NotGenuine { path: String, reason: &'static str },
}

/// Why something is not done under the licence.
#[derive(Debug, Error)]
pub enum Refused {
    /// The tier in force does not have it.
    #[error("this needs the tier {required}, and {in_force} is in force")]
    Tier { required: Tier, in_force: Tier },
    /// There are as many as there may be.
    #[error("there are {most} {} already, and the tier {in_force} has no more", limit.as_str())]
    Limit { limit: Limit, most: u64, in_force: Tier, required: Option<Tier> },
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// What people are told of the licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    /// The tier in force.
    pub tier: Tier,
    /// What the licence says, whether or not it is in force.
    pub terms: Option<Terms>,
    /// What is wrong with the file; what was read from it before still counts.
    pub problem: Option<String>,
}

/// The licence of a process.
pub struct Licence {
    key: Option<LicenceKey>,
    file: Option<PathBuf>,
    database: Database,
    clock: Clock,
    held: RwLock<Held>,
}

#[derive(Clone, Default)]
struct Held {
    terms: Option<Terms>,
    problem: Option<String>,
    /// The latest time at which this licence was seen, by anybody.
    highest: Option<DateTime<Utc>>,
    /// The same as the database has it.
    written: Option<DateTime<Utc>>,
}

impl Licence {
    /// Reads the licence that the configuration names; without a key nothing is gated. `clock` is the database's, as it decides when
    /// a licence is over.
    ///
    /// # Errors
    /// [`LicenceError`] when the file cannot be read or is not genuine: nobody should learn of that later. One that is over is fine.
    pub async fn open(
        key: Option<LicenceKey>,
        file: Option<PathBuf>,
        database: Database,
        clock: Clock,
    ) -> Result<Self, LicenceError> {
        let opened = Self { key, file, database, clock, held: RwLock::default() };
        let terms = opened.read().await?;
        opened.change(|held| held.terms = terms);
        if let Err(error) = opened.remember().await {
            tracing::warn!(%error, "when the licence was last seen cannot be told; trying again in a minute");
        }
        Ok(opened)
    }

    /// Looks at the file and the clock every minute until `stop`.
    pub fn watch(self: &Arc<Self>, stop: CancellationToken) {
        let watched = Arc::clone(self);
        if watched.key.is_none() {
            return;
        }
        tokio::spawn(async move {
            while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
                watched.look().await;
            }
        });
    }

    /// Looks at the file and the clock once.
    pub async fn look(&self) {
        match self.read().await {
            Ok(terms) => self.change(|held| {
                let same = held.terms.as_ref().map(|known| &known.fingerprint)
                    == terms.as_ref().map(|terms| &terms.fingerprint);
                if !same {
                    tracing::info!(tier = terms.as_ref().map_or("none", |terms| terms.tier.as_str()), "a new licence");
                    *held = Held { terms, ..Held::default() };
                }
                held.problem = None;
            }),
            Err(error) => self.change(|held| {
                let problem = error.to_string();
                if held.problem.as_ref() != Some(&problem) {
                    tracing::warn!(%problem, "the licence cannot be renewed; the one that was read before counts on");
                }
                held.problem = Some(problem);
            }),
        }
        if let Err(error) = self.remember().await {
            tracing::warn!(%error, "when the licence was last seen could not be noted; trying again in a minute");
        }
    }

    async fn read(&self) -> Result<Option<Terms>, LicenceError> {
        let (Some(key), Some(path)) = (&self.key, &self.file) else { return Ok(None) };
        read(key, path).await.map(Some)
    }

    /// Compares the highest time seen with what the database has, and writes it when it has risen by much.
    async fn remember(&self) -> Result<(), DbErr> {
        let now = self.now();
        let Some(id) = self.held().terms.map(|terms| terms.fingerprint) else { return Ok(()) };
        let known = licence_seen::highest(self.database.reader(), &id).await?;
        let highest = known.map_or(now, |known| known.max(now));
        let written = if known.is_none_or(|known| highest - known >= COARSE) {
            let write = self.database.begin().await?;
            licence_seen::raise(&*write, &id, clock::micros(highest)).await?;
            write.commit().await?;
            Some(highest)
        } else {
            known
        };
        self.change(|held| {
            if held.terms.as_ref().is_some_and(|terms| terms.fingerprint == id) {
                held.highest = held.highest.max(Some(highest));
                held.written = written;
            }
        });
        Ok(())
    }

    /// The time by which the licence is judged: the clock's, but never before what was seen already, here or elsewhere.
    fn now(&self) -> DateTime<Utc> {
        let (now, held) = (self.clock.now(), self.held());
        let issued = held.terms.as_ref().and_then(|terms| terms.issued_at);
        let latest = held.highest.max(issued).map_or(now, |seen| seen.max(now));
        if held.highest.is_none_or(|highest| highest < latest) {
            self.change(|held| held.highest = held.highest.max(Some(latest)));
        }
        latest
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn gated(&self) -> bool {
        self.key.is_some()
    }

    /// The tier in force.
    pub fn tier(&self) -> Tier {
        let now = self.now();
        licence::tier(self.gated(), self.held().terms.as_ref(), now)
    }

    /// How many there may be; none: any number.
    pub fn most(&self, limit: Limit) -> Option<u64> {
        let now = self.now();
        licence::most(self.gated(), self.held().terms.as_ref(), limit, now)
    }

    /// Lets through what the tier in force has.
    ///
    /// # Errors
    /// [`Refused::Tier`].
    pub fn require(&self, required: Tier) -> Result<(), Refused> {
        let in_force = self.tier();
        if in_force >= required { Ok(()) } else { Err(Refused::Tier { required, in_force }) }
    }

    /// Lets nobody else add before the caller's transaction ends: for whoever must look first whether it adds anything.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn take_turn(&self, write: &Write, limit: Limit) -> Result<(), DbErr> {
        if self.most(limit).is_some() {
            licence_use::count(&**write, &limit.counter(self.now()), 0).await?;
        }
        Ok(())
    }

    /// Makes room for one more in the caller's transaction, which goes on to add it: until it ends nobody else gets this far. What is
    /// there already is never in question. Refused, the transaction is to be rolled back.
    ///
    /// # Errors
    /// [`Refused::Limit`] when there is none.
    pub async fn admit(&self, write: &Write, limit: Limit) -> Result<(), Refused> {
        let Some(most) = self.most(limit) else { return Ok(()) };
        let counter = limit.counter(self.now());
        let before = match limit {
            Limit::ManualRotations => licence_use::count(&**write, &counter, 1).await? - 1,
            Limit::Subscriptions | Limit::Users => {
                licence_use::count(&**write, &counter, 0).await?;
                i64::try_from(there_are(&**write, limit).await?).unwrap_or(i64::MAX)
            }
        };
        if u64::try_from(before).is_ok_and(|before| before < most) {
            return Ok(());
        }
        let required = Tier::with_more(limit, most);
        Err(Refused::Limit { limit, most, in_force: self.tier(), required })
    }

    /// How many there are.
    ///
    /// # Errors
    /// When the database cannot tell.
    pub async fn used(&self, limit: Limit) -> Result<u64, DbErr> {
        let db = self.database.reader();
        match limit {
            Limit::ManualRotations => {
                let used = licence_use::used(db, &limit.counter(self.now())).await?;
                Ok(u64::try_from(used).unwrap_or_default())
            }
            Limit::Subscriptions | Limit::Users => there_are(db, limit).await,
        }
    }

    /// What people are told.
    pub fn standing(&self) -> Standing {
        let now = self.now();
        let Held { terms, problem, .. } = self.held();
        let (gated, said) = (self.gated(), terms.as_ref());
        Standing { state: licence::state(gated, said, now), tier: licence::tier(gated, said, now), terms, problem }
    }
}

/// Checks the licence that a configuration names, if it names one.
///
/// # Errors
/// [`LicenceError`].
pub async fn check(config: &Config) -> Result<(), LicenceError> {
    match (&config.licence_public_key, &config.licence_file) {
        (Some(key), Some(path)) => read(key, path).await.map(|_| ()),
        _ => Ok(()),
    }
}

async fn read(key: &LicenceKey, path: &Path) -> Result<Terms, LicenceError> {
    let shown = || path.display().to_string();
    let unreadable = |source| LicenceError::Unreadable { path: shown(), source };
    if tokio::fs::metadata(path).await.map_err(unreadable)?.len() > MAX_BYTES {
        return Err(LicenceError::NotGenuine { path: shown(), reason: "is too long for a licence" });
    }
    let text = tokio::fs::read(path).await.map_err(unreadable)?;
    token::verify(key, &String::from_utf8_lossy(&text))
        .map_err(|reason| LicenceError::NotGenuine { path: shown(), reason })
}

async fn there_are(db: &impl ConnectionTrait, limit: Limit) -> Result<u64, DbErr> {
    match limit {
        Limit::Subscriptions => subscription::live().count(db).await,
        Limit::Users => user_account::Entity::find().filter(user_account::Column::Disabled.eq(false)).count(db).await,
        Limit::ManualRotations => Ok(0),
    }
}
