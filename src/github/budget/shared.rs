//! One budget for all replicas: each tells the others what it has spent, and counts what
//! they have told as if it had spent it itself.

use super::class::CallClass;
use super::{CORE, CallBudget, CredentialId, MINUTE, POINTS_PER_MINUTE, Primary, SAME_RESET};
use crate::fleet::budget::BudgetShare;
use crate::fleet::id::ReplicaId;
use crate::fleet::time::Timestamp;

/// A replica that has not told its share for this long spends nothing any more; what it
/// told counts on to the end of its minute.
const ALIVE_FOR: std::time::Duration = std::time::Duration::from_secs(10);
/// After so many points the others are told at once and not at the next second.
const TELL_AFTER: u32 = 20;
/// What another replica may have spent and not told yet is left free when registrations
/// are planned.
const UNTOLD_POINTS: u32 = TELL_AFTER;
/// Times are told in whole seconds.
const STEP_MS: u64 = 1000;

/// What the other replicas have told.
#[derive(Debug, Default)]
pub(super) struct Others {
    shares: Vec<BudgetShare>,
    /// Points of ours that they have not been told of.
    untold: u32,
    /// They must know at once: GitHub has complained.
    urgent: bool,
}

impl Others {
    pub(super) fn note_spent(&mut self, class: CallClass) {
        self.untold = self.untold.saturating_add(class.points());
    }

    pub(super) fn note_refusal(&mut self) {
        self.urgent = true;
    }

    /// Points of the running minute. A second counts until its end is a minute old.
    pub(super) fn points(&self, now: Timestamp) -> u32 {
        let spent = self.shares.iter().flat_map(|share| &share.spent);
        let counted = spent.filter(|(second, _)| now.0.saturating_sub(second.0) < minute_ms());
        counted.map(|(_, points)| *points).fold(0, u32::saturating_add)
    }

    pub(super) fn blocked_until(&self) -> Option<Timestamp> {
        self.shares.iter().filter_map(|share| share.blocked_until).max()
    }

    /// Replicas that spend beside us.
    pub(super) fn alive(&self, now: Timestamp) -> u32 {
        let alive = self.shares.iter().filter(|share| now.since(share.at) < ALIVE_FOR);
        u32::try_from(alive.count()).unwrap_or(u32::MAX)
    }

    /// Points that may be spent already without our knowing.
    pub(super) fn untold_by_them(&self, now: Timestamp) -> u32 {
        self.alive(now).saturating_mul(UNTOLD_POINTS).min(POINTS_PER_MINUTE)
    }

    /// The lowest share of the minting rate that any of them has been left by GitHub.
    pub(super) fn mint_permille(&self, now: Timestamp) -> u32 {
        let alive = self.shares.iter().filter(|share| now.since(share.at) < ALIVE_FOR);
        alive.map(|share| share.mint_permille).min().unwrap_or(1000)
    }

    /// What GitHub has told them of the primary limit.
    pub(super) fn windows(&self, now: Timestamp) -> impl Iterator<Item = Primary> {
        self.shares.iter().filter_map(move |share| {
            let (limit, remaining, resets_at) = (share.limit?, share.remaining?, share.resets_at?);
            (resets_at > now).then_some(Primary { limit, remaining, resets_at })
        })
    }
}

fn minute_ms() -> u64 {
    u64::try_from(MINUTE.as_millis()).unwrap_or(u64::MAX) + STEP_MS
}

impl CallBudget {
    /// What this replica has spent itself, to be told to the others.
    pub fn share(&mut self, replica: ReplicaId, now: Timestamp) -> BudgetShare {
        self.forget_old(now);
        (self.others.untold, self.others.urgent) = (0, false);
        let mut spent: Vec<(Timestamp, u32)> = Vec::new();
        let landed = self.spent.iter().map(|spent| (spent.at, spent.class));
        let flying = self.in_flight.iter().map(|class| (now, *class));
        for (at, class) in landed.chain(flying) {
            let second = Timestamp(at.0 - at.0 % STEP_MS);
            match spent.last_mut() {
                Some((last, points)) if *last == second => *points += class.points(),
                Some(_) | None => spent.push((second, class.points())),
            }
        }
        let core = self.scarcest_of_ours(now);
        BudgetShare {
            replica,
            at: now,
            spent,
            remaining: core.map(|window| window.remaining),
            limit: core.map(|window| window.limit),
            resets_at: core.map(|window| window.resets_at),
            blocked_until: self.blocked_until.filter(|until| *until > now),
            mint_permille: 1000 >> self.halvings_left(now).min(9),
        }
    }

    /// Takes in what the others have told, in place of what they told before. What the store
    /// has lost of that still counts, and is returned: the others may never have heard it,
    /// and one that is dead cannot say it again.
    pub fn heed(&mut self, shares: Vec<BudgetShare>, now: Timestamp) -> Vec<BudgetShare> {
        let before = std::mem::replace(&mut self.others.shares, shares);
        let lost = before.into_iter().filter(|share| {
            let told = self.others.shares.iter().any(|other| other.replica == share.replica);
            !told && now.since(share.at) < MINUTE
        });
        let lost: Vec<BudgetShare> = lost.collect();
        self.others.shares.extend(lost.iter().cloned());
        lost
    }

    /// Whether the others should be told before the next second.
    #[must_use]
    pub fn is_urgent_to_share(&self) -> bool {
        self.others.urgent || self.others.untold >= TELL_AFTER
    }

    /// The scarcest credential speaks for all: it is the one that stops us first.
    pub(super) fn scarcest_of_ours(&self, now: Timestamp) -> Option<Primary> {
        self.primary
            .iter()
            .filter(|((_, resource), window)| resource == CORE && window.resets_at > now)
            .map(|(_, window)| *window)
            .min_by_key(|window| window.remaining)
    }

    /// Windows of the others that are one of ours, seen by them; or all of them while we
    /// have seen none ourselves.
    pub(super) fn seen_by_others(
        &self,
        credential: Option<CredentialId>,
        now: Timestamp,
    ) -> impl Iterator<Item = Primary> {
        let ours: Vec<Timestamp> = self
            .primary
            .iter()
            .filter(|((whose, resource), window)| {
                resource == CORE
                    && window.resets_at > now
                    && credential.is_none_or(|credential| credential == *whose)
            })
            .map(|(_, window)| window.resets_at)
            .collect();
        self.others.windows(now).filter(move |theirs| {
            ours.is_empty()
                || ours.iter().any(|resets_at| {
                    resets_at.since(theirs.resets_at).max(theirs.resets_at.since(*resets_at))
                        <= SAME_RESET
                })
        })
    }
}

#[cfg(test)]
mod tests;
