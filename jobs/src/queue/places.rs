//! How many jobs a process holds: those that run, and a few that are claimed ahead of their slots.
//!
//! A claim costs a commit, whether of one job or of hundreds. Where jobs last milliseconds, a process that claimed only for its
//! free slots would wait for the disk most of the time. So it claims ahead what it can begin within a moment, by what it has
//! observed; where jobs last longer, nothing, so that other workers find them.

use super::lease::lock;
use futures::FutureExt;
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};

/// At most this many are claimed ahead.
const MOST_AHEAD: usize = 500;
/// What is claimed ahead should begin within this time, and within a quarter of the lease.
const MOMENT: Duration = Duration::from_millis(100);
/// The weight of the newest observation; a longer one counts at once.
const WEIGHT: f64 = 0.02;

/// The places of one process.
pub struct Places {
    slots: Arc<Semaphore>,
    concurrency: usize,
    moment: Duration,
    held: AtomicUsize,
    freed: Notify,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    /// How long a job takes; `None` before the first has ended.
    typical: Option<Duration>,
    running: HashMap<u64, Instant>,
}

impl Places {
    pub(super) fn new(concurrency: usize, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            moment: MOMENT.min(lease / 4),
            held: AtomicUsize::new(0),
            freed: Notify::new(),
            pace: Mutex::default(),
        })
    }

    /// How many jobs may be claimed now. While what was claimed ahead lasts, none: a claim of many costs as much as one of few.
    pub(super) fn free(&self) -> usize {
        let (held, ahead) = (self.held.load(Ordering::SeqCst), self.ahead());
        let free = (self.concurrency + ahead).saturating_sub(held);
        if held >= self.concurrency && free < ahead / 2 { 0 } else { free }
    }

    /// Returns when a place was freed since it was last called.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    pub(super) fn most(concurrency: usize) -> usize {
        concurrency + MOST_AHEAD
    }

    fn ahead(&self) -> usize {
        let pace = lock(&self.pace);
        let Some(typical) = pace.typical else { return 0 };
        // one that has not ended lasts at least as long as it has lasted
        let oldest = pace.running.values().min().map(Instant::elapsed).unwrap_or_default();
        let each = typical.max(oldest).max(Duration::from_micros(1));
        let fits = self.concurrency as f64 * self.moment.as_secs_f64() / each.as_secs_f64();
        (fits as usize).min(MOST_AHEAD)
    }

    /// Takes the place of one claimed job. It stands in the queue for a slot from now on, whenever its task comes to wait for
    /// it: jobs begin in the order in which their places were taken.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        self.held.fetch_add(1, Ordering::SeqCst);
        let mut waiting: Permit = Box::pin(Arc::clone(&self.slots).acquire_owned());
        let permit = match waiting.as_mut().now_or_never() {
            Some(permit) => Box::pin(std::future::ready(permit)),
            None => waiting,
        };
        Place { places: Arc::clone(self), permit: Mutex::new(Some(permit)) }
    }

    fn ran(&self, number: u64) {
        let mut pace = lock(&self.pace);
        let Some(took) = pace.running.remove(&number).map(|began| began.elapsed()) else { return };
        pace.typical = Some(match pace.typical {
            Some(typical) if took <= typical => typical.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT),
            _ => took,
        });
    }
}

/// The place that a claimed job fills until its outcome is recorded.
pub struct Place {
    places: Arc<Places>,
    permit: Mutex<Option<Permit>>,
}

type Permit = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

impl Place {
    /// Waits for the slot to run in; there is one for each place. It is freed when the job has run, before its outcome is
    /// recorded.
    pub async fn slot(&self) -> Option<Slot> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let permit = poll_fn(|context| {
            let mut permit = lock(&self.permit);
            let Some(waiting) = permit.as_mut() else { return Poll::Ready(None) };
            let granted = waiting.as_mut().poll(context);
            if granted.is_ready() {
                *permit = None;
            }
            granted.map(Result::ok)
        })
        .await?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        lock(&self.places.pace).running.insert(number, Instant::now());
        Some(Slot { places: Arc::clone(&self.places), number, _permit: permit })
    }

    /// How long a claimed job may wait for its slot before it is given back for others to run.
    pub fn patience(&self) -> Duration {
        // what it was claimed by is an estimate; a job that came between may last for hours
        self.places.moment * 10
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.fetch_sub(1, Ordering::SeqCst);
        self.places.freed.notify_one();
    }
}

/// A running job's slot.
pub struct Slot {
    places: Arc<Places>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.places.ran(self.number);
        // a job that ran long may have kept others from being claimed ahead
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(concurrency: usize) -> Arc<Places> {
        Places::new(concurrency, Duration::from_secs(8))
    }

    fn observe(places: &Places, took: Duration) {
        lock(&places.pace).running.insert(0, Instant::now().checked_sub(took).unwrap());
        places.ran(0);
    }

    #[test]
    fn nothing_is_claimed_ahead_before_anything_was_observed() {
        let places = places(4);
        assert_eq!(places.free(), 4);
        let _taken: Vec<Place> = (0..4).map(|_| places.take()).collect();
        assert_eq!(places.free(), 0);
    }

    #[test]
    fn short_jobs_are_claimed_ahead_and_long_ones_are_not() {
        let places = places(4);
        observe(&places, Duration::from_micros(1));
        assert!(places.free() > 100, "{}", places.free());
        observe(&places, Duration::from_millis(10));
        assert!((24..=44).contains(&places.free()), "{}", places.free());
        observe(&places, Duration::from_secs(5));
        assert_eq!(places.free(), 4, "one long job is enough");
    }

    #[test]
    fn one_that_has_not_ended_counts_as_long_as_it_has_lasted() {
        let places = places(2);
        observe(&places, Duration::from_micros(1));
        assert!(places.free() > 100);
        lock(&places.pace).running.insert(7, Instant::now().checked_sub(Duration::from_secs(9)).unwrap());
        assert_eq!(places.free(), 2);
    }

    #[test]
    fn a_claim_waits_until_it_is_worth_its_commit() {
        let places = places(2);
        observe(&places, Duration::from_micros(1));
        let most = Places::most(2);
        let mut taken: Vec<Place> = (0..most).map(|_| places.take()).collect();
        taken.truncate(most - 100);
        assert_eq!(places.free(), 0, "most of what was claimed ahead is still there");
        taken.truncate(100);
        assert_eq!(places.free(), most - 100);
    }

    #[tokio::test]
    async fn jobs_begin_in_the_order_in_which_they_were_claimed() {
        let places = places(1);
        let running = places.take().slot().await.unwrap();
        let (first, second) = (places.take(), places.take());
        drop(running);
        // whose task comes first does not matter
        assert!(second.slot().now_or_never().is_none());
        assert!(first.slot().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_place_that_is_given_up_gives_up_its_slot() {
        let places = places(1);
        let (first, second) = (places.take(), places.take());
        drop(first);
        assert!(second.slot().await.is_some());
    }

    #[tokio::test]
    async fn no_more_run_than_there_are_slots() {
        let places = places(1);
        let (one, two) = (places.take(), places.take());
        let running = one.slot().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), two.slot()).await.is_err());
        drop(running);
        assert!(two.slot().await.is_some());
    }
}
