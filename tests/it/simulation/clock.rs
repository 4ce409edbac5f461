//! One process's clock: tokio's paused time from a common start, and ids from the seed.

use std::sync::{Mutex, PoisonError};

use runner_orchestrator::clock::Clock;
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::random::Random;
use tokio::time::Instant;
use uuid::Uuid;

/// When every simulation begins, in milliseconds since 1970.
pub(super) const EPOCH_MS: u64 = 1_767_322_800_000;

#[derive(Debug)]
pub(super) struct SeededClock {
    began: Instant,
    ids: Mutex<Random>,
}

impl SeededClock {
    /// A clock of the world that began at `began`.
    pub(super) fn new(began: Instant, ids: Random) -> Self {
        Self { began, ids: Mutex::new(ids) }
    }

    fn sixteen_bytes(&self) -> [u8; 16] {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let bits = (u128::from(ids.bits()) << 64) | u128::from(ids.bits());
        bits.to_be_bytes()
    }
}

impl Clock for SeededClock {
    fn now(&self) -> Timestamp {
        Timestamp(EPOCH_MS) + self.began.elapsed()
    }

    fn ordered_id(&self) -> Uuid {
        let [bytes @ .., _, _, _, _, _, _] = self.sixteen_bytes();
        uuid::Builder::from_unix_timestamp_millis(self.now().0, &bytes).into_uuid()
    }

    fn random_id(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.sixteen_bytes()).into_uuid()
    }
}
