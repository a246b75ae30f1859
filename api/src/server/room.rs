//! How much of requests that are being read may lie in memory. A head may be long, because credentials are, and there are thousands
//! of connections: all of them together must not hold what a few may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

/// What each request may have without asking: nearly all of them, however crowded it is.
pub(super) const ALLOWANCE: usize = 16 << 10;
/// What all requests together may have beyond that.
const READING: usize = 128 << 20;

/// The bytes that the requests of one process hold beyond their allowance.
#[derive(Debug)]
pub struct Room {
    most: usize,
    held: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(READING)
    }
}

impl Room {
    pub(super) fn of(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    /// The bytes that are held now: no more than there is room for, but for the last read of each request that found none.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Holds so many more; `false` when that is too much.
    fn hold(&self, bytes: usize) -> bool {
        self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.most
    }
}

/// Where a connection stands.
#[derive(Debug)]
pub struct Progress {
    /// Even while a request is awaited, odd while one is answered.
    steps: AtomicU64,
    /// Told whenever all that was written so far is on its way.
    pub(super) flushed: watch::Sender<()>,
    room: Arc<Room>,
    /// Bytes of the present request.
    came: AtomicUsize,
    /// Those of them that are held in the room.
    held: AtomicUsize,
    short: AtomicBool,
}

impl Progress {
    pub(super) fn within(room: Arc<Room>) -> Self {
        let (steps, flushed) = (AtomicU64::new(0), watch::Sender::new(()));
        Self {
            steps,
            flushed,
            room,
            came: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            short: AtomicBool::new(false),
        }
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is there. Tells whether another request may follow: the buffers of a large one end with their connection alone.
    pub(super) fn end(&self) -> bool {
        self.steps.fetch_add(1, Ordering::Relaxed);
        if self.came.load(Ordering::Relaxed) > ALLOWANCE {
            return false;
        }
        self.came.store(0, Ordering::Relaxed);
        true
    }

    pub(super) fn now(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// So many bytes have come; tells whether there is room for them.
    pub(super) fn read(&self, bytes: usize) -> bool {
        // what comes after that nobody keeps
        if self.short.load(Ordering::Relaxed) {
            return false;
        }
        let before = self.came.fetch_add(bytes, Ordering::Relaxed);
        let beyond = (before + bytes).saturating_sub(ALLOWANCE) - before.saturating_sub(ALLOWANCE);
        if beyond == 0 {
            return true;
        }
        self.held.fetch_add(beyond, Ordering::Relaxed);
        let fits = self.room.hold(beyond);
        self.short.store(!fits, Ordering::Relaxed);
        fits
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.room.held.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

/// How whoever reads a body learns that it came when there was no room for it. In the request's extensions.
#[derive(Clone, Debug)]
pub struct Crowded(pub(super) Arc<Progress>);

impl Crowded {
    pub fn is_true(&self) -> bool {
        self.0.short.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_allowance_is_held_until_the_connection_ends() {
        let room = Arc::new(Room::of(100));
        let of_room = || Progress::within(Arc::clone(&room));
        let (small, one, two) = (of_room(), of_room(), of_room());
        for _ in 0..3 {
            assert!(small.read(ALLOWANCE), "it takes none of the room");
            small.begin();
            assert!(small.end());
        }
        assert!(one.read(ALLOWANCE) && one.read(60) && one.read(40));
        assert_eq!(room.held(), 100);
        assert!(small.read(ALLOWANCE));
        assert!(!two.read(ALLOWANCE + 1) && !two.read(1));
        assert_eq!(room.held(), 101);
        drop(two);
        one.begin();
        assert!(!one.end(), "nothing follows");
        assert_eq!(room.held(), 100);
        drop(one);
        assert_eq!(room.held(), 0);
        assert!(of_room().read(ALLOWANCE + 100));
    }
}
