//! What the process tells of itself: log lines, traces and metrics. Nothing here decides
//! anything, and nothing here may stop the process: a log that cannot be written and a
//! collector that does not answer cost lines, not runners.
//!
//! Every line and span that is about a runner carries the field `runner.id`; its trace
//! has the same id (see [`trace`]), so that logs, traces and containers of one runner are
//! found from each other on every replica.

mod export;
mod filter;
mod json;
pub mod metrics;
pub mod trace;

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Dispatch;
use tracing::dispatcher::WeakDispatch;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{LogFormat, TelemetryConfig};

/// Where log lines go. `serve` writes them to standard output, where `docker logs` finds
/// them; tools keep standard output for their results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    Stdout,
    Stderr,
}

/// What keeps telemetry from starting.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter {filter:?} could not be read")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("the exporter of traces could not be made")]
    Exporter {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("logging was started before")]
    Started {
        #[source]
        source: tracing_subscriber::util::TryInitError,
    },
}

/// How long the last spans may take to leave when the process ends.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends the last spans when it is dropped, within [`FLUSH_TIMEOUT`]. Keep it until the
/// process ends.
#[must_use = "spans are lost when it is dropped at once"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("traces", &self.provider.is_some()).finish()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // A failure was reported by the exporter already.
            let _ = provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Starts logs and traces for the whole process. Call it once, before anything logs.
///
/// # Errors
/// When it was called before, or the exporter cannot be made.
pub fn init(config: &TelemetryConfig, output: Output) -> Result<Guard, TelemetryError> {
    let (writer, terminal) = match output {
        Output::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
        Output::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
    };
    let colours = if terminal { Colours::On } else { Colours::Off };
    let (dispatch, guard) = build(config, writer, colours)?;
    dispatch.try_init().map_err(|source| TelemetryError::Started { source })?;
    Ok(guard)
}

/// Whether text lines are coloured; JSON never is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colours {
    On,
    Off,
}

/// Makes logs and traces without making them the process's own.
///
/// # Errors
/// When the exporter cannot be made.
pub fn build(
    config: &TelemetryConfig,
    writer: BoxMakeWriter,
    colours: Colours,
) -> Result<(Dispatch, Guard), TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&config.log_filter)
        .map_err(|source| TelemetryError::Filter { filter: config.log_filter.clone(), source })?;
    let own = OwnDispatch::default();
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Json => Box::new(json::JsonLines::new(writer, own.clone())),
        LogFormat::Text => Box::new(
            tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours == Colours::On),
        ),
    };
    let mut layers = vec![Box::new(lines.with_filter(filter::Lines::new(filter))) as BoxedLayer];
    let mut provider = None;
    if let Some(traces) = &config.traces {
        let (layer, traces) = export::layer(traces, own.clone())?;
        layers.push(layer);
        provider = Some(traces);
    }
    let dispatch = Dispatch::new(Registry::default().with(layers));
    own.set(&dispatch);
    Ok((dispatch, Guard { provider }))
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The subscriber that a layer is part of, for layers that work outside of its calls.
#[derive(Clone, Default, Debug)]
struct OwnDispatch(Arc<OnceLock<WeakDispatch>>);

impl OwnDispatch {
    fn get(&self) -> Option<Dispatch> {
        self.0.get().and_then(WeakDispatch::upgrade)
    }

    fn set(&self, dispatch: &Dispatch) {
        // Set once: layers are part of one subscriber.
        let _ = self.0.set(dispatch.downgrade());
    }
}

/// An error and all its causes in one line, for the place where it is handled.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
