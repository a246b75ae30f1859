//! Following jobs: any number of followers in a process, one reader of the events.
//!
//! A follower first comes here and then reads what was before, so that nothing falls between the two; what it hears twice it
//! knows by the number. One that does not keep up is let go, reads on in the table, and comes again.

mod progress;

pub use progress::Progress;

use super::{
    events::{self, Filter, Happened},
    wake::Wake,
};
use crate::setup::database::Database;
use keywright_entities::job_event;
use progress::{Latest, Looker};
use sea_orm::DbErr;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// News that come faster are looked at together.
const GATHER: Duration = Duration::from_millis(15);
/// The reader looks by itself this often, should news get lost. While nobody follows, events get their numbers no more often.
const NET: Duration = Duration::from_secs(1);
/// How many events are read at once.
const PAGE: u64 = 500;
/// How many events a follower may be behind before it is let go.
const BEHIND: usize = 2 * PAGE as usize;

/// What is followed.
#[derive(Clone, Debug)]
pub enum Interest {
    /// One job with its parts; and its own parent, when it is a part.
    Job { id: Uuid, parent: Option<Uuid> },
    /// All jobs that are let through.
    Jobs(Filter),
}

/// The reader of one process.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    database: Database,
    followers: Mutex<Followers>,
    /// A follower came: what it waits for may have happened just before.
    came: Notify,
}

#[derive(Default)]
struct Followers {
    next: u64,
    /// The last event that was handed out; unset while nobody follows.
    position: Option<i64>,
    of_jobs: HashMap<Uuid, Vec<Outlet>>,
    of_all: Vec<(Filter, Outlet)>,
    /// Jobs whose progress somebody has yet to hear for the first time.
    fresh: Vec<Uuid>,
}

struct Outlet {
    key: u64,
    events: mpsc::Sender<Arc<Happened>>,
    latest: Arc<Latest>,
}

/// A follower's end. Its drop takes the follower away.
pub struct Following {
    feed: Arc<Shared>,
    key: u64,
    job: Option<Uuid>,
    events: mpsc::Receiver<Arc<Happened>>,
    latest: Arc<Latest>,
}

impl Feed {
    /// Reads for those who follow until `stop`; what progress a job makes is looked for at most every `pace`.
    pub fn start(database: Database, wake: &Wake, pace: Duration, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared { database, followers: Mutex::default(), came: Notify::new() });
        let (reading, mut news) = (Arc::clone(&shared), wake.subscribe());
        tokio::spawn(async move {
            let mut looker = Looker::new(pace);
            let mut idle = Idle { news: true, numbered: Instant::now() };
            loop {
                tokio::select! {
                    changed = tokio::time::timeout(NET, news.changed()) => idle.news |= changed.is_ok(),
                    () = reading.came.notified() => {}
                    () = looker.due() => {}
                    () = stop.cancelled() => return,
                }
                if let Err(error) = reading.look(&mut looker, &mut idle).await {
                    tracing::debug!(%error, "events could not be read; trying again");
                }
                tokio::time::sleep(GATHER).await;
            }
        });
        Self(shared)
    }

    /// Begins to follow: whatever gets its number from now on is told, unless it is read by [`Feed::read`] afterwards.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn follow(&self, interest: &Interest) -> Result<Following, DbErr> {
        let following = self.0.add(interest);
        if self.0.lock().position.is_none() {
            let (_, last) = job_event::bounds(self.0.database.reader()).await?;
            self.0.lock().position.get_or_insert(last);
        }
        self.0.came.notify_one();
        Ok(following)
    }

    /// The first event that is kept and the last that there is, when all that is committed has its number.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn bounds(&self) -> Result<(i64, i64), DbErr> {
        events::number(&self.0.database).await?;
        job_event::bounds(self.0.database.reader()).await
    }

    /// Some of the events after `seq`, in order, and the number after which to read on; `None` when that was all.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn read(&self, interest: &Interest, seq: i64) -> Result<(Vec<Arc<Happened>>, Option<i64>), DbErr> {
        let select = match interest {
            Interest::Job { id, parent } => job_event::of_job(*id, *parent, seq, PAGE),
            Interest::Jobs(_) => job_event::after(seq, PAGE),
        };
        let page = events::read(&self.0.database, select).await?;
        let more = page.last().filter(|_| is_full(&page)).map(|last| last.event.seq);
        let admitted = page.into_iter().filter(|happened| match interest {
            Interest::Job { .. } => true,
            Interest::Jobs(filter) => filter.admits_event(happened),
        });
        Ok((admitted.map(Arc::new).collect(), more))
    }
}

