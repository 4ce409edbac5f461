//! GitHub's rate limits, enforced: primary by the hour, secondary by the minute,
//! open requests, and content-creating requests when that is switched on.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::unverified::Assumption;

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
/// Accounts whose use is remembered; the tests' largest fleets have a few.
const ACCOUNTS_MAX: usize = 10_000;

/// How often a client asked for more than GitHub allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitCrossings {
    /// Requests above the hourly limit.
    pub primary: u64,
    /// Requests above the points of a minute or the open requests.
    pub secondary: u64,
    /// Content-creating requests above their limit.
    pub content: u64,
}

/// Which limit a request crossed, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crossed {
    Primary,
    Secondary { retry_after_s: u64 },
}

/// What a request costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Secondary points: 1 to read, 5 to change.
    pub(crate) points: u32,
    /// Counts as content creation.
    pub(crate) content: bool,
    /// `GET /rate_limit` does not count against the primary limit.
    pub(crate) primary_free: bool,
}

/// The state of an account's primary limit, as the headers tell it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) limit: u32,
    pub(crate) used: u32,
    pub(crate) reset_s: u64,
}

impl Standing {
    pub(crate) fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

#[derive(Default)]
struct Account {
    used: u32,
    reset_ms: u64,
    recent: VecDeque<(u64, u32)>,
    recent_points: u32,
    content: VecDeque<u64>,
    open: u32,
}

/// Every account's use.
#[derive(Default)]
pub(crate) struct Limits {
    accounts: HashMap<String, Account>,
    pub(crate) crossings: LimitCrossings,
}

impl Limits {
    /// Lets a request in, or says which limit it crosses. What is let in must be
    /// given back by [`Limits::leave`].
    pub(crate) fn enter(
        &mut self,
        now: u64,
        account: &str,
        primary_limit: u32,
        cost: Cost,
        settings: &Settings,
    ) -> Result<(), Crossed> {
        if self.accounts.len() >= ACCOUNTS_MAX {
            self.accounts.retain(|_, account| account.open > 0);
        }
        let calendar = settings.hostile.hostile(Assumption::SecondaryWindow);
        let account = self.accounts.entry(account.to_owned()).or_default();
        account.roll(now, calendar);
        if !cost.primary_free && account.used >= primary_limit {
            self.crossings.primary += 1;
            return Err(Crossed::Primary);
        }
        let points_max = settings.secondary_points_per_minute;
        let over_points = points_max > 0 && account.recent_points + cost.points > points_max;
        if over_points || account.open >= settings.concurrent_max {
            self.crossings.secondary += 1;
            return Err(Crossed::Secondary { retry_after_s: account.wait_s(now, calendar) });
        }
        let content_max = settings.content_per_minute.unwrap_or(u32::MAX) as usize;
        if cost.content && account.content.len() >= content_max {
            self.crossings.content += 1;
            return Err(Crossed::Secondary { retry_after_s: account.wait_s(now, calendar) });
        }
        account.recent.push_back((now, cost.points));
        account.recent_points += cost.points;
        if cost.content {
            account.content.push_back(now);
        }
        account.open += 1;
        // Counted at once and given back when free, so that parallel requests
        // cannot slip over the limit.
        account.used += 1;
        Ok(())
    }

    /// Ends a request that was let in; `free` when it used no primary point.
    pub(crate) fn leave(&mut self, account: &str, free: bool) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.open = account.open.saturating_sub(1);
            account.used = account.used.saturating_sub(u32::from(free));
        }
    }

    /// What the rate headers say of an account.
    pub(crate) fn standing(&self, now: u64, account: &str, limit: u32) -> Standing {
        match self.accounts.get(account).filter(|account| now < account.reset_ms) {
            Some(account) => {
                Standing { limit, used: account.used, reset_s: account.reset_ms / 1_000 }
            }
            None => Standing { limit, used: 0, reset_s: (now + HOUR_MS) / 1_000 },
        }
    }
}

