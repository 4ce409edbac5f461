//! Logs, traces and metrics as their readers see them: lines, a collector, `promtool`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use runner_orchestrator::config::{Config, Sources, TelemetryConfig};
use runner_orchestrator::fleet::budget::Budget;
use runner_orchestrator::fleet::id::{PoolName, RunnerId};
use runner_orchestrator::fleet::pool::Pool;
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::github::CallCount;
use runner_orchestrator::telemetry::metrics::{
    Dependency, HttpRequest, JobResult, LoopName, Metrics, Outcome, PeerForward, PeerRequest,
    PoolNow, RunnerEnd, RunnerState, StartPhase,
};
use runner_orchestrator::telemetry::{self, Colours, Guard, trace};
use serde_json::Value;
use tokio::task::JoinSet;
use tracing::{Dispatch, debug, error, info, info_span, warn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use uuid::Uuid;

use super::support::promtool;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("UTF-8")
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

fn config(variables: &[(&str, &str)]) -> Config {
    let essential = [("GITHUB_TOKEN", "ghp_x"), ("GITHUB_ORG", "acme")];
    let env: BTreeMap<String, String> = essential
        .iter()
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let read_file = |_: &std::path::Path| Err(io::Error::from(io::ErrorKind::NotFound));
    Config::load(&Sources { env, dotenv: None, read_file: &read_file }).expect("a configuration")
}

fn start(config: &TelemetryConfig) -> (Dispatch, Guard, Log) {
    let log = Log::default();
    let writer = log.clone();
    let writer = BoxMakeWriter::new(move || writer.clone());
    let (dispatch, guard) =
        telemetry::build(config, writer, Colours::Off).expect("telemetry starts");
    (dispatch, guard, log)
}

/// What these actions log.
fn logged(variables: &[(&str, &str)], actions: impl FnOnce()) -> Log {
    let (dispatch, _guard, log) = start(&config(variables).telemetry);
    tracing::dispatcher::with_default(&dispatch, actions);
    log
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] Inner);

#[derive(Debug, thiserror::Error)]
#[error("inner")]
struct Inner;

#[test]
fn lines_are_flat_json_objects_with_the_fields_of_the_spans_around_them() {
    let log = logged(&[("LOG_LEVEL", "info,it=info")], || {
        let turn = info_span!("turn", turn = 7, reason = "timer", late = tracing::field::Empty);
        let _turn = turn.enter();
        turn.record("late", true);
        let runner = info_span!("create", runner.id = "r-1", reason = "below_minimum");
        let _runner = runner.enter();
        let cause = Outer(Inner);
        info!(seconds = 1.5, error = &cause as &dyn std::error::Error, event = "mine", "creating");
    });
    let lines = log.lines();
    let line = lines[0].as_object().unwrap();
    let expected = serde_json::json!({
        "level": "info", "event": "creating", "logger": module_path!(), "turn": 7, "late": true,
        "runner.id": "r-1", "reason": "below_minimum", "seconds": 1.5, "error": "outer: inner",
        "event_": "mine",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(line.get(name), Some(value), "{name}");
    }
    assert_eq!(line.len(), expected.as_object().unwrap().len() + 1, "{line:?}");
    let time = line["timestamp"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.parse::<chrono::DateTime<chrono::Utc>>().is_ok(), "{time}");
    assert!(log.text().starts_with("{\"timestamp\":\""), "{}", log.text());
    assert!(log.text().contains(",\"level\":\"info\",\"event\":\"creating\",\"logger\":"));
}

#[test]
fn hostile_text_stays_one_line_and_long_text_is_cut() {
    let log = logged(&[("LOG_LEVEL", "info,it=info")], || {
        info!(job = "a\n{\"level\":\"error\"}\u{1b}[31m", "x\ny");
        info!(job = "ü".repeat(50_000), "long");
    });
    let lines = log.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["event"], "x\ny");
    assert!(!log.text().contains('\u{1b}'));
    assert!(lines[1]["job"].as_str().unwrap().len() < 5000);
}

