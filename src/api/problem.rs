//! Errors as RFC 9457 problems. A handler returns a [`Problem`]; [`super::request`] gives
//! it the request's id and writes the body, so that no error leaves in another shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A longer `detail` is cut: it may quote what the client sent.
const DETAIL_CHARS_MAX: usize = 600;

/// What kind of problem it is: stable, for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidJson,
    InvalidBody,
    InvalidQuery,
    InvalidPath,
    InvalidHeader,
    UnsupportedMediaType,
    BodyTooLarge,
    BodyTimeout,
    Unauthorized,
    PeerRefused,
    OriginRefused,
    HostRefused,
    NotFound,
    UnknownRunner,
    UnknownPool,
    UnknownHost,
    UnknownReplica,
    UnknownJob,
    UnknownIntent,
    MethodNotAllowed,
    RunnerBusy,
    NoContainer,
    OtherReplica,
    OwnerUnreachable,
    IdempotencyMismatch,
    TooManyFollowers,
    Starting,
    Stopping,
    StoreUnavailable,
    DockerUnavailable,
    Timeout,
    Stuck,
    Internal,
}

impl Code {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidBody => "invalid_body",
            Self::InvalidQuery => "invalid_query",
            Self::InvalidPath => "invalid_path",
            Self::InvalidHeader => "invalid_header",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Unauthorized => "unauthorized",
            Self::PeerRefused => "peer_refused",
            Self::OriginRefused => "origin_refused",
            Self::HostRefused => "host_refused",
            Self::NotFound => "not_found",
            Self::UnknownRunner => "unknown_runner",
            Self::UnknownPool => "unknown_pool",
            Self::UnknownHost => "unknown_host",
            Self::UnknownReplica => "unknown_replica",
            Self::UnknownJob => "unknown_job",
            Self::UnknownIntent => "unknown_intent",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RunnerBusy => "runner_busy",
            Self::NoContainer => "no_container",
            Self::OtherReplica => "other_replica",
            Self::OwnerUnreachable => "owner_unreachable",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::TooManyFollowers => "too_many_followers",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::StoreUnavailable => "store_unavailable",
            Self::DockerUnavailable => "docker_unavailable",
            Self::Timeout => "timeout",
            Self::Stuck => "stuck",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson | Self::InvalidQuery | Self::InvalidPath | Self::InvalidHeader => {
                StatusCode::BAD_REQUEST
            }
            Self::InvalidBody | Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized | Self::PeerRefused => StatusCode::UNAUTHORIZED,
            Self::OriginRefused => StatusCode::FORBIDDEN,
            Self::HostRefused => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound
            | Self::UnknownRunner
            | Self::UnknownPool
            | Self::UnknownHost
            | Self::UnknownReplica
            | Self::UnknownJob
            | Self::UnknownIntent => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RunnerBusy | Self::NoContainer | Self::OtherReplica => StatusCode::CONFLICT,
            Self::OwnerUnreachable => StatusCode::BAD_GATEWAY,
            Self::TooManyFollowers => StatusCode::TOO_MANY_REQUESTS,
            Self::Starting
            | Self::Stopping
            | Self::StoreUnavailable
            | Self::DockerUnavailable
            | Self::Timeout
            | Self::Stuck => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::InvalidJson => "The body is not JSON",
            Self::InvalidBody => "The body has fields that cannot be used",
            Self::InvalidQuery => "The query cannot be used",
            Self::InvalidPath => "The path cannot be used",
            Self::InvalidHeader => "A header cannot be used",
            Self::UnsupportedMediaType => "The body must be application/json",
            Self::BodyTooLarge => "The body is too large",
            Self::BodyTimeout => "The body did not arrive in time",
            Self::Unauthorized => "A valid API token is needed",
            Self::PeerRefused => "The request does not come from a replica of this cluster",
            Self::OriginRefused => "Requests from other web pages are refused",
            Self::HostRefused => "The Host header names another server",
            Self::NotFound => "No such route",
            Self::UnknownRunner => "No such runner",
            Self::UnknownPool => "No such pool",
            Self::UnknownHost => "No such host",
            Self::UnknownReplica => "No such replica",
            Self::UnknownJob => "No such job waits",
            Self::UnknownIntent => "No such intent",
            Self::MethodNotAllowed => "The route does not take this method",
            Self::RunnerBusy => "The runner is running a job",
            Self::NoContainer => "The runner has no container now",
            Self::OtherReplica => "The runner's host belongs to another replica",
            Self::OwnerUnreachable => "The replica that cares for the runner does not answer",
            Self::IdempotencyMismatch => "The idempotency key was used for another request",
            Self::TooManyFollowers => "Too many logs are being followed",
            Self::Starting => "Still starting",
            Self::Stopping => "Stopping",
            Self::StoreUnavailable => "The store does not answer",
            Self::DockerUnavailable => "Docker does not answer",
            Self::Timeout => "The answer took too long",
            Self::Stuck => "The process does not make progress",
            Self::Internal => "Something went wrong here",
        }
    }

    fn retry_after_seconds(self) -> Option<u64> {
        match self {
            Self::Starting | Self::Stopping | Self::TooManyFollowers => Some(2),
            Self::StoreUnavailable
            | Self::DockerUnavailable
            | Self::OwnerUnreachable
            | Self::Timeout => Some(5),
            _ => None,
        }
    }
}

/// One field that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name in the body or the query.
    pub field: String,
    pub detail: String,
}

/// A problem before it is written out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem with its explanation for this very request.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    /// The same, naming the fields.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The body as it is sent.
    #[must_use]
    pub fn body(&self, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: format!("urn:runner-orchestrator:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail.chars().take(DETAIL_CHARS_MAX).collect(),
            instance: request_id.to_owned(),
            code: self.code,
            errors: self.errors.clone(),
            retry_after_seconds: self.code.retry_after_seconds(),
        }
    }
}

/// What was done wrong, or what went wrong (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// A name for the kind of problem, stable over versions.
    #[serde(rename = "type")]
    #[schema(example = "urn:runner-orchestrator:problem:unknown_runner")]
    pub kind: String,
    pub title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this very request, and what to do about it.
    pub detail: String,
    /// The request's id, as in `x-request-id` and in the logs.
    pub instance: String,
    pub code: Code,
    /// Every field that cannot be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl IntoResponse for Problem {
    /// Status and headers; [`super::request`] writes the body.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"runner-orchestrator\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.code.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The one that a client asked for by a name that more than one may have.
pub fn the_only<T>(
    mut found: impl Iterator<Item = T>,
    kind: &str,
    asked: &str,
    code: Code,
) -> Result<T, Problem> {
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            let detail = format!("{} names more than one {kind}; give its id", quoted(asked));
            Err(Problem::new(code, detail))
        }
        (None, _) => {
            let detail = format!("no {kind} {}; see /api/v1/{kind}s", quoted(asked));
            Err(Problem::new(code, detail))
        }
    }
}

/// Something a client sent, made safe to quote: no control characters, short.
#[must_use]
pub fn quoted(text: &str) -> String {
    /// Longer than any id or name of ours.
    const CHARS_MAX: usize = 80;
    let mut safe: String = text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect();
    if safe.chars().count() < text.chars().count() {
        safe.push('…');
    }
    format!("\"{safe}\"")
}
