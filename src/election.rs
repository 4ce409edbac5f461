//! Who leads, and who is the agent of a Docker host. A lease with a growing term in the
//! store; whoever holds it gets a [`Leadership`] or an [`Agency`], and nothing that only
//! the leader or the agent may do can be called without one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fleet::id::{HostId, ReplicaId, Term};
use crate::store::{Lease, LeaseKey, Store, StoreError, Topic};

/// The lease lasts this long after its last renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(5);
/// How often it is renewed: five chances before it runs out.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A holder that has not renewed for this long, counted from *sending* the last good
/// renewal, stops by itself, one second before anybody else can start.
pub const SELF_DEMOTION: Duration = Duration::from_secs(4);
/// So much earlier than at the store a lease ends here.
const MARGIN: Duration = LEASE_TTL.saturating_sub(SELF_DEMOTION);
/// Who waits for a lease asks again at least this often, and when it should have run out.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A store that is not heard is listened for again after at least this long.
const DEAF_PAUSE: Duration = Duration::from_millis(100);
/// Those who wait ask at instants of their own inside this span, so that not all of them
/// ask at once.
const SPREAD: Duration = Duration::from_millis(250);

/// A task that has shown no sign of life for this long is stuck: a turn of the lead loop
/// takes milliseconds, and seconds where the store is slow.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The right to decide. Only this module makes one; the store checks its term again.
#[derive(Clone, Debug)]
pub struct Leadership(Hold);

/// The right to change anything on one Docker host, made and checked the same way.
#[derive(Clone, Debug)]
pub struct Agency {
    host: HostId,
    hold: Hold,
}

/// A held lease.
#[derive(Clone, Copy, Debug)]
struct Hold {
    replica: ReplicaId,
    term: Term,
    valid_until: Instant,
}

impl Hold {
    fn holds(&self) -> bool {
        Instant::now() < self.valid_until
    }
}

impl Leadership {
    /// The fencing token.
    #[must_use]
    pub fn term(&self) -> Term {
        self.0.term
    }

    /// Whose right it is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.0.replica
    }

    /// Whether it still holds by this process's own monotonic clock.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.holds()
    }
}

impl Agency {
    /// The host it is about.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The fencing token.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hold.term
    }

    /// Whose right it is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.hold.replica
    }

    /// Whether it still holds by this process's own monotonic clock.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.hold.holds()
    }
}

/// Keeps trying to lead until cancelled, and tells through `leadership` whether this
/// replica does. Gives the lease up on the way out, and as soon as the loop that would do
/// the leader's work is stuck: a leader that does nothing is worse than none.
pub async fn lead(
    store: Arc<dyn Store>,
    replica: ReplicaId,
    leadership: watch::Sender<Option<Leadership>>,
    vitals: Vitals,
    cancel: CancellationToken,
) {
    let campaign = Campaign { store, replica, lease: LeaseKey::Leader, vitals: Some(vitals) };
    let tell = |hold: Option<Hold>| {
        leadership.send_replace(hold.map(Leadership));
    };
    campaign.run(tell, cancel).await;
}

/// Keeps trying to be a host's agent until cancelled, and tells through `agency` whether
/// this replica is. Gives the lease up on the way out.
pub async fn serve(
    store: Arc<dyn Store>,
    replica: ReplicaId,
    host: HostId,
    agency: watch::Sender<Option<Agency>>,
    cancel: CancellationToken,
) {
    let campaign = Campaign { store, replica, lease: LeaseKey::Agent(host), vitals: None };
    let tell = |hold: Option<Hold>| {
        agency.send_replace(hold.map(|hold| Agency { host, hold }));
    };
    campaign.run(tell, cancel).await;
}

/// Signs of life of the two tasks that leading depends on: the one that keeps the lease,
/// and the loop that does the leader's work. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Vitals(Arc<Signs>);

#[derive(Debug, Default)]
struct Signs {
    lease: watch::Sender<Option<Instant>>,
    work: watch::Sender<Option<Instant>>,
    /// Who leaves leading to the others.
    not_to_lead: watch::Sender<BTreeSet<ReplicaId>>,
}

