//! Memory and start of the orchestrator's own process. The modelled GitHub is a process of
//! its own, so that none of it is counted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use runner_orchestrator::cli::demo::child::{Output, Program};
use runner_orchestrator::sim::github::StateReport;
use serde_json::json;
use tokio::time::Instant;

use super::figure::{Figure, Measured, rounded};
use super::real::{EXECUTABLE, Real, on_real_engine};
use super::world::{REPO, TOKEN, in_real_time};

pub(crate) const RSS_IDLE: Figure =
    Figure { name: "rss_idle_mb", limit: 40.0, unit: "MB", measure: idle };
pub(crate) const RSS_1000: Figure =
    Figure { name: "rss_1000_mb", limit: 80.0, unit: "MB", measure: thousand };
pub(crate) const READY: Figure =
    Figure { name: "ready_seconds", limit: 1.0, unit: "s", measure: ready };
