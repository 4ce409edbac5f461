//! What replicas tell each other beside the fleet itself: the store's time, which all go
//! by, and what each has spent of the GitHub budget. Does nothing with a store of one's own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Pace, Wake};
use crate::clock::{Clock, difference_ms};
use crate::fleet::id::ReplicaId;
use crate::github::GitHub;
use crate::store::Store;

/// Shares are told this often; at once when many points were spent or GitHub complained.
const SHARE_EVERY: Duration = Duration::from_secs(1);
/// The store is asked for its time this often: two good clocks part by a second in days.
const TIME_EVERY: Duration = Duration::from_secs(10);
/// Whether the store has told its time by now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A replica that still does not know the time then says so, once.
const TIME_WAITED_FOR: Duration = Duration::from_secs(5);
/// An answer that took longer tells the time too vaguely.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// A wall clock further off the store's than this is worth a warning.
pub const CLOCK_DIFFERENCE_WARNED_MS: i64 = 2_000;

/// What the exchange works with.
pub struct Share {
    pub store: Arc<dyn Store>,
    pub github: Arc<dyn GitHub>,
    pub clock: Arc<dyn Clock>,
    pub replica: ReplicaId,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// Ends as soon as this replica's instants compare with those of the others. Nobody stands
/// for a lease before: what is stamped by a wrong clock would look too late, or would hold
/// its own deadlines up for as long as the clock was ahead.
pub async fn time_is_known(store: &dyn Store, clock: &dyn Clock) {
    while store.health().borrow().shared && !clock.is_told() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Share {
    /// Learns the store's time before anything is stamped with it, if the store answers.
    pub async fn begin(&self) {
        if self.store.health().borrow().shared && !self.ask_time(&mut None).await {
            debug!("the store's time is not known yet");
        }
    }

    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        if !self.store.health().borrow().shared {
            return cancel.cancelled().await;
        }
        let mut asked_at: Option<Instant> = None;
        // Warned of when it becomes too large, not again and again.
        let mut difference = None;
        let (begun, mut waits) = (Instant::now(), true);
        let mut pace = Pace::every(SHARE_EVERY);
        let mut nudges = [self.github.spending()];
        while pace.next(&mut nudges, &cancel).await != Wake::Cancelled {
            if asked_at.is_none_or(|at| at.elapsed() >= TIME_EVERY)
                && self.ask_time(&mut difference).await
            {
                asked_at = Some(Instant::now());
            }
            waits &= !self.clock.is_told();
            if waits && begun.elapsed() > TIME_WAITED_FOR {
                waits = false;
                warn!(
                    limit_ms = ROUND_TRIP_MAX.as_millis(),
                    "the store has not told its time within the limit; until it does, this \
                     replica neither leads nor serves its Docker host"
                );
            }
            self.exchange().await;
        }
    }

    /// Asks the store for its time, and notes by how many milliseconds this machine's wall
    /// clock is later than that. Whether it answered well enough.
    async fn ask_time(&self, last: &mut Option<i64>) -> bool {
        let sent = Instant::now();
        let time = match self.store.now().await {
            Ok(time) => time,
            Err(error) => {
                debug!(error = %error, "could not ask the store for its time");
                return false;
            }
        };
        let took = sent.elapsed();
        if took > ROUND_TRIP_MAX {
            debug!(took_ms = took.as_millis(), "the store answered too late to tell its time");
            return false;
        }
        // It was told somewhere between the question and the answer.
        let at = sent + took / 2;
        let difference = difference_ms(self.clock.wall(), time + at.elapsed());
        self.clock.heed(time, at);
        let before = last.replace(difference);
        let is_off = |ms: i64| ms.abs() > CLOCK_DIFFERENCE_WARNED_MS;
        if is_off(difference) && !before.is_some_and(is_off) {
            warn!(
                difference_ms = difference,
                "this machine's clock and the store's differ; check that both are synchronised"
            );
        }
        true
    }

    async fn exchange(&self) {
        let Some(share) = self.github.share(self.replica) else { return };
        let lost = match self.store.share(share).await {
            Ok(others) => self.github.heed(others),
            Err(error) => return debug!(error = %error, "could not share the budget"),
        };
        for share in lost {
            if let Err(error) = self.store.share(share).await {
                debug!(error = %error, "could not write another's share of the budget back");
            }
        }
    }
}