impl Vitals {
    /// The leader's loop has got on with its work.
    pub fn beat(&self) {
        self.0.work.send_replace(Some(Instant::now()));
    }

    /// These replicas leave leading to the others: at once, and until told otherwise.
    pub fn leave_leading(&self, replicas: BTreeSet<ReplicaId>) {
        self.0.not_to_lead.send_if_modified(|before| {
            let moved = *before != replicas;
            *before = replicas;
            moved
        });
    }

    /// What is stuck, for `/livez`. A task that has not begun yet is not.
    ///
    /// # Errors
    /// The stuck task in words.
    pub fn check(&self) -> Result<(), String> {
        let stuck = |last: Option<Instant>| {
            last.map(|at| at.elapsed()).filter(|silence| *silence > STUCK_AFTER)
        };
        if let Some(silence) = stuck(*self.0.lease.borrow()) {
            return Err(format!("the lease task has not turned for {} s", silence.as_secs()));
        }
        if let Some(silence) = stuck(*self.0.work.borrow()) {
            return Err(format!("the lead loop has not turned for {} s", silence.as_secs()));
        }
        Ok(())
    }

    fn work_turns(&self) -> bool {
        self.0.work.borrow().is_some_and(|at| at.elapsed() <= STUCK_AFTER)
    }
}

/// One replica's standing for one lease.
struct Campaign {
    store: Arc<dyn Store>,
    replica: ReplicaId,
    lease: LeaseKey,
    /// Whose work the lease stands for; without, it is kept as long as this task lives.
    vitals: Option<Vitals>,
}

/// What a turn of the campaign came to.
struct Turn {
    hold: Option<Hold>,
    /// When to ask again.
    again: Instant,
    /// The store answered.
    heard: bool,
}

impl Campaign {
    async fn run(self, tell: impl Fn(Option<Hold>), cancel: CancellationToken) {
        let mut leases = self.store.changes(Topic::Leases);
        let mut seen = Term(0);
        let mut hold: Option<Hold> = None;
        let mut again = Instant::now();
        let mut heard = true;
        loop {
            let waits = hold.is_none();
            tokio::select! { biased;
                () = cancel.cancelled() => break,
                () = tokio::time::sleep_until(again) => (),
                Ok(()) = leases.changed(), if waits => (),
                () = self.work_begins(), if waits => (),
                () = self.leads_against(waits) => (),
            }
            self.beat();
            if self.is_to_leave() && hold.is_some() {
                info!(replica.id = %self.replica, "leaving the lead to the other replicas");
            }
            if self.work_turns() && !self.is_to_leave() {
                let turn = self.turn(hold, &mut seen, heard).await;
                (hold, again, heard) = (turn.hold, turn.again, turn.heard);
                tell(hold);
            } else {
                tell(None);
                self.resign(hold.take()).await;
                again = Instant::now() + ASK_EVERY;
            }
        }
        tell(None);
        self.resign(hold).await;
        // A replica that drains for a minute is not stuck because it has given its lease up.
        if let Some(vitals) = &self.vitals {
            vitals.0.lease.send_replace(None);
        }
    }

    async fn resign(&self, hold: Option<Hold>) {
        if let Some(hold) = hold
            && let Err(error) = self.store.release(self.lease, self.replica, hold.term).await
        {
            warn!(error = %error, lease = ?self.lease, "could not release a lease");
        }
    }

    fn beat(&self) {
        if let Some(vitals) = &self.vitals {
            vitals.0.lease.send_replace(Some(Instant::now()));
        }
    }

    fn work_turns(&self) -> bool {
        self.vitals.as_ref().is_none_or(Vitals::work_turns)
    }

    fn is_to_leave(&self) -> bool {
        let leaving = |vitals: &Vitals| vitals.0.not_to_lead.borrow().contains(&self.replica);
        self.vitals.as_ref().is_some_and(leaving)
    }

