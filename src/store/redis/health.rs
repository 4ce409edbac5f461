//! How the store is, as far as this replica can tell: whether the last call was answered,
//! whether writes are taken, and which of its settings are dangerous.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::store::{StoreError, StoreHealth};

/// Older servers lack what the scripts need.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Gathers what is known of the store's health.
#[derive(Debug)]
pub(super) struct Health {
    told: watch::Sender<StoreHealth>,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    settings: Vec<String>,
    /// The last write was refused, and why.
    refused: Option<String>,
}

impl Parts {
    fn warnings(&self) -> Vec<String> {
        self.settings.iter().chain(&self.refused).cloned().collect()
    }
}

impl Health {
    pub(super) fn new() -> Self {
        let health =
            StoreHealth { kind: "redis", shared: true, reachable: None, warnings: Vec::new() };
        Self { told: watch::Sender::new(health), parts: Mutex::new(Parts::default()) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<StoreHealth> {
        self.told.subscribe()
    }

    /// The server answered; `wrote` when it took a write that needs memory.
    pub(super) fn answered(&self, wrote: bool) {
        if wrote {
            self.change(|parts| parts.refused = None);
        }
        self.reachable(Ok(()));
    }

    /// No answer, or a refusal; `wrote` when it would have been a write.
    pub(super) fn failed(&self, error: &StoreError, wrote: bool) {
        match error {
            StoreError::Refused { problem, .. } => {
                if wrote {
                    let text = format!("takes no writes: {problem}");
                    self.change(|parts| parts.refused = Some(text));
                }
                self.reachable(Ok(()));
            }
            other => self.reachable(Err(other.to_string())),
        }
    }

    /// What the server tells of itself (`INFO`). Its role is left to the writes: they say it
    /// within a heartbeat, and an old look would go on saying it after a fail-over.
    pub(super) fn looked_at(&self, info: &str) {
        let settings: Vec<String> = shortcomings(info)
            .into_iter()
            .filter(|(setting, _)| *setting != Setting::Role)
            .map(|(_, warning)| warning)
            .collect();
        for warning in &settings {
            let known = self.told.borrow().warnings.contains(warning);
            if !known {
                warn!(warning, "the store's settings are dangerous");
            }
        }
        self.change(|parts| parts.settings = settings);
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let warnings = {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut parts);
            parts.warnings()
        };
        self.told.send_if_modified(|health| {
            let moved = health.warnings != warnings;
            health.warnings = warnings;
            moved
        });
    }

    fn reachable(&self, now: Result<(), String>) {
        self.told.send_if_modified(|health| {
            if health.reachable.as_ref() == Some(&now) {
                return false;
            }
            let was_well = matches!(health.reachable, Some(Ok(())) | None);
            match &now {
                Ok(()) => info!("the store is reachable"),
                Err(problem) if was_well => warn!(problem, "the store is not reachable"),
                Err(_) => (),
            }
            health.reachable = Some(now);
            true
        });
    }
}

/// What of a server's settings is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    Version,
    Eviction,
    Role,
}

/// One field of what `INFO` answers.
pub(super) fn field(info: &str, name: &str) -> Option<String> {
    let value = |line: &'_ str| {
        line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned())
    };
    info.lines().find_map(value)
}

/// What is wrong with the server's settings, each as `problem; what to do`.
pub(super) fn shortcomings(info: &str) -> Vec<(Setting, String)> {
    let mut found = Vec::new();
    if let Some(version) = field(info, "redis_version") {
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        let read = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if read < VERSION_MIN {
            let (major, minor) = VERSION_MIN;
            let text = format!("version {version} is too old; use {major}.{minor} or newer");
            found.push((Setting::Version, text));
        }
    }
    if let Some(policy) = field(info, "maxmemory_policy").filter(|policy| policy != "noeviction") {
        let text = format!(
            "maxmemory-policy is {policy}: leases and assignments may vanish at any time; set \
             it to noeviction"
        );
        found.push((Setting::Eviction, text));
    }
    if field(info, "role").as_deref() == Some("slave") {
        let text = "it is a replica and takes no writes; REDIS_URL must name the master";
        found.push((Setting::Role, text.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_settings_are_named_with_their_remedy() {
        let info = "# Server\r\nredis_version:6.0.16\r\n# Memory\r\n\
                    maxmemory_policy:allkeys-lru\r\n# Replication\r\nrole:slave\r\n";
        let found = shortcomings(info);
        assert_eq!(found.len(), 3);
        assert!(found[0].1.contains("6.0.16 is too old; use 6.2"));
        assert!(found[1].1.contains("allkeys-lru") && found[1].1.contains("noeviction"));
        assert!(found[2].1.contains("master"));
        assert!(found.iter().all(|(_, text)| text.contains("; ")), "readers split there");
    }

    /// A look that fell into a fail-over warned of a replica for a minute after it had
    /// become a master and taken writes again.
    #[test]
    fn a_master_again_is_not_called_a_replica() {
        let health = Health::new();
        let problem = "it is a replica".to_owned();
        health.failed(&StoreError::Refused { action: "recording an intent", problem }, true);
        health.looked_at("redis_version:7.0.15\nmaxmemory_policy:noeviction\nrole:slave\n");
        assert_eq!(health.watch().borrow().warnings, ["takes no writes: it is a replica"]);
        health.answered(true);
        assert!(health.watch().borrow().warnings.is_empty());
    }

    #[test]
    fn a_sound_server_gives_no_warning() {
        let info = "redis_version:7.0.15\nmaxmemory_policy:noeviction\nrole:master\n";
        assert!(shortcomings(info).is_empty());
        assert!(shortcomings("redis_version:10.0.0\n").is_empty());
    }
}
