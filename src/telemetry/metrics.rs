//! Every metric, declared once. Labels are names of pools from the configuration and
//! values of enums, never ids, repositories or job names: the number of series depends
//! on the configuration only. Series that will be needed exist from the start, at zero,
//! so that no alert sees one vanish.

mod declare;
mod edges;
mod jobs;
mod label;
mod legacy;
mod pools;
mod process;

use std::collections::BTreeSet;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};

use crate::fleet::id::PoolName;
use crate::fleet::pool::Pool;

use declare::Declare;
pub use declare::MetricsError;
pub use label::{
    DOCKER_OPERATIONS, Dependency, JobResult, LoopName, Outcome, RunnerEnd, RunnerState, StartPhase,
};
pub use pools::PoolNow;
pub use process::HttpRequest;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The label of pools that are not in the configuration any more.
const OTHER_POOL: &str = "other";

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
    /// its end.
    #[must_use]
    pub fn render(&self) -> String {
        let families = self.registry.gather();
        let mut text = TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics could not be written");
            String::new()
        });
        self.append_legacy(&mut text);
        text
    }

    /// A pool's label. Records of pools that were configured once may still come from
    /// running containers; they share one label.
    fn pool_label<'a>(&'a self, pool: &'a PoolName) -> &'a str {
        if self.known_pools.contains(pool) { pool.as_str() } else { OTHER_POOL }
    }
}
