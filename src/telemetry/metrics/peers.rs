//! What replicas ask of each other.

use prometheus::IntCounterVec;

use super::Metrics;
use super::declare::{Declare, MetricsError};
use super::label::{PeerForward, PeerRequest};

#[derive(Debug)]
pub(super) struct PeerMetrics {
    received: IntCounterVec,
    sent: IntCounterVec,
}

impl PeerMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        let metrics = Self {
            received: declare.counters(
                "orchestrator_peer_requests_total",
                "Requests that claim to come from another replica, by what became of them.",
                &["outcome"],
            )?,
            sent: declare.counters(
                "orchestrator_peer_forwards_total",
                "Requests forwarded to another replica, by what became of them.",
                &["outcome"],
            )?,
        };
        for outcome in PeerRequest::ALL {
            metrics.received.with_label_values(&[outcome.as_str()]).reset();
        }
        for outcome in PeerForward::ALL {
            metrics.sent.with_label_values(&[outcome.as_str()]).reset();
        }
        Ok(metrics)
    }
}

impl Metrics {
    /// A request that claims to come from another replica.
    pub fn peer_request(&self, outcome: PeerRequest) {
        self.peers.received.with_label_values(&[outcome.as_str()]).inc();
    }

    /// A request forwarded to another replica.
    pub fn peer_forward(&self, outcome: PeerForward) {
        self.peers.sent.with_label_values(&[outcome.as_str()]).inc();
    }
}
