//! The budget of GitHub calls: what may be sent now, what has to wait. A pure state
//! machine; the caller passes `now` and serialises access.
//!
//! Two limits are kept at once. The *primary* one is read from the `x-ratelimit-*` headers.
//! The *secondary* one, points per minute, is only documented, so it is counted here over a
//! sliding minute: a call counts from its reservation until one minute after its answer.
//! GitHub counted it somewhere between the two, so that no minute of GitHub's, wherever it
//! begins, holds more than ours. What other replicas have spent counts as well
//! (`budget::shared`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::fleet::budget::Budget;
use crate::fleet::time::Timestamp;

pub use class::{CallClass, CredentialId, Shortage};
pub use limits::{LimitHeaders, Refusal};

mod class;
mod limits;
mod shared;

/// GitHub's secondary limit: points per minute, a read costing 1 and a change 5.
pub const POINTS_PER_MINUTE: u32 = 900;
/// What one reading call costs.
pub const READ_POINTS: u32 = 1;
/// What one changing call costs.
pub const CHANGE_POINTS: u32 = 5;
/// Registrations in one minute when nothing else is spent.
pub const MINTS_PER_MINUTE: u32 = POINTS_PER_MINUTE / CHANGE_POINTS;
/// Calls in flight at once; GitHub allows 100 over all clients of one credential, and
/// we may not be the only one.
pub const CONCURRENT_CALLS_MAX: usize = 60;
/// Points a minute up to which sweeps of quiet repositories may fill the window: half,
/// so that 90 registrations find room at any moment.
pub const SWEEP_POINTS_PER_MINUTE: u32 = POINTS_PER_MINUTE / 2;
/// Points a minute that sweeps keep while busy repositories fill their share, so that a
/// quiet one is never forgotten: 30 repositories a minute.
pub const SWEEP_FLOOR_POINTS: u32 = 60;
/// Up to this many points in the window the sweeps' floor holds; above, it gives way.
pub const SWEEP_FLOOR_CEILING: u32 = 700;

/// The minute of the secondary limit, and half a second for the rounding of two clocks.
pub const MINUTE: Duration = Duration::from_millis(60_500);
/// How long to wait after a secondary limit without `Retry-After` (GitHub's advice).
const BLOCK_FIRST: Duration = Duration::from_secs(60);
/// The longest such wait after repeated refusals; a longer one helps nobody.
const BLOCK_MAX: Duration = Duration::from_secs(900);
/// Without a refusal for this long, the minting rate doubles.
const QUIET: Duration = Duration::from_secs(60);
/// The minting rate is never halved below this: one runner every 12 seconds still
/// tells us when GitHub has become friendly again.
const MINTS_PER_MINUTE_MIN: u32 = 5;
/// Resets this close together are one and the same, told in whole seconds.
const SAME_RESET: Duration = Duration::from_secs(5);
/// Primary-limit windows remembered: one per credential and kind of limit.
const PRIMARY_WINDOWS_MAX: usize = 64;

/// Room that was taken for one call. It must be given back by
/// [`CallBudget::settle`], whatever became of the call.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    class: CallClass,
    credential: CredentialId,
    begun_at: Timestamp,
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// GitHub answered and did not refuse for a limit.
    Answered(LimitHeaders),
    /// GitHub refused because of a limit.
    Limited(LimitHeaders, Refusal),
    /// No answer: it may have been counted all the same.
    Lost,
}

/// The state of the budget.
#[derive(Debug, Default)]
pub struct CallBudget {
    spent: VecDeque<Spent>,
    in_flight: Vec<CallClass>,
    primary: BTreeMap<(CredentialId, String), Primary>,
    blocked_until: Option<Timestamp>,
    /// Refusals in a row that named no time to wait.
    strikes: u32,
    limited_at: Option<Timestamp>,
    halvings: u32,
    /// Since when no refusal lowered the minting rate.
    quiet_since: Timestamp,
    others: shared::Others,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    at: Timestamp,
    class: CallClass,
}

#[derive(Clone, Copy, Debug)]
struct Primary {
    limit: u64,
    remaining: u64,
    resets_at: Timestamp,
}

impl CallBudget {
    /// Takes room for one call, or says why there is none.
    ///
    /// # Errors
    /// The limit that leaves no room for a call of this class.
    pub fn reserve(
        &mut self,
        class: CallClass,
        credential: CredentialId,
        now: Timestamp,
    ) -> Result<Ticket, Shortage> {
        self.forget_old(now);
        self.check_block(now)?;
        self.check_minute(class, now)?;
        self.check_primary(class, credential, now)?;
        self.in_flight.push(class);
        Ok(Ticket { class, credential, begun_at: now })
    }

