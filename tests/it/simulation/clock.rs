//! One machine's clock, right or wrong, which follows the store's; and ids from the seed.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runner_orchestrator::clock::{Clock, SharedClock};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::random::Random;
use tokio::time::Instant;
use uuid::Uuid;

/// When every simulation begins, in milliseconds since 1970.
pub(super) const EPOCH_MS: u64 = 1_767_322_800_000;

/// A wall clock that shows `off_ms` more than the time, in tokio's paused time.
#[derive(Debug)]
pub(super) struct SeededClock {
    course: SharedClock,
    began: Instant,
    off_ms: AtomicI64,
    ids: Mutex<Random>,
}

impl SeededClock {
    /// A right clock of the world that began at `began`.
    pub(super) fn new(began: Instant, ids: Random) -> Self {
        Self::off(began, 0, ids)
    }

    /// One that is wrong when its process starts: ahead by so much, or behind.
    pub(super) fn off(began: Instant, off_ms: i64, ids: Random) -> Self {
        let course = SharedClock::starting_at(shown(began, off_ms));
        Self { course, began, off_ms: AtomicI64::new(off_ms), ids: Mutex::new(ids) }
    }

    /// Somebody sets the machine's clock.
    pub(super) fn set_off(&self, off_ms: i64) {
        self.off_ms.store(off_ms, Ordering::Relaxed);
    }

    fn sixteen_bytes(&self) -> [u8; 16] {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = (u128::from(ids.bits()) << 64) | u128::from(ids.bits());
        bits.to_be_bytes()
    }
}

impl Clock for SeededClock {
    fn now(&self) -> Timestamp {
        self.course.now()
    }

    fn wall(&self) -> Timestamp {
        shown(self.began, self.off_ms.load(Ordering::Relaxed))
    }

    fn heed(&self, time: Timestamp, at: Instant) {
        self.course.heed(time, at);
    }

    fn is_told(&self) -> bool {
        self.course.is_told()
    }

    fn ordered_id(&self) -> Uuid {
        let [bytes @ .., _, _, _, _, _, _] = self.sixteen_bytes();
        uuid::Builder::from_unix_timestamp_millis(self.now().0, &bytes).into_uuid()
    }

    fn random_id(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.sixteen_bytes()).into_uuid()
    }
}

fn shown(began: Instant, off_ms: i64) -> Timestamp {
    let off = Duration::from_millis(off_ms.unsigned_abs());
    let right = Timestamp(EPOCH_MS) + began.elapsed();
    if off_ms < 0 { right - off } else { right + off }
}
