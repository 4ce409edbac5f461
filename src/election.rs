//! Who leads. A lease with a growing term in the store; whoever holds it gets a
//! [`Leadership`], and nothing leader-only can be called without one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::id::{ReplicaId, Term};
use crate::store::{Lease, Store};

/// The lease lasts this long after its last renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(5);
/// How often it is renewed: five chances before it runs out.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A leader that has not renewed for this long, counted from *sending* the last good
/// renewal, stops leading by itself, one second before anybody else can start.
pub const SELF_DEMOTION: Duration = Duration::from_secs(4);

/// The right to decide. Only this module makes one; the store checks its term again.
#[derive(Clone, Debug)]
pub struct Leadership {
    replica: ReplicaId,
    term: Term,
    valid_until: Instant,
}

impl Leadership {
    /// The fencing token.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whose right it is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Whether it still holds by this process's own monotonic clock.
    #[must_use]
    pub fn holds(&self) -> bool {
        Instant::now() < self.valid_until
    }
}

/// Keeps trying for the lease until cancelled, and tells through `leadership` whether
/// this replica leads. Gives the lease up on the way out.
pub async fn run(
    store: Arc<dyn Store>,
    replica: ReplicaId,
    leadership: watch::Sender<Option<Leadership>>,
    cancel: CancellationToken,
) {
    let mut held: Option<Term> = None;
    let mut seen = Term(0);
    let mut ticks = tokio::time::interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            _ = ticks.tick() => (),
        }
        let sent = Instant::now();
        let answer = match held {
            Some(term) => store.renew(replica, term, LEASE_TTL).await,
            None => store.acquire(replica, seen, LEASE_TTL).await,
        };
        match answer {
            Ok(Lease::Ours { term }) => {
                if held != Some(term) {
                    info!(term = %term, replica.id = %replica, "leading");
                }
                held = Some(term);
                seen = seen.max(term);
                let valid_until = sent + SELF_DEMOTION;
                leadership.send_replace(Some(Leadership { replica, term, valid_until }));
            }
            Ok(Lease::HeldBy { term, .. }) => {
                seen = seen.max(term);
                if held.take().is_some() {
                    info!(term = %term, "another replica leads");
                }
                leadership.send_replace(None);
            }
            Ok(Lease::Absent) => {
                held = None;
                leadership.send_replace(None);
                ticks.reset_immediately();
            }
            Err(error) => {
                warn!(error = %error, "could not renew the lease");
                let expired = leadership.borrow().as_ref().is_some_and(|l| !l.holds());
                if expired {
                    held = None;
                    leadership.send_replace(None);
                }
            }
        }
    }
    leadership.send_replace(None);
    if let Some(term) = held
        && let Err(error) = store.release(replica, term).await
    {
        warn!(error = %error, "could not release the lease");
    }
}
