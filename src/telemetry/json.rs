//! Log lines as JSON objects: `timestamp`, `level`, `event`, `logger`, then the fields of
//! the event and of the spans around it, flat. With traces on, also `trace_id` and
//! `span_id`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use opentelemetry::trace::TraceContextExt;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::OwnDispatch;

/// A longer text is cut: log drivers split lines at 16 KiB, and half an object is none.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Our own keys; a field of such a name gets an underscore behind it.
const RESERVED: [&str; 6] = ["timestamp", "level", "event", "logger", "trace_id", "span_id"];

pub(super) struct JsonLines {
    writer: BoxMakeWriter,
    own: OwnDispatch,
}

impl JsonLines {
    pub(super) fn new(writer: BoxMakeWriter, own: OwnDispatch) -> Self {
        Self { writer, own }
    }

    /// Ids of the innermost traced span around the event.
    fn trace_ids<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> Option<(String, String)>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let dispatch = self.own.get()?;
        context.event_scope(event)?.find_map(|span| {
            let traced = tracing_opentelemetry::get_otel_context(&span.id(), &dispatch)?;
            let ids = traced.span().span_context().clone();
            ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
        })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        // From the outermost span inwards: what is nearer to the event wins.
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(of_span) = span.extensions().get::<Fields>() {
                    fields.0.extend(of_span.0.iter().map(|(name, value)| (*name, value.clone())));
                }
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = line(
            &timestamp(),
            *metadata.level(),
            metadata.target(),
            self.trace_ids(event, &context),
            fields,
        );
        // There is nobody left to tell when the log cannot be written.
        let _ = self.writer.make_writer_for(metadata).write_all(line.as_bytes());
    }
}

fn timestamp() -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

fn line(
    timestamp: &str,
    level: Level,
    target: &str,
    trace: Option<(String, String)>,
    mut fields: Fields,
) -> String {
    let event = fields.0.remove("message").unwrap_or(Value::String(String::new()));
    // Lines of libraries that use the `log` crate name their target in a field.
    let logger = match fields.0.remove("log.target") {
        Some(Value::String(target)) => target,
        _ => target.to_owned(),
    };
    for noise in ["log.module_path", "log.file", "log.line"] {
        fields.0.remove(noise);
    }
    let mut line = String::with_capacity(256);
    let mut put = |name: &str, value: &Value| {
        let comma = if line.is_empty() { '{' } else { ',' };
        let _ = write!(line, "{comma}{}:{value}", Value::from(name));
    };
    put("timestamp", &timestamp.into());
    put("level", &level.as_str().to_ascii_lowercase().into());
    put("event", &event);
    put("logger", &logger.into());
    if let Some((trace_id, span_id)) = trace {
        put("trace_id", &trace_id.into());
        put("span_id", &span_id.into());
    }
    for (name, value) in &fields.0 {
        let name = name.strip_prefix("r#").unwrap_or(name);
        if RESERVED.contains(&name) {
            put(&format!("{name}_"), value);
        } else {
            put(name, value);
        }
    }
    line.push_str("}\n");
    line
}

/// Fields by name, of a span or an event.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Fields {
    fn text(&mut self, field: &Field, mut text: String) {
        if text.len() > TEXT_BYTES_MAX {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        self.0.insert(field.name(), Value::String(text));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The whole chain: the text of an error never repeats its source.
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.text(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}
