//! One machine's clock, right or wrong, which follows the store's; and ids from the seed.

use std::sync::{Mutex, PoisonError};

use runner_orchestrator::clock::{Clock, SharedClock};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::random::Random;
use tokio::time::Instant;
use uuid::Uuid;

/// When every simulation begins, in milliseconds since 1970.
pub(super) const EPOCH_MS: u64 = 1_767_322_800_000;

/// A wall clock that shows `wall_ahead_ms` more than the time, in tokio's paused time.
#[derive(Debug)]
pub(super) struct SeededClock {
    course: SharedClock,
    began: Instant,
    wall_ahead_ms: u64,
    ids: Mutex<Random>,
}

impl SeededClock {
    /// A right clock of the world that began at `began`.
    pub(super) fn new(began: Instant, ids: Random) -> Self {
        Self::ahead(began, 0, ids)
    }

    /// One that is ahead when its process starts.
    pub(super) fn ahead(began: Instant, wall_ahead_ms: u64, ids: Random) -> Self {
        let now = Timestamp(EPOCH_MS + wall_ahead_ms) + began.elapsed();
        let course = SharedClock::starting_at(now);
        Self { course, began, wall_ahead_ms, ids: Mutex::new(ids) }
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
        Timestamp(EPOCH_MS + self.wall_ahead_ms) + self.began.elapsed()
    }

    fn heed(&self, time: Timestamp, at: Instant) {
        self.course.heed(time, at);
    }

    fn ordered_id(&self) -> Uuid {
        let [bytes @ .., _, _, _, _, _, _] = self.sixteen_bytes();
        uuid::Builder::from_unix_timestamp_millis(self.now().0, &bytes).into_uuid()
    }

    fn random_id(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.sixteen_bytes()).into_uuid()
    }
}
