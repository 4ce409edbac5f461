//! The process itself: its version, its loops, its API.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::declare::{Declare, MetricsError};
use super::edges::unix_seconds;
use super::label::{LoopName, Outcome};
use super::{CALL_SECONDS, Metrics};
use crate::fleet::time::Timestamp;

pub(super) fn build_info(declare: &Declare<'_>) -> Result<(), MetricsError> {
    let info = declare.gauges(
        "orchestrator_build_info",
        "Always 1; the version is in the label.",
        &["version"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}

#[derive(Debug)]
pub(super) struct LoopMetrics {
    turns: IntCounterVec,
    duration: HistogramVec,
    success: IntGaugeVec,
}

impl LoopMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        let metrics = Self {
            turns: declare.counters(
                "orchestrator_loop_turns_total",
                "Turns of the loops by outcome.",
                &["loop", "outcome"],
            )?,
            duration: declare.histograms(
                "orchestrator_loop_turn_duration_seconds",
                "How long a turn of a loop took.",
                &["loop"],
                CALL_SECONDS,
            )?,
            success: declare.gauges(
                "orchestrator_loop_last_success_timestamp_seconds",
                "When a turn of the loop last succeeded; 0 = not yet.",
                &["loop"],
            )?,
        };
        for name in LoopName::ALL {
            let _ = metrics.duration.with_label_values(&[name.as_str()]);
            metrics.success.with_label_values(&[name.as_str()]).set(0);
            for outcome in Outcome::ALL {
                metrics.turns.with_label_values(&[name.as_str(), outcome.as_str()]).reset();
            }
        }
        Ok(metrics)
    }
}

#[derive(Debug)]
pub(super) struct HttpMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl HttpMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        Ok(Self {
            requests: declare.counters(
                "orchestrator_http_requests_total",
                "Requests to our API by route template and status.",
                &["method", "route", "status"],
            )?,
            duration: declare.histograms(
                "orchestrator_http_request_duration_seconds",
                "How long requests to our API took until their answer began.",
                &["method", "route"],
                CALL_SECONDS,
            )?,
        })
    }
}

/// One request to our API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpRequest<'a> {
    /// As our routes name it; unknown methods are `other`.
    pub method: &'static str,
    /// The route's template, such as `/api/v1/runners/{id}`, never the path itself.
    pub route: &'a str,
    pub status: u16,
    pub took: Duration,
}

impl Metrics {
    /// A loop made a turn.
    pub fn loop_turn(&self, name: LoopName, outcome: Outcome, took: Duration, now: Timestamp) {
        let name = name.as_str();
        self.loops.turns.with_label_values(&[name, outcome.as_str()]).inc();
        self.loops.duration.with_label_values(&[name]).observe(took.as_secs_f64());
        if outcome == Outcome::Ok {
            self.loops.success.with_label_values(&[name]).set(unix_seconds(now));
        }
    }

    /// Our API answered a request.
    pub fn http_request(&self, request: &HttpRequest<'_>) {
        let status = request.status.to_string();
        let labels = [request.method, request.route, &status];
        self.http.requests.with_label_values(&labels).inc();
        let duration = self.http.duration.with_label_values(&labels[..2]);
        duration.observe(request.took.as_secs_f64());
    }
}
