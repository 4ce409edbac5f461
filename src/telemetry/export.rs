//! Sends spans to a collector, by OTLP over HTTP.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, TraceContextExt, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SamplingDecision, SamplingResult, SdkTracerProvider,
    ShouldSample, SpanData, SpanExporter,
};
use secrecy::ExposeSecret;
use tracing::{info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};

use super::filter::{OUR_TARGET, is_our_span};
use super::trace::{LIFE_BEGAN, root_span_id};
use super::{BoxedLayer, OwnDispatch, TelemetryError};
use crate::config::TracesConfig;

/// Spans that wait to be sent; the rest is dropped. A burst of a hundred runners makes
/// about a thousand.
const QUEUE_SPANS_MAX: usize = 8192;
/// Spans in one request: a few hundred kilobytes.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The layer that makes spans of ours into spans of a trace, and what must be shut down.
pub(super) fn layer(
    config: &TracesConfig,
    own: OwnDispatch,
) -> Result<(BoxedLayer, SdkTracerProvider), TelemetryError> {
    let headers: HashMap<String, String> = config
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
        .collect();
    let inner = Otlp::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(config.endpoint.as_str())
        .with_timeout(config.timeout)
        .with_headers(headers)
        .build()
        .map_err(|source| TelemetryError::Exporter { source: Box::new(source) })?;
    let exporter =
        Exporter { inner, own, endpoint: config.endpoint.to_string(), failing: false.into() };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
        )
        .with_sampler(KeptShare { ratio: config.sampled_ratio })
        .with_resource(resource(config))
        .build();
    let spans_and_warnings = filter_fn(|metadata| {
        is_our_span(metadata)
            || (metadata.is_event()
                && *metadata.level() <= tracing::Level::WARN
                && metadata.target().starts_with(OUR_TARGET))
    })
    .with_max_level_hint(LevelFilter::INFO);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(spans_and_warnings);
    Ok((Box::new(layer), provider))
}

fn resource(config: &TracesConfig) -> Resource {
    let attributes =
        config.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes)
        .with_service_name(config.service_name.clone())
        .build()
}

/// Keeps a share of the traces, by a part of the id that is random also in a runner's
/// id. All replicas keep the same ones.
#[derive(Clone, Debug)]
struct KeptShare {
    ratio: f64,
}

impl ShouldSample for KeptShare {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        /// A uuid's last four bytes are random in every version we make.
        const SHARE_MAX: f64 = 4_294_967_296.0;
        let [.., a, b, c, d] = trace.to_bytes();
        let share = f64::from(u32::from_be_bytes([a, b, c, d])) / SHARE_MAX;
        SamplingResult {
            decision: if share < self.ratio {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: parent.map_or(TraceState::NONE, |parent| {
                parent.span().span_context().trace_state().clone()
            }),
        }
    }
}

/// Says once when the collector stops answering and once when it answers again.
#[derive(Debug)]
struct Exporter {
    inner: Otlp,
    own: OwnDispatch,
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(make_root);
        let result = self.inner.export(batch).await;
        let failing = result.is_err();
        if self.failing.swap(failing, Ordering::Relaxed) != failing {
            self.say(result.as_ref().err().map(ToString::to_string));
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl Exporter {
    fn say(&self, error: Option<String>) {
        let Some(dispatch) = self.own.get() else { return };
        let endpoint = &self.endpoint;
        // Spans are sent from a thread of their own.
        tracing::dispatcher::with_default(&dispatch, || {
            if let Some(error) = error {
                warn!(endpoint, error, "traces cannot be sent and are dropped");
            } else {
                info!(endpoint, "traces are sent again");
            }
        });
    }
}

/// Gives the span of a runner's whole life the place that all others point at: the root,
/// from the runner's assignment on.
fn make_root(span: &mut SpanData) {
    let began = span.attributes.iter().find(|attribute| attribute.key.as_str() == LIFE_BEGAN);
    let Some(Value::I64(began_ms)) = began.map(|attribute| &attribute.value) else { return };
    let since_epoch = Duration::from_millis(u64::try_from(*began_ms).unwrap_or(0));
    let context = &span.span_context;
    span.span_context = SpanContext::new(
        context.trace_id(),
        root_span_id(context.trace_id()),
        context.trace_flags(),
        false,
        context.trace_state().clone(),
    );
    span.parent_span_id = SpanId::INVALID;
    span.parent_span_is_remote = false;
    span.start_time = (SystemTime::UNIX_EPOCH + since_epoch).min(span.end_time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(ratio: f64, trace: TraceId) -> bool {
        let result =
            KeptShare { ratio }.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn the_kept_share_is_the_same_everywhere_and_about_as_large_as_asked_for() {
        let traces: Vec<TraceId> =
            (0..4000).map(|_| TraceId::from(uuid::Uuid::now_v7().as_u128())).collect();
        let share = |ratio: f64| traces.iter().filter(|trace| kept(ratio, **trace)).count();
        assert_eq!(share(0.0), 0);
        assert_eq!(share(1.0), traces.len());
        assert!((800..1200).contains(&share(0.25)), "{}", share(0.25));
        assert!((2800..3200).contains(&share(0.75)), "{}", share(0.75));
        assert!(traces.iter().all(|trace| kept(0.75, *trace) || !kept(0.25, *trace)));
    }
}