    /// Whether GitHub told us to wait; asked again when a call leaves its queue.
    ///
    /// # Errors
    /// [`Shortage::Blocked`] while it did.
    pub fn check_block(&self, now: Timestamp) -> Result<(), Shortage> {
        match self.blocked_until.max(self.others.blocked_until()) {
            Some(until) if until > now => Err(Shortage::Blocked { until }),
            Some(_) | None => Ok(()),
        }
    }

    /// Gives a ticket back unused: its call was never sent.
    pub fn cancel(&mut self, ticket: &Ticket) {
        self.land(ticket.class);
    }

    /// Counts a call that has ended and learns from its answer.
    pub fn settle(&mut self, ticket: &Ticket, outcome: &Outcome, now: Timestamp) {
        self.land(ticket.class);
        self.spent.push_back(Spent { at: now, class: ticket.class });
        self.others.note_spent(ticket.class);
        match outcome {
            Outcome::Answered(headers) => {
                self.learn(ticket.credential, headers);
                if self.blocked_until.is_none_or(|until| ticket.begun_at >= until) {
                    self.strikes = 0;
                }
            }
            Outcome::Limited(headers, refusal) => {
                self.learn(ticket.credential, headers);
                self.refused(ticket, headers, *refusal, now);
            }
            Outcome::Lost => (),
        }
    }

