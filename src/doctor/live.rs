//! What no reading shows: one throw-away runner is registered, GitHub's behaviour is
//! measured on it and compared with what the model assumes, and the runner is deleted
//! again, also when the measurement fails or is interrupted. It never connects, and its
//! label is asked for by no job, so it is never given one.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use uuid::Uuid;

use self::wire::Wire;
use crate::config::{Config, Credentials, DEFAULT_POOL};
use crate::fleet::id::{ClusterMark, HostId, PoolName, RunnerId, RunnerName};
use crate::sim::github::{Assumption, UNVERIFIED};

mod steps;
mod wire;

pub use wire::LiveError;

/// After a call whose outcome is unknown the name is looked up this often, a second
/// apart: the runner list may lag behind.
const LOOKS_WHEN_UNSURE: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is wanted beyond the throw-away runner.
#[derive(Debug, Default)]
pub struct Wishes {
    /// A busy runner to be refused the deletion of, by GitHub's id.
    pub busy_runner: Option<u64>,
    /// Another token for the same scope.
    pub second_token: Option<SecretString>,
}

/// What was measured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Measured {
    pub runner: String,
    pub rows: Vec<Row>,
    /// Why the measurement ended early.
    pub ended_early: Option<String>,
    /// Why the runner may still be registered.
    pub left_behind: Option<String>,
}

/// One behaviour.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    pub what: String,
    /// The row of the model's table, where there is one.
    pub assumption: Option<Assumption>,
    pub assumed: String,
    /// `None`: not measured.
    pub measured: Option<String>,
    pub agrees: Option<bool>,
}

/// What is known of the runner while it is measured on.
#[derive(Debug, Default)]
struct Made {
    /// A call that may have registered or deleted it has no answer yet.
    unsure: bool,
    /// What GitHub said it registered and has not said it deleted.
    ids: Vec<u64>,
}

/// Rows and the runner's state, kept outside of the steps, which may be cut off.
#[derive(Debug, Default)]
struct Notes {
    rows: Mutex<Vec<Row>>,
    made: Mutex<Made>,
    /// Held while a registration is under way.
    minting: tokio::sync::Mutex<()>,
}

/// The throw-away runner.
#[derive(Debug)]
struct Probe {
    name: String,
    /// Mixed case, to see what becomes of it.
    label: String,
    group_id: u64,
}

/// Measures, and takes back what it made. `stop` ends the measurement early.
///
/// # Errors
/// When nothing could be tried: no token, no client.
pub async fn measure(
    config: &Config,
    wishes: Wishes,
    stop: impl Future<Output = ()>,
) -> Result<Measured, LiveError> {
    let Credentials::Token(token) = &config.github.credentials else {
        return Err(LiveError::NoToken);
    };
    let default = PoolName::from(DEFAULT_POOL);
    let pool = config.pools.get(&default).or(config.pools.values().next());
    let pool = pool.ok_or(LiveError::NoPool)?;
    let wire = Wire::new(config.github.api_url.as_str(), &pool.scope, token.clone())?;
    let probe = Probe::new(config, pool.runner_group_id);
    let notes = Notes::default();
    let mut steps = std::pin::pin!(steps::all(&wire, &probe, &wishes, &notes));
    let ended_early = tokio::select! {
        biased;
        () = stop => {
            // A registration under way is not cut off: only its answer tells the id, and
            // the list may not show it for a while. The call has a limit.
            tokio::select! {
                biased;
                _ = &mut steps => (),
                _ = notes.minting.lock() => (),
            }
            Some("interrupted".to_owned())
        }
        done = &mut steps => done.err().map(|error| super::chain(&error)),
    };
    let left_behind = clean_up(&wire, &probe, &notes).await;
    let rows = std::mem::take(&mut *lock(&notes.rows));
    Ok(Measured { runner: probe.name.clone(), rows: completed(rows), ended_early, left_behind })
}