impl Account {
    /// Forgets what has left its window.
    fn roll(&mut self, now: u64, calendar: bool) {
        if now >= self.reset_ms {
            self.used = 0;
            // Whole seconds, so that the header names the very moment.
            self.reset_ms = (now + HOUR_MS) / 1_000 * 1_000;
        }
        let gone = |at: u64| {
            if calendar { at / MINUTE_MS < now / MINUTE_MS } else { at + MINUTE_MS <= now }
        };
        while let Some((_, points)) = self.recent.front().copied().filter(|(at, _)| gone(*at)) {
            self.recent_points -= points;
            self.recent.pop_front();
        }
        while self.content.front().is_some_and(|at| gone(*at)) {
            self.content.pop_front();
        }
    }

    /// Seconds until the oldest request leaves the window, at least one.
    fn wait_s(&self, now: u64, calendar: bool) -> u64 {
        let oldest = self.recent.front().map_or(now, |(at, _)| *at);
        let until = if calendar { (now / MINUTE_MS + 1) * MINUTE_MS } else { oldest + MINUTE_MS };
        until.saturating_sub(now).div_ceil(1_000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Cost = Cost { points: 1, content: false, primary_free: false };
    const WRITE: Cost = Cost { points: 5, content: true, primary_free: false };

    fn full(limits: &mut Limits, now: u64, cost: Cost, settings: &Settings) -> Option<Crossed> {
        let entered = limits.enter(now, "a", 5_000, cost, settings);
        if entered.is_ok() {
            limits.leave("a", false);
        }
        entered.err()
    }

    #[test]
    fn nine_hundred_points_in_any_sixty_seconds() {
        let (mut limits, settings) = (Limits::default(), Settings::default());
        for turn in 0..180 {
            assert_eq!(full(&mut limits, 1_000 + turn, WRITE, &settings), None);
        }
        assert_eq!(
            full(&mut limits, 2_000, READ, &settings),
            Some(Crossed::Secondary { retry_after_s: 59 })
        );
        assert_eq!(full(&mut limits, 61_000, WRITE, &settings), None);
        assert!(full(&mut limits, 61_000, READ, &settings).is_some());
        assert_eq!(limits.crossings, LimitCrossings { primary: 0, secondary: 2, content: 0 });
    }

    #[test]
    fn a_primary_limit_resets_after_an_hour() {
        let (mut limits, settings) = (Limits::default(), Settings::default());
        let ask = |limits: &mut Limits, now| {
            let entered = limits.enter(now, "a", 2, READ, &settings);
            if entered.is_ok() {
                limits.leave("a", false);
            }
            entered
        };
        assert_eq!(ask(&mut limits, 5_000), Ok(()));
        assert_eq!(ask(&mut limits, 5_001), Ok(()));
        assert_eq!(ask(&mut limits, 5_002), Err(Crossed::Primary));
        let standing = limits.standing(5_002, "a", 2);
        assert_eq!((standing.remaining(), standing.reset_s), (0, 3_605));
        assert_eq!(ask(&mut limits, standing.reset_s * 1_000), Ok(()));
    }

    #[test]
    fn open_requests_and_content_are_limited() {
        let mut limits = Limits::default();
        let settings =
            Settings { concurrent_max: 2, content_per_minute: Some(1), ..Settings::default() };
        assert!(limits.enter(0, "a", 9, READ, &settings).is_ok());
        assert!(limits.enter(0, "a", 9, READ, &settings).is_ok());
        assert!(limits.enter(0, "a", 9, READ, &settings).is_err());
        limits.leave("a", true);
        assert!(limits.enter(0, "a", 9, WRITE, &settings).is_ok());
        limits.leave("a", false);
        assert!(limits.enter(0, "a", 9, WRITE, &settings).is_err());
        assert_eq!(limits.crossings, LimitCrossings { primary: 0, secondary: 1, content: 1 });
    }
}
