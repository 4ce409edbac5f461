//! One trace per runner, from the decision to its removal, on whichever replicas that
//! happens. Nothing is handed from one to the other: the trace's id *is* the runner's id,
//! and the root span's id is the second half of it.
//!
//! Whoever works for a runner puts the span of that work into the runner's trace:
//!
//! ```
//! # use runner_orchestrator::{fleet::id::RunnerId, telemetry::trace};
//! # async fn create_container() {}
//! # async fn f(id: RunnerId) {
//! use tracing::Instrument;
//! let span = trace::of_runner(id, tracing::info_span!("create", runner.id = %id));
//! create_container().instrument(span).await;
//! # }
//! ```
//!
//! Spans inside that one follow it by themselves. Usual names: `plan`, `create`, `start`,
//! `mint`, `hand`, `listening`, `running`, `remove`. Whoever sees the end of the runner
//! calls [`ended`], which makes the root span.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::fleet::id::{PoolName, RunnerId};
use crate::fleet::time::Timestamp;

/// The attribute by which the exporter knows a root span, and its value: when the
/// runner's life began, in milliseconds since the Unix epoch.
pub(super) const LIFE_BEGAN: &str = "runner.assigned_at_ms";

/// Puts a span that was not entered yet into the trace of a runner.
#[must_use]
pub fn of_runner(runner: RunnerId, span: Span) -> Span {
    let root = SpanContext::new(
        trace_id(runner),
        root_span_id(trace_id(runner)),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let parent = opentelemetry::Context::new().with_remote_span_context(root);
    // Without traces there is no parent to set, and nothing is lost.
    let _ = span.set_parent(parent);
    span
}

/// Makes the root span of a runner's trace: its whole life.
pub fn ended(runner: RunnerId, pool: &PoolName, assigned_at: Timestamp, outcome: &'static str) {
    let began_ms = i64::try_from(assigned_at.0).unwrap_or(i64::MAX);
    let span = tracing::info_span!(
        "runner",
        runner.id = %runner,
        pool = %pool,
        outcome,
        { LIFE_BEGAN } = began_ms,
    );
    drop(of_runner(runner, span).entered());
}

/// The present span's place in its trace, for another process to go on from (W3C
/// `traceparent`); none without traces.
#[must_use]
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let here = context.span().span_context().clone();
    let flags = here.trace_flags().to_u8();
    here.is_valid().then(|| format!("00-{}-{}-{flags:02x}", here.trace_id(), here.span_id()))
}

/// Puts a span that was not entered yet into the trace another process has begun. Text
/// that is no `traceparent` changes nothing.
#[must_use]
pub fn continued(traceparent: &str, span: Span) -> Span {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, parent) = (parts.next(), parts.next());
    let flags = parts.next().and_then(|flags| u8::from_str_radix(flags, 16).ok());
    let trace = trace.and_then(|text| TraceId::from_hex(text).ok());
    let parent = parent.and_then(|text| SpanId::from_hex(text).ok());
    if let (Some(trace), Some(parent), Some(flags)) = (trace, parent, flags) {
        let flags = TraceFlags::new(flags);
        let remote = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
    span
}

/// The id of the runner's trace as OpenTelemetry writes it.
#[must_use]
pub fn trace_id(runner: RunnerId) -> TraceId {
    TraceId::from(runner.0.as_u128())
}

/// The second half of the trace's id. It is never zero: a uuid has its variant there.
pub(super) fn root_span_id(trace: TraceId) -> SpanId {
    let bytes = trace.to_bytes();
    let mut half = [0; 8];
    half.copy_from_slice(&bytes[8..]);
    SpanId::from_bytes(half)
}
