//! What can be changed while the model runs, and its defaults.

use serde::{Deserialize, Serialize};

use super::unverified::Variants;

/// The model's current settings, as `GET /_sim/state` shows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Primary limit of a personal token, requests an hour.
    pub primary_limit: u32,
    /// Primary limit of an installation; absent: 5,000 and 50 for each repository above 20.
    pub app_primary_limit: Option<u32>,
    /// Secondary limit, points in any 60 seconds; 0 switches it off.
    pub secondary_points_per_minute: u32,
    /// Requests one account may have open at a time.
    pub concurrent_max: u32,
    /// Content-creating (POST) requests in any 60 seconds; absent: not limited.
    pub content_per_minute: Option<u32>,
    /// A busy runner that was silent this long has lost its job.
    pub lost_after_ms: u64,
    /// A job that was assigned but not started this long is queued again.
    pub pickup_deadline_ms: u64,
    /// An idle runner whose last poll ended this long ago is offline.
    pub offline_after_ms: u64,
    /// A job queued this long fails.
    pub queued_max_ms: u64,
    /// Age of what the runner list shows.
    pub stale_seconds: u64,
    /// Whether the default runner group takes jobs of public repositories.
    pub group_allows_public: bool,
    /// Base URL the JIT configuration names; absent: the `Host` of the minting request.
    pub runner_url: Option<String>,
    /// Whether runs, their jobs and repositories are shown without the links and the nested
    /// repositories that GitHub adds to each: most of an answer's size. A simulation that
    /// reads thousands of them asks for what its client reads.
    pub brief: bool,
    /// Which UNVERIFIED assumptions are switched to their hostile variant.
    pub hostile: Variants,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            primary_limit: 5_000,
            app_primary_limit: None,
            secondary_points_per_minute: 900,
            concurrent_max: 100,
            content_per_minute: None,
            lost_after_ms: 600_000,
            pickup_deadline_ms: 60_000,
            offline_after_ms: 15_000,
            queued_max_ms: 24 * 3_600_000,
            stale_seconds: 0,
            group_allows_public: false,
            runner_url: None,
            brief: false,
            hostile: Variants::default(),
        }
    }
}

/// The list GitHub serves is at most about a minute old.
pub(crate) const STALE_SECONDS_MAX: u64 = 60;

/// A change of [`Settings`]: what is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`Settings::primary_limit`].
    pub primary_limit: Option<u32>,
    /// See [`Settings::app_primary_limit`].
    pub app_primary_limit: Option<u32>,
    /// See [`Settings::secondary_points_per_minute`].
    pub secondary_points_per_minute: Option<u32>,
    /// See [`Settings::concurrent_max`].
    pub concurrent_max: Option<u32>,
    /// See [`Settings::content_per_minute`]; 0 switches it off.
    pub content_per_minute: Option<u32>,
    /// Seconds, see [`Settings::lost_after_ms`].
    pub lost_after_seconds: Option<f64>,
    /// Seconds, see [`Settings::pickup_deadline_ms`].
    pub pickup_deadline_seconds: Option<f64>,
    /// Seconds, see [`Settings::offline_after_ms`].
    pub offline_after_seconds: Option<f64>,
    /// Seconds, see [`Settings::queued_max_ms`].
    pub queued_max_seconds: Option<f64>,
    /// See [`Settings::stale_seconds`]; at most 60.
    pub stale_seconds: Option<u64>,
    /// See [`Settings::group_allows_public`].
    pub group_allows_public: Option<bool>,
    /// See [`Settings::runner_url`].
    pub runner_url: Option<String>,
    /// Names of all assumptions that shall be hostile from now on.
    pub hostile: Option<Variants>,
}

impl Settings {
    /// Takes over every value the patch names.
    pub(crate) fn apply(&mut self, patch: &SettingsPatch) {
        set(&mut self.primary_limit, patch.primary_limit);
        set(&mut self.secondary_points_per_minute, patch.secondary_points_per_minute);
        set(&mut self.concurrent_max, patch.concurrent_max);
        set(&mut self.lost_after_ms, patch.lost_after_seconds.map(seconds_to_ms));
        set(&mut self.pickup_deadline_ms, patch.pickup_deadline_seconds.map(seconds_to_ms));
        set(&mut self.offline_after_ms, patch.offline_after_seconds.map(seconds_to_ms));
        set(&mut self.queued_max_ms, patch.queued_max_seconds.map(seconds_to_ms));
        set(&mut self.stale_seconds, patch.stale_seconds.map(|s| s.min(STALE_SECONDS_MAX)));
        set(&mut self.group_allows_public, patch.group_allows_public);
        set(&mut self.hostile, patch.hostile.clone());
        if patch.app_primary_limit.is_some() {
            self.app_primary_limit = patch.app_primary_limit;
        }
        if let Some(limit) = patch.content_per_minute {
            self.content_per_minute = (limit > 0).then_some(limit);
        }
        if patch.runner_url.is_some() {
            self.runner_url.clone_from(&patch.runner_url);
        }
    }

    /// How often a running job shall be renewed, so that a vanished runner is noticed in time.
    pub(crate) fn renew_ms(&self) -> u64 {
        (self.lost_after_ms / 3).clamp(250, 10_000)
    }
}

/// Seconds of a control request as milliseconds; what is no time at all becomes 0.
pub(crate) fn seconds_to_ms(seconds: f64) -> u64 {
    let duration = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
    crate::sim::clock::millis(duration)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