fn is_full(page: &[Happened]) -> bool {
    page.len() as u64 == PAGE
}

/// While nobody follows.
struct Idle {
    /// Something was committed since events were numbered.
    news: bool,
    numbered: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, interest: &Interest) -> Following {
        let (events, received) = mpsc::channel(BEHIND);
        let latest = Arc::<Latest>::default();
        let mut followers = self.lock();
        followers.next += 1;
        let key = followers.next;
        let outlet = Outlet { key, events, latest: Arc::clone(&latest) };
        let job = match interest {
            Interest::Job { id, .. } => {
                followers.of_jobs.entry(*id).or_default().push(outlet);
                followers.fresh.push(*id);
                Some(*id)
            }
            Interest::Jobs(filter) => {
                followers.of_all.push((filter.clone(), outlet));
                None
            }
        };
        Following { feed: Arc::clone(self), key, job, events: received, latest }
    }

    async fn look(&self, looker: &mut Looker, idle: &mut Idle) -> Result<(), DbErr> {
        if self.lock().position.is_none() {
            looker.rest();
            if idle.news && idle.numbered.elapsed() >= NET {
                (idle.news, idle.numbered) = (false, Instant::now());
                events::number(&self.database).await?;
            }
            return Ok(());
        }
        events::number(&self.database).await?;
        loop {
            let Some(position) = self.lock().position else { return Ok(()) };
            let page = events::read(&self.database, job_event::after(position, PAGE)).await?;
            let full = is_full(&page);
            self.hand_out(page);
            if !full {
                break;
            }
        }
        looker.look(self).await
    }

    fn hand_out(&self, page: Vec<Happened>) {
        let mut followers = self.lock();
        for happened in page {
            let happened = Arc::new(happened);
            followers.tell(&happened);
            if let Some(position) = &mut followers.position {
                *position = happened.event.seq.max(*position);
            }
        }
    }

    fn remove(&self, key: u64, job: Option<Uuid>) {
        let mut followers = self.lock();
        match job {
            Some(job) => followers.keep_of(job, |outlet| outlet.key != key),
            None => followers.of_all.retain(|(_, outlet)| outlet.key != key),
        }
        if followers.of_jobs.is_empty() && followers.of_all.is_empty() {
            followers.position = None;
            followers.fresh.clear();
        }
    }
}

impl Followers {
    fn tell(&mut self, happened: &Arc<Happened>) {
        let event = &happened.event;
        self.keep_of(event.owner_id, |outlet| outlet.tell(happened));
        if event.job_id != event.owner_id {
            self.keep_of(event.job_id, |outlet| outlet.tell(happened));
        }
        self.of_all.retain(|(filter, outlet)| !filter.admits_event(happened) || outlet.tell(happened));
    }

    fn keep_of(&mut self, job: Uuid, keep: impl FnMut(&Outlet) -> bool) {
        if let Some(outlets) = self.of_jobs.get_mut(&job) {
            outlets.retain(keep);
            if outlets.is_empty() {
                self.of_jobs.remove(&job);
            }
        }
    }
}

impl Outlet {
    /// `false`: the follower does not keep up, and is let go.
    fn tell(&self, happened: &Arc<Happened>) -> bool {
        self.events.try_send(Arc::clone(happened)).is_ok()
    }
}

/// What a follower hears.
#[derive(Clone, Debug)]
pub enum News {
    Event(Arc<Happened>),
    Progress(Vec<Arc<Progress>>),
    /// It did not keep up: it must follow again, and read what it has missed.
    LetGo,
}

impl Following {
    /// The next event, or, not before `from`, the latest progress of each job that made any since this was last asked.
    pub async fn news(&mut self, from: Instant) -> News {
        let progress = async {
            tokio::time::sleep_until(from.into()).await;
            self.latest.taken().await
        };
        tokio::select! {
            biased;
            event = self.events.recv() => event.map_or(News::LetGo, News::Event),
            progress = progress => News::Progress(progress),
        }
    }

    /// Forgets the progress of a job that has ended.
    pub fn forget_progress(&self, job: Uuid) {
        self.latest.forget(job);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.feed.remove(self.key, self.job);
    }
}
