//! The fourth seam: what time it is.

use crate::fleet::time::Timestamp;

/// Tells the shared wall-clock time. Deadlines inside one process use
/// `tokio::time::Instant` instead, which a test can pause.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;
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