    /// The budget as the planner sees it.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Budget {
        let core = self
            .seen_by_others(None, now)
            .chain(self.scarcest_of_ours(now))
            .min_by_key(|window| window.remaining);
        let blocked_until = self.blocked_until.max(self.others.blocked_until());
        let blocked_until = blocked_until.filter(|until| *until > now);
        Budget {
            mints_now: if blocked_until.is_some() { 0 } else { self.mints_now(now) },
            remaining: core.map(|window| window.remaining),
            limit: core.map(|window| window.limit),
            resets_at: core.map(|window| window.resets_at),
            blocked_until,
            points_this_minute: self.points(now),
        }
    }

    fn mints_now(&self, now: Timestamp) -> u32 {
        let used = self.points(now) + self.others.untold_by_them(now);
        let by_points = POINTS_PER_MINUTE.saturating_sub(used) / CHANGE_POINTS;
        let by_rate =
            self.mint_rate(now).saturating_sub(self.count(now, |class| class == CallClass::Mint));
        let by_primary = self
            .primary
            .values()
            .copied()
            .filter(|window| window.resets_at > now)
            .chain(self.seen_by_others(None, now))
            .map(|window| self.primary_room(window, CallClass::Mint))
            .min()
            .map_or(u32::MAX, |room| u32::try_from(room).unwrap_or(u32::MAX));
        by_points.min(by_rate).min(by_primary)
    }

    /// Registrations a minute, after the halvings that have not been outlived. A rate that
    /// GitHub has lowered is for all replicas together.
    fn mint_rate(&self, now: Timestamp) -> u32 {
        let ours = MINTS_PER_MINUTE >> self.halvings_left(now);
        let theirs = MINTS_PER_MINUTE * self.others.mint_permille(now) / 1000;
        let rate = ours.min(theirs).max(MINTS_PER_MINUTE_MIN);
        if rate >= MINTS_PER_MINUTE {
            // The points alone bound it, and those of the others are counted.
            return rate;
        }
        (rate / (1 + self.others.alive(now))).max(1)
    }

    fn check_minute(&self, class: CallClass, now: Timestamp) -> Result<(), Shortage> {
        let points = self.points(now) + class.points();
        let fits = points <= POINTS_PER_MINUTE - class.minute_reserve()
            || (class == CallClass::Sweep
                && points <= SWEEP_FLOOR_CEILING
                && self.count(now, |class| class == CallClass::Sweep) < SWEEP_FLOOR_POINTS);
        if !fits {
            return Err(Shortage::MinutePoints);
        }
        let minted = self.count(now, |class| class == CallClass::Mint);
        if class == CallClass::Mint && minted >= self.mint_rate(now) {
            return Err(Shortage::MintRate);
        }
        Ok(())
    }

    fn check_primary(
        &self,
        class: CallClass,
        credential: CredentialId,
        now: Timestamp,
    ) -> Result<(), Shortage> {
        let short = self.primary.iter().any(|((whose, resource), window)| {
            // Other resources than `core` are registrations' own limit.
            let concerns = resource == CORE || class == CallClass::Mint;
            *whose == credential
                && concerns
                && window.resets_at > now
                && self.primary_room(*window, class) == 0
        });
        let short = short
            || self
                .seen_by_others(Some(credential), now)
                .any(|window| self.primary_room(window, class) == 0);
        if short { Err(Shortage::PrimaryPoints) } else { Ok(()) }
    }

    /// Calls of the class that the window still holds, with those in flight taken off.
    fn primary_room(&self, window: Primary, class: CallClass) -> u64 {
        let reserve = window.limit * class.primary_reserve_permille() / 1000;
        let in_flight = u64::try_from(self.in_flight.len()).unwrap_or(u64::MAX);
        window.remaining.saturating_sub(reserve).saturating_sub(in_flight)
    }

    fn learn(&mut self, credential: CredentialId, headers: &LimitHeaders) {
        let (Some(limit), Some(remaining), Some(resets_at)) =
            (headers.limit, headers.remaining, headers.resets_at)
        else {
            return;
        };
        let key = (credential, headers.resource.clone().unwrap_or_else(|| CORE.to_owned()));
        let fresh = Primary { limit, remaining, resets_at };
        if !self.primary.contains_key(&key) && self.primary.len() >= PRIMARY_WINDOWS_MAX {
            return;
        }
        let known = self.primary.entry(key).or_insert(fresh);
        if resets_at > known.resets_at + SAME_RESET {
            *known = fresh;
        } else if known.resets_at <= resets_at + SAME_RESET {
            // Answers overtake each other; within one window the least is the latest.
            known.remaining = known.remaining.min(remaining);
        }
    }

    fn refused(
        &mut self,
        ticket: &Ticket,
        headers: &LimitHeaders,
        refusal: Refusal,
        now: Timestamp,
    ) {
        self.others.note_refusal();
        // Calls that were under way when the first refusal came tell nothing new.
        let known = self.limited_at.is_some_and(|at| ticket.begun_at <= at);
        if !known {
            self.limited_at = Some(now);
            self.halvings = self.halvings_left(now) + 1;
            self.strikes += 1;
        }
        let until = match (headers.retry_after, refusal, headers.resets_at) {
            (Some(wait), _, _) => now + wait,
            // The window of this credential is now empty, which stops its calls alone.
            (None, Refusal::Primary, Some(resets_at)) if resets_at > now => now,
            (None, Refusal::Primary | Refusal::Secondary, _) => {
                let doubled = BLOCK_FIRST * 2_u32.saturating_pow(self.strikes.clamp(1, 8) - 1);
                now + doubled.min(BLOCK_MAX)
            }
        };
        self.blocked_until = self.blocked_until.max(Some(until));
        self.quiet_since = until.max(now);
    }

    fn halvings_left(&self, now: Timestamp) -> u32 {
        let recovered = now.since(self.quiet_since).as_secs() / QUIET.as_secs();
        self.halvings.saturating_sub(u32::try_from(recovered).unwrap_or(u32::MAX)).min(16)
    }

    fn land(&mut self, class: CallClass) {
        if let Some(at) = self.in_flight.iter().position(|other| *other == class) {
            self.in_flight.swap_remove(at);
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        while self.spent.front().is_some_and(|spent| now.since(spent.at) >= MINUTE) {
            self.spent.pop_front();
        }
        self.primary.retain(|_, window| window.resets_at > now);
    }

    fn counted(&self, now: Timestamp) -> impl Iterator<Item = CallClass> {
        let landed = self.spent.iter().filter(move |spent| now.since(spent.at) < MINUTE);
        self.in_flight.iter().copied().chain(landed.map(|spent| spent.class))
    }

    fn points(&self, now: Timestamp) -> u32 {
        let ours: u32 = self.counted(now).map(CallClass::points).sum();
        ours.saturating_add(self.others.points(now))
    }

    fn count(&self, now: Timestamp, which: impl Fn(CallClass) -> bool) -> u32 {
        u32::try_from(self.counted(now).filter(|class| which(*class)).count()).unwrap_or(u32::MAX)
    }
}

/// The limit that nearly all calls count against.
const CORE: &str = "core";

#[cfg(test)]
mod tests;
