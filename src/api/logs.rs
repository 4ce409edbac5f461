//! A runner's log: `GET /api/v1/runners/{id}/logs`, the only route that asks Docker. Where
//! the runner's host is another replica's, that one is asked instead, once.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::extract::{Path, Query};
use super::jobs::within;
use super::peer::Forwarded;
use super::peer::forward::{LOG_DEADLINE, Owner, Sending};
use super::problem::{Code, Problem, ProblemBody, quoted};
use super::reading::SeenRunner;
use super::request::RequestId;
use super::shape::IdText;
use crate::docker::{DockerError, LogLine, LogQuery};
use crate::fleet::id::{ContainerId, RunnerId};
use crate::fleet::time::Timestamp;
use crate::telemetry::chain;

/// Logs followed at once; each holds a connection here and one at Docker.
pub const FOLLOWERS_MAX: usize = 32;
/// Lines of one answer.
const TAIL_MAX: u32 = 10_000;
const TAIL_DEFAULT: u32 = 100;
/// A JSON answer holds the newest bytes up to here; the stream has no such limit.
const JSON_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Docker answers a log request in milliseconds.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Which part of the log, and how.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// The last so many lines.
    #[param(minimum = 0, maximum = 10000, default = 100)]
    tail: Option<u32>,
    /// Stream as text until the container ends.
    #[serde(default)]
    #[param(required = false, default = false)]
    follow: bool,
    /// Only lines since this instant: RFC 3339, or seconds since 1970.
    since: Option<String>,
    /// Begin each line with its time.
    #[param(default = true)]
    timestamps: Option<bool>,
}

/// A log in one piece.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Logs {
    #[schema(value_type = String)]
    pub container_id: ContainerId,
    #[schema(value_type = IdText)]
    pub runner_id: RunnerId,
    pub logs: String,
    /// Older lines were left out: the answer holds at most 4 MiB.
    pub truncated: bool,
}

/// A runner's log
///
/// JSON by default; with `Accept: text/plain` or `follow=true` a stream of text. The log of
/// a runner on another replica's host is fetched from there, line by line as it comes.
#[utoipa::path(
    get, path = "/api/v1/runners/{id}/logs", tag = "observe",
    params(
        ("id" = String, Path, description = "Runner id or name, or container name or id \
            (full, or its first twelve digits or more)"),
        LogsQuery,
    ),
    responses(
        (status = 200, description = "The log", content(
            (Logs = "application/json"), (String = "text/plain; charset=utf-8"))),
        (status = 404, description = "No such runner of ours", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "It has no container yet or any more, or its host \
            belongs to another replica and nothing is forwarded", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = 502, description = "The replica that cares for its host does not answer",
            body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many logs are being followed", body = ProblemBody,
            content_type = "application/problem+json"),
    ),
)]
pub async fn runner_logs(
    State(state): State<ApiState>,
    Path(asked): Path<String>,
    Query(query): Query<LogsQuery>,
    RawQuery(raw): RawQuery,
    Extension(request_id): Extension<RequestId>,
    forwarded: Option<Extension<Forwarded>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tail = within("tail", query.tail, TAIL_DEFAULT, 0, TAIL_MAX)?;
    let since = query.since.as_deref().map(instant).transpose()?;
    let reading = state.read();
    let runner = reading.runner(&asked)?;
    let permit = if query.follow { Some(place_to_follow(&state)?) } else { None };
    if let Some(owner) = state.owner_elsewhere(&reading, runner.host).await {
        if forwarded.is_some() {
            return Err(moved(&runner, &owner));
        }
        let target = format!("/api/v1/runners/{}/logs", runner.id);
        let sending = Sending {
            method: Method::GET,
            target: raw.map_or(target.clone(), |query| format!("{target}?{query}")),
            accept: headers.get(header::ACCEPT),
            request_id: &request_id,
            body: Vec::new(),
            within: LOG_DEADLINE,
        };
        let answer = state.forward(&owner, sending).await?;
        return Ok(held(&state, answer, permit));
    }
    let (runner_id, container_id) = (runner.id, container(&runner)?);
    let wanted = LogQuery {
        tail: Some(tail),
        follow: query.follow,
        since,
        timestamps: query.timestamps.unwrap_or(true),
    };
    let opened = state.handle.edges.docker.logs(&container_id, &wanted);
    let lines = match tokio::time::timeout(OPEN_TIMEOUT, opened).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => return Err(unreadable(&asked, &error)),
        Err(_) => {
            let detail = format!("no log within {} s", OPEN_TIMEOUT.as_secs());
            return Err(Problem::new(Code::DockerUnavailable, detail));
        }
    };
    if query.follow || accepts_text(&headers) {
        return Ok(text(&state, lines, permit));
    }
    let (logs, truncated) = collect(lines).await.map_err(|error| unreadable(&asked, &error))?;
    Ok(Json(Logs { container_id, runner_id, logs, truncated }).into_response())
}

