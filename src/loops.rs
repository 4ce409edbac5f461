//! The three loops that decide and act (observe, lead, host), the two tasks by which replicas
//! know of each other (announce, share), and their common shape: wake by timer or nudge, reread
//! the truth, do the same work whatever woke it. A nudge carries no facts.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::election::Leadership;
use crate::fleet::id::Term;

pub mod announce;
pub mod host;
pub mod lead;
pub mod observe;
pub mod share;

/// A nudge acts at once, then further ones within this time are taken together: a burst
/// of a hundred events is a few turns, and a lone event waits for nothing.
pub const COALESCE: Duration = Duration::from_millis(50);

/// When a loop's next turn begins.
#[derive(Debug)]
pub struct Pace {
    ticks: Interval,
    last: Option<Instant>,
}

/// Why a turn begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    Timer,
    Nudge,
    Cancelled,
}

impl Pace {
    /// A pace with a turn at least every `period`, the first one at once.
    #[must_use]
    pub fn every(period: Duration) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, last: None }
    }

    /// Waits for the next turn: the timer, or a change of any of `nudges`.
    pub async fn next(
        &mut self,
        nudges: &mut [watch::Receiver<u64>],
        cancel: &CancellationToken,
    ) -> Wake {
        let wake = tokio::select! { biased;
            () = cancel.cancelled() => return Wake::Cancelled,
            _ = self.ticks.tick() => Wake::Timer,
            () = any_changed(nudges) => {
                if let Some(last) = self.last {
                    tokio::select! { biased;
                        () = cancel.cancelled() => return Wake::Cancelled,
                        () = tokio::time::sleep_until(last + COALESCE) => (),
                    }
                }
                Wake::Nudge
            }
        };
        // What arrived until now is read by the coming turn.
        for nudge in nudges {
            nudge.mark_unchanged();
        }
        self.last = Some(Instant::now());
        wake
    }
}

/// Ends when leadership is of another term than `known`, or is gone.
pub(crate) async fn another_term(
    leadership: &mut watch::Receiver<Option<Leadership>>,
    known: Option<Term>,
) {
    let is_another = |held: &Option<Leadership>| held.as_ref().map(Leadership::term) != known;
    if leadership.wait_for(is_another).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when any of them changes; a closed channel never does.
async fn any_changed(nudges: &mut [watch::Receiver<u64>]) {
    let waits = nudges.iter_mut().map(|nudge| {
        Box::pin(async move {
            if nudge.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(waits).await;
}