    /// Ends when this replica is asked to leave leading to others while it holds the lease,
    /// or no longer while it `waits`.
    async fn leads_against(&self, waits: bool) {
        let Some(vitals) = &self.vitals else { return std::future::pending().await };
        let mut leaving = vitals.0.not_to_lead.subscribe();
        let now = leaving.borrow_and_update().contains(&self.replica);
        let ends = |now: bool| now != waits;
        // While it waits and is not asked, its own pace is right.
        if waits && !now {
            return std::future::pending().await;
        }
        if leaving.wait_for(|them| ends(them.contains(&self.replica))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends when the loop that does the work has made its very first turn.
    async fn work_begins(&self) {
        let Some(vitals) = &self.vitals else { return std::future::pending().await };
        let mut work = vitals.0.work.subscribe();
        if work.borrow_and_update().is_some() || work.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn turn(&self, hold: Option<Hold>, seen: &mut Term, heard: bool) -> Turn {
        // What was carried out although its answer was lost may have given us the lease.
        // Taking it blindly whenever it has run out would keep it from everybody for as long
        // as only answers are lost: the store must be heard first.
        if !heard && let Err(error) = self.store.now().await {
            warn!(error = %error, lease = ?self.lease, "the store is not heard");
            let again = Instant::now() + self.spread().max(DEAF_PAUSE);
            return Turn { hold: hold.filter(Hold::holds), again, heard };
        }
        let sent = Instant::now();
        let answer = self.ask(hold, *seen).await;
        let before = hold.map(|hold| hold.term);
        match answer {
            Ok(Lease::Ours { term }) => {
                if before != Some(term) {
                    info!(term = %term, replica.id = %self.replica, lease = ?self.lease, "holding the lease");
                }
                *seen = (*seen).max(term);
                let valid_until = sent + SELF_DEMOTION;
                let hold = Hold { replica: self.replica, term, valid_until };
                Turn { hold: Some(hold), again: sent + RENEW_EVERY, heard: true }
            }
            // We asked before, and the answer was lost. The store has it for no longer than
            // that: until a renewal, which is due now, so do we.
            Ok(Lease::HeldBy { replica, term, expires_in }) if replica == self.replica => {
                info!(term = %term, replica.id = %replica, lease = ?self.lease, "found holding the lease");
                *seen = (*seen).max(term);
                let valid_until = sent + expires_in.saturating_sub(MARGIN);
                let hold = Hold { replica, term, valid_until };
                Turn { hold: Some(hold), again: Instant::now(), heard: true }
            }
            Ok(Lease::HeldBy { replica, term, expires_in }) => {
                *seen = (*seen).max(term);
                if before.is_some() {
                    info!(term = %term, holder = %replica, lease = ?self.lease, "another replica holds the lease");
                }
                let wait = expires_in.min(ASK_EVERY) + self.spread();
                Turn { hold: None, again: Instant::now() + wait, heard: true }
            }
            // Nobody holds it: ask for it at once, with a new term.
            Ok(Lease::Absent) => Turn { hold: None, again: Instant::now(), heard: true },
            Err(error) => {
                warn!(error = %error, lease = ?self.lease, "could not ask for the lease");
                Turn {
                    hold: hold.filter(Hold::holds),
                    again: (sent + RENEW_EVERY).max(Instant::now() + self.spread()),
                    heard: false,
                }
            }
        }
    }

    async fn ask(&self, hold: Option<Hold>, seen: Term) -> Result<Lease, StoreError> {
        match hold {
            Some(hold) => self.store.renew(self.lease, self.replica, hold.term, LEASE_TTL).await,
            None => self.store.acquire(self.lease, self.replica, seen, LEASE_TTL).await,
        }
    }

    /// This replica's own instant inside [`SPREAD`], by its id.
    fn spread(&self) -> Duration {
        let share = u32::try_from(self.replica.0.as_u128() % 1_000).unwrap_or(0);
        SPREAD * share / 1_000
    }
}