/// A forwarded request goes no further: two replicas that take each other for the owner
/// would send it to and fro.
fn moved(runner: &SeenRunner<'_>, owner: &Owner) -> Problem {
    let detail = format!("{}: its host has gone over to {}; ask again", runner.name, owner.name);
    Problem::new(Code::OtherReplica, detail)
}

fn container(runner: &SeenRunner<'_>) -> Result<ContainerId, Problem> {
    runner.container().cloned().ok_or_else(|| {
        let detail = format!("{} is {} and has no log yet", runner.name, runner.phase.name());
        Problem::new(Code::NoContainer, detail)
    })
}

/// Another replica's answer, for as long as this process lives and with its place among
/// the followed logs.
fn held(state: &ApiState, answer: Response, permit: Option<OwnedSemaphorePermit>) -> Response {
    answer.map(|body| {
        let pieces = body.into_data_stream().map(move |piece| {
            let _held = &permit;
            piece
        });
        Body::from_stream(pieces.take_until(Box::pin(stopping(state))))
    })
}

/// Ends when the process stops.
fn stopping(state: &ApiState) -> impl Future<Output = ()> + Send + 'static {
    let mut readiness = state.handle.readiness.clone();
    async move {
        // A sender that is gone means that the process is going too.
        let _ended = readiness.wait_for(|ready| ready.stopping).await;
    }
}

fn place_to_follow(state: &ApiState) -> Result<OwnedSemaphorePermit, Problem> {
    state.followers.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("at most {FOLLOWERS_MAX} logs can be followed at once");
        Problem::new(Code::TooManyFollowers, detail)
    })
}

fn unreadable(asked: &str, error: &DockerError) -> Problem {
    if error.is_gone() {
        let detail = format!("the container of {} has been removed", quoted(asked));
        return Problem::new(Code::NoContainer, detail);
    }
    warn!(error = %chain(error), "could not read a log");
    Problem::new(Code::DockerUnavailable, error.to_string())
}

fn instant(text: &str) -> Result<Timestamp, Problem> {
    let date = chrono::DateTime::parse_from_rfc3339(text)
        .map(|date| Timestamp::from_utc(date.to_utc()))
        .ok();
    let seconds = || text.parse::<u32>().ok().map(|s| Timestamp(u64::from(s) * 1_000));
    date.or_else(seconds).ok_or_else(|| {
        let detail = "since must be an RFC 3339 instant or seconds since 1970";
        let error = super::ask::field("since", detail);
        Problem::new(Code::InvalidQuery, detail).with_errors(vec![error])
    })
}

/// Whether the client prefers text: names it, and does not name JSON before it.
fn accepts_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let mut kinds = accepted.unwrap_or_default().split(',').map(|kind| {
        let kind = kind.split(';').next().unwrap_or_default();
        kind.trim().to_ascii_lowercase()
    });
    kinds.find(|kind| kind == "text/plain" || kind == "application/json")
        == Some("text/plain".to_owned())
}

type Lines = BoxStream<'static, Result<LogLine, DockerError>>;

/// The newest lines up to the limit, each ended; and whether older ones were left out.
async fn collect(mut lines: Lines) -> Result<(String, bool), DockerError> {
    let mut kept = std::collections::VecDeque::new();
    let (mut bytes, mut truncated) = (0, false);
    while let Some(line) = lines.try_next().await? {
        bytes += line.text.len() + 1;
        kept.push_back(line.text);
        while bytes > JSON_BYTES_MAX {
            let Some(oldest) = kept.pop_front() else { break };
            bytes -= oldest.len() + 1;
            truncated = true;
        }
    }
    let mut text = String::with_capacity(bytes);
    for line in kept {
        text.push_str(&line);
        text.push('\n');
    }
    Ok((text, truncated))
}

/// Streams until the log ends, the client leaves, or the process stops.
fn text(state: &ApiState, lines: Lines, permit: Option<OwnedSemaphorePermit>) -> Response {
    let stream = as_text(lines, permit).take_until(Box::pin(stopping(state)));
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        // A proxy in between shall not hold lines back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

/// An error in the middle ends the text with a line that says so: the status is long out.
fn as_text(
    lines: Lines,
    permit: Option<OwnedSemaphorePermit>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    lines.map(move |line| {
        let _held = &permit;
        Ok(Bytes::from(match line {
            Ok(line) => line.text + "\n",
            Err(error) => {
                info!(error = %chain(&error), "a log broke off");
                format!("[the log broke off: {error}]\n")
            }
        }))
    })
}
