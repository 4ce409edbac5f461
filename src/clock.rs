//! The fourth seam: what time it is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
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

    /// What this machine's own wall clock shows, right or wrong.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// The store's clock showed `time` at the instant `at`. A clock that is not shared
    /// does not care.
    fn heed(&self, _time: Timestamp, _at: Instant) {}

    /// Whether it goes by the store's time. One that never will does from the beginning.
    fn is_told(&self) -> bool {
        true
    }
}

/// The machine's clock, kept steady: read once, then advanced by tokio's monotonic
/// clock, so that a step of the wall clock moves no deadline and a paused test
/// clock moves everything.
#[derive(Debug)]
pub struct SystemClock {
    base: Timestamp,
    started: Instant,
}

impl SystemClock {
    /// Reads the wall clock once.
    #[must_use]
    pub fn new() -> Self {
        Self { base: wall(), started: Instant::now() }
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

#[expect(clippy::disallowed_methods, reason = "this is the clock everybody else asks")]
fn wall() -> Timestamp {
    Timestamp::from_utc(chrono::Utc::now())
}

/// A clock that follows the store's, so that instants of different replicas compare. Until
/// it has been told the store's time it is the machine's, and goes to the store's at once when
/// it is: a process that has not heard the store has stamped nothing that counts, and a clock
/// an hour ahead would make all it is asked look too late. After that it never goes backwards:
/// what it is ahead it loses by running slower.
#[derive(Debug)]
pub struct SharedClock(Mutex<Course>);

/// From an anchor on: one second a second, and the rest of the difference bit by bit.
#[derive(Clone, Copy, Debug)]
struct Course {
    base: Timestamp,
    at: Instant,
    /// What is still to be made up, in milliseconds: positive when the store is ahead.
    behind: i64,
    told: bool,
}

/// Differences are made up slowly: 50 ms a second, so that no age shown or judged jumps.
const PACE: u64 = 20;

impl Course {
    fn now(&self, at: Instant) -> Timestamp {
        let passed = at.saturating_duration_since(self.at);
        let most = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)
            / i64::try_from(PACE).unwrap_or(1);
        let made_up = self.behind.clamp(-most, most);
        let by = Duration::from_millis(made_up.unsigned_abs());
        let steady = self.base + passed;
        if made_up < 0 { steady - by } else { steady + by }
    }
}

impl SharedClock {
    /// Begins with the machine's own time.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(wall())
    }

    /// Begins with this time: for a machine whose clock is modelled.
    #[must_use]
    pub fn starting_at(base: Timestamp) -> Self {
        let at = Instant::now();
        Self(Mutex::new(Course { base, at, behind: 0, told: false }))
    }

    fn course(&self) -> std::sync::MutexGuard<'_, Course> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SharedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        self.course().now(Instant::now())
    }

    fn wall(&self) -> Timestamp {
        wall()
    }

    fn heed(&self, time: Timestamp, at: Instant) {
        let mut course = self.course();
        let now = Instant::now();
        let store = time + now.saturating_duration_since(at);
        let base = if course.told { course.now(now) } else { store };
        *course = Course { base, at: now, behind: difference_ms(store, base), told: true };
    }

    fn is_told(&self) -> bool {
        self.course().told
    }
}

/// How much later `one` is than `other`, in milliseconds.
#[must_use]
pub fn difference_ms(one: Timestamp, other: Timestamp) -> i64 {
    let ahead = i64::try_from(one.since(other).as_millis()).unwrap_or(i64::MAX);
    let behind = i64::try_from(other.since(one).as_millis()).unwrap_or(i64::MAX);
    ahead - behind
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Timestamp = Timestamp(1_800_000_000_000);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_difference_forwards_is_made_up_at_once() {
        let clock = SharedClock::starting_at(BEGAN);
        clock.heed(BEGAN + seconds(100), Instant::now());
        assert_eq!(clock.now(), BEGAN + seconds(100));
        tokio::time::advance(seconds(7)).await;
        assert_eq!(clock.now(), BEGAN + seconds(107));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_difference_backwards_too_and_no_other() {
        let clock = SharedClock::starting_at(BEGAN + seconds(3_600));
        clock.heed(BEGAN, Instant::now());
        assert_eq!(clock.now(), BEGAN);
        tokio::time::advance(seconds(7)).await;
        assert_eq!(clock.now(), BEGAN + seconds(7));
        clock.heed(BEGAN, Instant::now());
        assert_eq!(clock.now(), BEGAN + seconds(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_difference_is_made_up_slowly() {
        let clock = SharedClock::starting_at(BEGAN);
        clock.heed(BEGAN, Instant::now());
        clock.heed(BEGAN + seconds(1), Instant::now());
        tokio::time::advance(seconds(10)).await;
        assert_eq!(clock.now(), BEGAN + Duration::from_millis(10_500));
        tokio::time::advance(seconds(10)).await;
        assert_eq!(clock.now(), BEGAN + seconds(21));
        tokio::time::advance(seconds(10)).await;
        assert_eq!(clock.now(), BEGAN + seconds(31), "and no more than that");
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_goes_backwards() {
        let clock = SharedClock::starting_at(BEGAN);
        clock.heed(BEGAN + seconds(3), Instant::now());
        let began = Instant::now();
        let mut last = clock.now();
        for n in 0..100 {
            let store = BEGAN + began.elapsed();
            if n % 10 == 0 {
                clock.heed(store, Instant::now());
            }
            tokio::time::advance(seconds(1)).await;
            assert!(clock.now() >= last, "{n}");
            last = clock.now();
        }
        assert_eq!(clock.now(), BEGAN + seconds(100), "3 s are lost within a minute or so");
    }
}