#[test]
fn the_level_is_about_our_lines_and_spans_are_seen_at_every_level() {
    let levels = |level: &str| {
        let log = logged(&[("LOG_LEVEL", level)], || {
            let _span = info_span!(target: "runner_orchestrator::x", "s", runner.id = 3).entered();
            error!(target: "runner_orchestrator::x", "error");
            warn!(target: "hyper", "warning of a library");
            info!(target: "runner_orchestrator::x", "info");
            debug!(target: "runner_orchestrator::x", "debug");
            debug!(target: "hyper", "what it sent");
        });
        let lines = log.lines();
        assert!(lines.iter().all(|line| line["runner.id"] == 3), "{lines:?}");
        lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(levels("ERROR"), ["error"]);
    assert_eq!(levels("WARNING"), ["error", "warning of a library"]);
    assert_eq!(levels("INFO"), ["error", "warning of a library", "info"]);
    assert_eq!(levels("debug"), ["error", "warning of a library", "info", "debug"]);
    assert_eq!(levels("error,hyper=debug"), ["error", "warning of a library", "what it sent"]);
}

#[test]
fn text_is_written_on_request() {
    let log = logged(&[("STRUCTURED_LOGGING", "false")], || {
        let _span = info_span!(target: "runner_orchestrator", "create", runner.id = 3).entered();
        info!(target: "runner_orchestrator", reason = "idle", "retiring");
    });
    let text = log.text();
    assert!(text.contains("INFO create{runner.id=3}") && text.contains("retiring"), "{text}");
    assert!(!text.contains('{') || !text.starts_with('{'), "{text}");
}

/// A collector: what it received, and the header that came along.
type Received = Arc<Mutex<Vec<(Option<String>, ExportTraceServiceRequest)>>>;

async fn collector() -> (String, Received, JoinSet<()>) {
    async fn take(State(received): State<Received>, headers: HeaderMap, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
        let key = headers.get("x-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        received.lock().expect("no handler panics").push((key, request));
    }
    let received = Received::default();
    let router = Router::new().route("/v1/traces", post(take)).with_state(received.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let mut server = JoinSet::new();
    server.spawn(async move {
        axum::serve(listener, router).await.expect("the collector serves");
    });
    (format!("http://{address}"), received, server)
}

/// Ends telemetry as the process would.
async fn end(dispatch: Dispatch, guard: Guard) {
    drop(dispatch);
    tokio::task::spawn_blocking(move || drop(guard)).await.expect("the flush does not panic");
}

fn spans(received: &Received) -> Vec<Span> {
    let received = received.lock().expect("no handler panics");
    received
        .iter()
        .flat_map(|(_, request)| &request.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| scope.spans.clone())
        .collect()
}

/// An id of version 7.
const RUNNER: u128 = 0x0193_5f2e_8a10_7abc_9def_0123_4567_89ab;

#[tokio::test(flavor = "multi_thread")]
async fn the_spans_of_a_runner_arrive_in_one_trace_whoever_made_them() {
    let (url, received, _server) = collector().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
    ];
    let id = RunnerId(Uuid::from_u128(RUNNER));
    // The leader plans on one replica, the agent acts on another.
    let (leader, leader_guard, _) = start(&config(&variables).telemetry);
    tracing::dispatcher::with_default(&leader, || {
        let target_span = info_span!(target: "runner_orchestrator", "turn");
        let _turn = target_span.enter();
        drop(trace::of_runner(id, info_span!(target: "runner_orchestrator", "plan")).entered());
    });
    let (agent, agent_guard, log) = start(&config(&variables).telemetry);
    tracing::dispatcher::with_default(&agent, || {
        let create = info_span!(target: "runner_orchestrator", "create", runner.id = %id);
        let _create = trace::of_runner(id, create).entered();
        let _call = info_span!(target: "runner_orchestrator::docker", "call").entered();
        let _detail = tracing::debug_span!(target: "runner_orchestrator", "detail").entered();
        let _library = info_span!(target: "hyper", "library").entered();
        info!(target: "runner_orchestrator", "creating");
    });
    tracing::dispatcher::with_default(&agent, || {
        trace::ended(id, &PoolName::from("default"), Timestamp(1_700_000_000_123), "ended");
    });
    end(leader, leader_guard).await;
    end(agent, agent_guard).await;

    let spans = spans(&received);
    let named = |name: &str| {
        let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name} in {spans:?}");
        found[0]
    };
    assert_eq!(spans.len(), 5, "{spans:?}");
    let root = named("runner");
    assert_eq!(root.trace_id, RUNNER.to_be_bytes());
    assert_eq!(root.span_id, RUNNER.to_be_bytes()[8..]);
    assert!(root.parent_span_id.is_empty() || root.parent_span_id == [0; 8]);
    assert_eq!(root.start_time_unix_nano, 1_700_000_000_123 * 1_000_000);
    for (child, parent) in [("plan", root), ("create", root), ("call", named("create"))] {
        assert_eq!(named(child).trace_id, root.trace_id, "{child}");
        assert_eq!(named(child).parent_span_id, parent.span_id, "{child}");
    }
    assert_ne!(named("turn").trace_id, root.trace_id);

    let line = &log.lines()[0];
    assert_eq!(line["trace_id"], Uuid::from_u128(RUNNER).simple().to_string());
    let span_id = u64::from_str_radix(line["span_id"].as_str().unwrap(), 16).unwrap();
    assert_eq!(named("call").span_id, span_id.to_be_bytes());

    let requests = received.lock().unwrap();
    assert!(requests.iter().all(|(key, _)| key.as_deref() == Some("k")));
    let resource = format!("{:?}", requests[0].1.resource_spans[0].resource);
    for part in ["service.name", "runner-orchestrator", "deployment.environment", "test"] {
        assert!(resource.contains(part), "{part} in {resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_costs_one_warning_and_nothing_else() {
    // A port that was free a moment ago and that nobody listens at.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (dispatch, guard, log) = start(&config(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).telemetry);
    let work = dispatch.clone();
    let rounds = 2;
    for round in 0..rounds {
        tracing::dispatcher::with_default(&work, || {
            let _span = info_span!(target: "runner_orchestrator", "turn", round).entered();
            info!(target: "runner_orchestrator", "working");
        });
        // Longer than spans are collected, so that each round is a request of its own.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let begun = Instant::now();
    end(work, guard).await;
    assert!(begun.elapsed() < telemetry::FLUSH_TIMEOUT + Duration::from_secs(1));
    let lines = log.lines();
    let (warnings, work): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["level"] == "warn");
    assert_eq!(warnings.len(), 1, "{lines:?}");
    assert_eq!(warnings[0]["event"], "traces cannot be sent and are dropped");
    assert_eq!(work.len(), rounds);
    drop(dispatch);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_of_traces_that_are_not_kept() {
    let (url, received, _server) = collector().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/v1/traces")),
        ("OTEL_TRACES_SAMPLER", "traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", "0".to_owned()),
    ];
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (dispatch, guard, _) = start(&config(&variables).telemetry);
    tracing::dispatcher::with_default(&dispatch, || {
        let id = RunnerId(Uuid::from_u128(RUNNER));
        trace::ended(id, &PoolName::from("default"), Timestamp(1), "ended");
    });
    end(dispatch, guard).await;
    assert!(spans(&received).is_empty());
}

fn pool() -> Pool {
    config(&[]).pools.into_values().next().expect("the default pool")
}

/// Of a replica that leads.
fn metrics() -> Metrics {
    let metrics = Metrics::new([&pool()], &["below_minimum", "cooldown"]);
    let metrics = metrics.expect("metrics can be declared");
    metrics.leading(true);
    metrics
}

/// Uses every metric there is, `n` times.
fn use_all(metrics: &Metrics, n: u64) {
    let default = PoolName::from("default");
    let second = Duration::from_secs(1);
    for round in 1..=n {
        for pool in [default.clone(), PoolName(format!("gone-{round}"))] {
            let runners = BTreeMap::from([(RunnerState::Listening, 3), (RunnerState::Assigned, 2)]);
            let now = PoolNow {
                queued_jobs: 4,
                oldest_wait: second,
                desired: 5,
                runners: if pool == default { runners } else { BTreeMap::new() },
                breaker_active: false,
            };
            metrics.pool(&pool, &now);
            metrics.decision(&pool, "below_minimum");
            metrics.runner_created(&pool);
            metrics.runner_ended(&pool, RunnerEnd::Ended);
            metrics.runner_ended(&pool, RunnerEnd::Expired);
            metrics.startup_phase(&pool, StartPhase::Create, second);
            metrics.job_started(&pool, Some(second));
            metrics.job_completed(&pool, JobResult::Succeeded, second);
        }
        metrics.unmatched_jobs(1);
        metrics.foreign_runners(6);
        let call = CallCount { operation: "queue", outcome: "304", count: round };
        metrics.github_calls(&[call]);
        metrics.github_budget(&Budget::open(180));
        metrics.docker_operation("create", Outcome::Ok, second);
        metrics.dependency(Dependency::Docker, true);
        metrics.loop_turn(LoopName::Lead, Outcome::Ok, second, Timestamp(1_700_000_000_000));
        metrics.peer_request(PeerRequest::Forged);
        metrics.peer_forward(PeerForward::Answered);
        metrics.http_request(&HttpRequest {
            method: "GET",
            route: "/api/v1/runners/{id}",
            status: 200,
            took: second,
        });
    }
}

fn value(text: &str, series: &str) -> f64 {
    let found: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).collect();
    assert_eq!(found.len(), 1, "{series} in\n{text}");
    found[0].parse().expect("a number")
}

#[test]
fn metrics_are_what_was_told_and_also_have_the_originals_names() {
    let metrics = metrics();
    let fresh = metrics.render();
    for zero in [
        "orchestrator_jobs_queued{pool=\"default\"}",
        "orchestrator_runners{pool=\"default\",state=\"running\"}",
        "orchestrator_decisions_total{pool=\"default\",reason=\"cooldown\"}",
        "orchestrator_runners_created_total{pool=\"default\"}",
        "orchestrator_docker_operations_total{operation=\"create\",outcome=\"failed\"}",
        "orchestrator_job_queue_duration_seconds_count{pool=\"default\"}",
        "orchestrator_loop_turns_total{loop=\"host\",outcome=\"timed_out\"}",
        "github_actions_runners_active",
    ] {
        assert!(value(&fresh, zero).abs() < f64::EPSILON, "{zero}");
    }
    use_all(&metrics, 2);
    let text = metrics.render();
    for (series, expected) in [
        ("orchestrator_runners_max{pool=\"default\"}", 10.0),
        ("orchestrator_runners{pool=\"default\",state=\"listening\"}", 3.0),
        ("orchestrator_decisions_total{pool=\"default\",reason=\"below_minimum\"}", 2.0),
        ("orchestrator_decisions_total{pool=\"other\",reason=\"below_minimum\"}", 2.0),
        ("orchestrator_github_requests_total{operation=\"queue\",outcome=\"304\"}", 2.0),
        ("orchestrator_github_rate_limit_remaining", -1.0),
        ("orchestrator_github_registrations_available", 180.0),
        ("orchestrator_loop_last_success_timestamp_seconds{loop=\"lead\"}", 1_700_000_000.0),
        ("github_actions_runners_active", 3.0),
        ("github_actions_runners_total_created", 4.0),
        ("github_actions_runners_total_destroyed", 4.0),
        ("github_actions_runners_ignored_existing", 6.0),
        ("github_actions_queue_length", 8.0),
        ("github_actions_orchestrator_running", 1.0),
        ("runners_total{status=\"active\"}", 3.0),
        ("runners_created_total", 4.0),
        ("queue_length", 8.0),
        ("circuit_breaker_active", 0.0),
    ] {
        assert!((value(&text, series) - expected).abs() < 0.001, "{series}");
    }
    for process in
        ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"]
    {
        assert!(text.contains(process), "{process}");
    }
}

/// Three replicas that all tell the queue's length would triple it.
#[test]
fn what_only_a_leader_knows_is_told_only_while_it_leads() {
    let metrics = metrics();
    use_all(&metrics, 1);
    let led = metrics.render();
    metrics.leading(false);
    let followed = metrics.render();
    for leaders in [
        "orchestrator_jobs_queued",
        "orchestrator_runners",
        "orchestrator_runners_desired",
        "orchestrator_decisions_total",
        "github_actions_queue_length",
        "queue_length",
        "circuit_breaker_active",
    ] {
        let is_told = |text: &str| {
            text.lines().any(|line| {
                line.strip_prefix(leaders).is_some_and(|rest| rest.starts_with([' ', '{']))
            })
        };
        assert!(is_told(&led) && !is_told(&followed), "{leaders}");
    }
    for own in ["orchestrator_runners_created_total{", "orchestrator_loop_turns_total{"] {
        assert!(followed.contains(own), "{own}");
    }
    metrics.leading(true);
    assert!(metrics.render().contains("orchestrator_jobs_queued{pool=\"default\"} 4"));
}

#[test]
fn the_number_of_series_does_not_grow_with_use() {
    let metrics = metrics();
    use_all(&metrics, 1);
    let series = |text: String| text.lines().filter(|line| !line.starts_with('#')).count();
    let before = series(metrics.render());
    use_all(&metrics, 10_000);
    assert_eq!(series(metrics.render()), before);
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let metrics = metrics();
    use_all(&metrics, 1);
    promtool::has_nothing_to_say_about(&metrics.render());
    metrics.leading(false);
    promtool::has_nothing_to_say_about(&metrics.render());
}
