//! The fourth seam: what time it is.

use uuid::Uuid;

use crate::fleet::time::Timestamp;

/// Tells the shared wall-clock time. Deadlines inside one process use
/// `tokio::time::Instant` instead, which a test can pause.
///
/// It also makes the ids that are unique by time and chance, so that a simulation with a
/// clock of its own repeats them.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;

    /// An id nobody else makes, ordered by time from its head on.
    fn ordered_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    /// An id nobody else makes, random from its head on.
    fn random_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// The machine's clock, kept steady: read once, then advanced by tokio's monotonic
/// clock, so that a step of the wall clock moves no deadline and a paused test
/// clock moves everything.
#[derive(Debug)]
pub struct SystemClock {
    base: Timestamp,
    started: tokio::time::Instant,
}

impl SystemClock {
    /// Reads the wall clock once.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock everybody else asks")]
    pub fn new() -> Self {
        Self { base: Timestamp::from_utc(chrono::Utc::now()), started: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }
}
