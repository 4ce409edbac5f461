//! Every metric, declared once. Labels are names of pools from the configuration and
//! values of enums, never ids, repositories or job names: the number of series depends
//! on the configuration only. Series that will be needed exist from the start, at zero,
//! so that no alert sees one vanish.

pub mod cluster;
mod declare;
mod edges;
mod jobs;
mod label;
mod legacy;
mod peers;
mod pools;
mod process;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};

use crate::fleet::id::PoolName;
use crate::fleet::pool::Pool;

use declare::Declare;
pub use declare::MetricsError;
pub use label::{
    DOCKER_OPERATIONS, Dependency, JobResult, LoopName, Outcome, PeerForward, PeerRequest,
    RunnerEnd, RunnerState, StartPhase,
};
pub use pools::PoolNow;
pub use process::HttpRequest;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The label of pools that are not in the configuration any more.
const OTHER_POOL: &str = "other";

/// About the whole fleet, by the leader's own knowledge.
const LEADER_ONLY: &[&str] = &[
    "orchestrator_breaker_active",
    "orchestrator_decisions_total",
    "orchestrator_foreign_runners",
    "orchestrator_jobs_queued",
    "orchestrator_jobs_unmatched",
    "orchestrator_oldest_queued_job_age_seconds",
    "orchestrator_runners",
    "orchestrator_runners_desired",
    "orchestrator_runners_max",
    "orchestrator_runners_min",
];

/// Calls and turns take up to their timeouts.
const CALL_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The metrics of this process, with a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    known_pools: BTreeSet<PoolName>,
    pools: pools::PoolMetrics,
    jobs: jobs::JobMetrics,
    github: edges::GitHubMetrics,
    docker: edges::DockerMetrics,
    loops: process::LoopMetrics,
    http: process::HttpMetrics,
    peers: peers::PeerMetrics,
    leads: AtomicBool,
}

impl Metrics {
    /// Declares every metric, with the series of these pools and reasons at zero.
    ///
    /// # Errors
    /// Only by a mistake in this module; a test makes it once.
    pub fn new<'a>(
        pools: impl IntoIterator<Item = &'a Pool>,
        reasons: &[&'static str],
    ) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        declare::add(&registry, "process", ProcessCollector::for_self())?;
        let declare = Declare { registry: &registry };
        process::build_info(&declare)?;
        let mut metrics = Self {
            known_pools: BTreeSet::new(),
            pools: pools::PoolMetrics::declare(&declare)?,
            jobs: jobs::JobMetrics::declare(&declare)?,
            github: edges::GitHubMetrics::declare(&declare)?,
            docker: edges::DockerMetrics::declare(&declare)?,
            loops: process::LoopMetrics::declare(&declare)?,
            http: process::HttpMetrics::declare(&declare)?,
            peers: peers::PeerMetrics::declare(&declare)?,
            leads: AtomicBool::new(false),
            registry: registry.clone(),
        };
        for pool in pools {
            metrics.known_pools.insert(pool.name.clone());
            metrics.pools.start_at_zero(pool, reasons);
            metrics.jobs.start_at_zero(&pool.name);
        }
        Ok(metrics)
    }

    /// The text for Prometheus, format 0.0.4, with the names of the Python original at
    /// its end. What only a leader knows is left out while this replica does not lead.
    #[must_use]
    pub fn render(&self) -> String {
        let leads = self.leads.load(Ordering::Relaxed);
        let mut families = self.registry.gather();
        families.retain(|family| leads || !LEADER_ONLY.contains(&family.name()));
        let mut text = TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics could not be written");
            String::new()
        });
        self.append_legacy(&mut text, leads);
        text
    }

    /// Whether this replica leads now: what only a leader knows is shown while it does, so
    /// that nobody adds up what several replicas say of the same queue.
    pub fn leading(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// A pool's label. Records of pools that were configured once may still come from
    /// running containers; they share one label.
    fn pool_label<'a>(&'a self, pool: &'a PoolName) -> &'a str {
        if self.known_pools.contains(pool) { pool.as_str() } else { OTHER_POOL }
    }
}
