//! Logs, and traces by the standard `OTEL_*` variables.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::reader::Reader;
use super::value;

/// What `telemetry` needs.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Directives in the form of `tracing_subscriber::EnvFilter`.
    pub log_filter: String,
    pub log_format: LogFormat,
    /// `None`: no traces are made.
    pub traces: Option<TracesConfig>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where traces go, and how many of them.
#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// The complete URL that spans are posted to.
    pub endpoint: Url,
    pub headers: Vec<(String, SecretString)>,
    /// Limit of one export.
    pub timeout: Duration,
    pub service_name: String,
    pub resource: Vec<(String, String)>,
    /// The share of runners whose trace is kept, from 0 to 1.
    pub sampled_ratio: f64,
}

/// The crate whose own lines a bare level is about.
const OUR_TARGET: &str = "runner_orchestrator";

pub(super) fn read(reader: &mut Reader<'_>) -> Option<TelemetryConfig> {
    let log_filter = reader.get("LOG_LEVEL", log_filter);
    let structured = reader.get("STRUCTURED_LOGGING", value::boolean);
    let traces = traces(reader);
    Some(TelemetryConfig {
        log_filter: log_filter?,
        log_format: if structured? { LogFormat::Json } else { LogFormat::Text },
        traces,
    })
}

/// A bare level is about our own lines; libraries never say more than warnings then, as
/// they would print what they send. Directives are taken as they are.
fn log_filter(text: &str) -> Result<String, String> {
    let allowed = || {
        "expected ERROR, WARN, INFO, DEBUG, TRACE, or directives such as info,hyper=debug"
            .to_owned()
    };
    if let Some(level) = level(text) {
        return Ok(match level {
            "off" | "error" | "warn" => level.to_owned(),
            _ => format!("warn,{OUR_TARGET}={level}"),
        });
    }
    let directives = text
        .split(',')
        .map(|directive| match (level(directive), directive.contains('=')) {
            (Some(level), _) => Ok(level.to_owned()),
            (None, true) => Ok(directive.trim().to_owned()),
            (None, false) => Err(allowed()),
        })
        .collect::<Result<Vec<_>, _>>()?
        .join(",");
    EnvFilter::builder().parse(&directives).map(|_| directives).map_err(|_| allowed())
}

/// A level, also by the names that Python uses.
fn level(text: &str) -> Option<&'static str> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => Some("off"),
        "error" | "critical" | "fatal" => Some("error"),
        "warn" | "warning" => Some("warn"),
        "info" => Some("info"),
        "debug" => Some("debug"),
        "trace" => Some("trace"),
        _ => None,
    }
}

fn traces(reader: &mut Reader<'_>) -> Option<TracesConfig> {
    let base = reader.get("OTEL_EXPORTER_OTLP_ENDPOINT", value::http_url);
    let complete = reader.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value::http_url);
    let headers = headers(reader);
    // Platforms set these for every program; they are judged only when traces are on.
    let on = reader.get("OTEL_SDK_DISABLED", value::boolean) == Some(false)
        && reader.text("OTEL_TRACES_EXPORTER").is_some_and(|name| name != "none")
        && (reader.is_set("OTEL_EXPORTER_OTLP_ENDPOINT")
            || reader.is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
    let protocol = reader.get("OTEL_EXPORTER_OTLP_PROTOCOL", |text| {
        if !on || text == "http/protobuf" {
            Ok(())
        } else {
            Err("expected http/protobuf (port 4318 of most collectors)".to_owned())
        }
    });
    let timeout_ms = reader.get("OTEL_EXPORTER_OTLP_TIMEOUT", value::whole(1..=600_000));
    let sampler = reader.get("OTEL_TRACES_SAMPLER", sampler);
    let ratio = reader.get("OTEL_TRACES_SAMPLER_ARG", value::decimal(0.0..=1.0));
    let service_name = reader.text("OTEL_SERVICE_NAME");
    let resource = reader.get("OTEL_RESOURCE_ATTRIBUTES", value::pairs).unwrap_or_default();
    if !on {
        return None;
    }
    protocol?;
    Some(TracesConfig {
        endpoint: complete.or_else(|| base.as_ref().and_then(traces_endpoint))?,
        headers,
        timeout: Duration::from_millis(timeout_ms?),
        service_name: service_name?,
        resource,
        sampled_ratio: match sampler? {
            Sampler::Always => 1.0,
            Sampler::Never => 0.0,
            Sampler::Ratio => ratio?,
        },
    })
}

fn traces_endpoint(base: &Url) -> Option<Url> {
    Url::parse(&format!("{}/v1/traces", base.as_str().trim_end_matches('/'))).ok()
}

fn headers(reader: &mut Reader<'_>) -> Vec<(String, SecretString)> {
    let valid = |text: &str| {
        let pairs = value::pairs(text)?;
        let fits = |(name, value): &(String, String)| {
            http::HeaderName::try_from(name.as_str()).is_ok()
                && http::HeaderValue::try_from(value.as_str()).is_ok()
        };
        if pairs.iter().all(fits) {
            Ok(pairs)
        } else {
            Err("expected header names and values, as name=value,name=value".to_owned())
        }
    };
    reader
        .secret("OTEL_EXPORTER_OTLP_HEADERS", |text| valid(text).map(|_| ()))
        .and_then(|text| valid(text.expose_secret()).ok())
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (name, SecretString::from(value)))
        .collect()
}

/// No trace has a parent outside of this cluster, so `parentbased_` changes nothing.
enum Sampler {
    Always,
    Never,
    Ratio,
}

fn sampler(text: &str) -> Result<Sampler, String> {
    match text.strip_prefix("parentbased_").unwrap_or(text) {
        "always_on" => Ok(Sampler::Always),
        "always_off" => Ok(Sampler::Never),
        "traceidratio" => Ok(Sampler::Ratio),
        _ => Err("expected always_on, always_off or traceidratio, or one of these after \
                  parentbased_"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_about_our_own_lines() {
        assert_eq!(log_filter("DEBUG").unwrap(), "warn,runner_orchestrator=debug");
        assert_eq!(log_filter("WARNING").unwrap(), "warn");
        assert_eq!(log_filter("info,hyper=debug").unwrap(), "info,hyper=debug");
        for bad in ["verbose", "info,loud", "x=loud", ""] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }
}
