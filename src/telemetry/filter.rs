//! Which lines are written.

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// The crate's own target; spans and lines of others carry theirs.
pub(super) const OUR_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Whether a span is one of ours that carries fields or a trace: never a detail's.
pub(super) fn is_our_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && *metadata.level() <= Level::INFO
        && metadata.target().starts_with(OUR_TARGET)
}

/// Lines by level or directive. Our own spans are always seen, so that an error logged
/// with `LOG_LEVEL=ERROR` still says which runner it is about.
pub(super) struct Lines(EnvFilter);

impl Lines {
    pub(super) fn new(filter: EnvFilter) -> Self {
        Self(filter)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        is_our_span(metadata) || Filter::<S>::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let by_directive = Filter::<S>::callsite_enabled(&self.0, metadata);
        if is_our_span(metadata) { Interest::always() } else { by_directive }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<S>::max_level_hint(&self.0).map(|level| level.max(LevelFilter::INFO))
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        Filter::<S>::event_enabled(&self.0, event, context)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::<S>::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::<S>::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::<S>::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::<S>::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::<S>::on_close(&self.0, id, context);
    }
}
