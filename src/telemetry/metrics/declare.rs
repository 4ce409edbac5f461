//! Declaring: each metric once, with its name, help and labels.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A metric that cannot be declared: a name used twice, or not a name. It is a mistake
/// in this module.
#[derive(Debug, thiserror::Error)]
#[error("metric {name} could not be declared")]
pub struct MetricsError {
    name: &'static str,
    #[source]
    source: prometheus::Error,
}

/// Declares metrics at a registry.
pub(super) struct Declare<'a> {
    pub(super) registry: &'a Registry,
}

type Labels<'a> = &'a [&'a str];

impl Declare<'_> {
    pub(super) fn gauge(&self, name: &'static str, help: &str) -> Result<IntGauge, MetricsError> {
        self.add(name, IntGauge::new(name, help))
    }

    pub(super) fn gauges(
        &self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
    ) -> Result<IntGaugeVec, MetricsError> {
        self.add(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn float_gauges(
        &self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
    ) -> Result<GaugeVec, MetricsError> {
        self.add(name, GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn counters(
        &self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
    ) -> Result<IntCounterVec, MetricsError> {
        self.add(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histograms(
        &self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
        buckets: &[f64],
    ) -> Result<HistogramVec, MetricsError> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(name, HistogramVec::new(options, labels))
    }

    fn add<C: Collector + Clone + 'static>(
        &self,
        name: &'static str,
        made: Result<C, prometheus::Error>,
    ) -> Result<C, MetricsError> {
        let metric = made.map_err(|source| MetricsError { name, source })?;
        add(self.registry, name, metric.clone())?;
        Ok(metric)
    }
}

pub(super) fn add(
    registry: &Registry,
    name: &'static str,
    metric: impl Collector + 'static,
) -> Result<(), MetricsError> {
    registry.register(Box::new(metric)).map_err(|source| MetricsError { name, source })
}