/// Deletes what may be there. Tells why it may still be.
async fn clean_up(wire: &Wire, probe: &Probe, notes: &Notes) -> Option<String> {
    let (mut ids, unsure) = {
        let made = lock(&notes.made);
        (made.ids.clone(), made.unsure)
    };
    let looks = if unsure { LOOKS_WHEN_UNSURE } else { 1 };
    let mut seen = !unsure;
    let mut trouble = None;
    for look in 0..looks {
        if look > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        trouble = None;
        match wire.find(&probe.name).await {
            Ok(found) => ids.extend(found.iter().filter_map(wire::id)),
            Err(error) => trouble = Some(super::chain(&error)),
        }
        ids.sort_unstable();
        ids.dedup();
        seen |= !ids.is_empty();
        let mut refused = Vec::new();
        for id in ids {
            match wire.delete(id).await {
                // Gone, by us or by somebody else.
                Ok(answer) if matches!(answer.status, 200..300 | 404) => {}
                Ok(answer) => {
                    trouble = Some(format!("deletion of runner {id} answered {}", answer.status));
                    refused.push(id);
                }
                Err(error) => {
                    trouble = Some(super::chain(&error));
                    refused.push(id);
                }
            }
        }
        ids = refused;
    }
    let lost = "the answer to its registration was lost, and the list does not show it yet";
    trouble.or_else(|| (!seen).then(|| lost.to_owned()))
}

impl Probe {
    /// A name of the cluster's own shape: should this process be killed before it cleans
    /// up, a running orchestrator of the same name deletes the unclaimed registration.
    fn new(config: &Config, group_id: u64) -> Self {
        let mark = ClusterMark::derive(config.cluster.name.as_deref().unwrap_or("doctor"));
        let runner = RunnerId(Uuid::new_v4());
        let name = RunnerName::compose(&mark, &HostId(Uuid::new_v4()), &runner);
        Self {
            name: name.as_str().to_owned(),
            label: format!("Doctor-Probe-{}", runner.tail()),
            group_id,
        }
    }
}

impl Notes {
    /// A row outside of the model's table.
    fn say(&self, what: &str, assumed: &str, measured: String, agrees: bool) {
        lock(&self.rows).push(Row {
            what: what.to_owned(),
            assumption: None,
            assumed: assumed.to_owned(),
            measured: Some(measured),
            agrees: Some(agrees),
        });
    }

    /// A row of the model's table.
    fn judge(&self, assumption: Assumption, measured: String, agrees: bool) {
        lock(&self.rows).push(Row {
            measured: Some(measured),
            agrees: Some(agrees),
            ..unmeasured(assumption)
        });
    }
}

/// Every row of the model's table is told, also the ones nothing was learned about.
fn completed(mut rows: Vec<Row>) -> Vec<Row> {
    for row in UNVERIFIED {
        if !rows.iter().any(|measured| measured.assumption == Some(row.assumption)) {
            rows.push(unmeasured(row.assumption));
        }
    }
    rows
}

fn unmeasured(assumption: Assumption) -> Row {
    let assumed = UNVERIFIED.iter().find(|row| row.assumption == assumption);
    let name = serde_json::to_value(assumption).unwrap_or_default();
    Row {
        what: name.as_str().unwrap_or_default().replace('_', " "),
        assumption: Some(assumption),
        assumed: assumed.map(|row| row.default).unwrap_or_default().to_owned(),
        measured: None,
        agrees: None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Measured {
    /// Whether the measurement came to its end and nothing stays behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.ended_early.is_none() && self.left_behind.is_none()
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut lines = vec![format!("Measured on the throw-away runner {}", self.runner)];
        let (known, unknown): (Vec<&Row>, Vec<&Row>) =
            self.rows.iter().partition(|row| row.measured.is_some());
        for row in known {
            let mark = if row.agrees == Some(true) { '✓' } else { '!' };
            let measured = row.measured.as_deref().unwrap_or_default();
            lines.push(format!("  {mark} {}: {measured} (assumed: {})", row.what, row.assumed));
        }
        let names: Vec<&str> = unknown.iter().map(|row| row.what.as_str()).collect();
        lines.push(format!("  not measured: {}", names.join(", ")));
        if let Some(why) = &self.ended_early {
            lines.push(format!("  ✗ ended early: {why}"));
        }
        match &self.left_behind {
            Some(why) => {
                lines.push(format!("  ✗ the runner may still be registered: {why}"));
                lines.push("      fix: delete it in GitHub's list of runners".to_owned());
            }
            None => lines.push("  ✓ the runner is deleted again".to_owned()),
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
