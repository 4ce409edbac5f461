//! What happens to every request, whatever its route: an id, a span, a time limit, one
//! line in the log, and an answer whose headers and errors have one shape.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, debug, error, info, info_span};

use super::ApiState;
use super::guard::guard;
use super::peer::Forwarded;
use super::peer::forward::PassedOn;
use super::problem::{Code, Problem, quoted};
use crate::clock::Clock;

/// From the request's head to the answer's head. Bodies that stream are not held to it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A client's own request id is taken over up to this length.
const REQUEST_ID_BYTES_MAX: usize = 64;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Nothing here may be framed, and no script of ours exists outside `/docs`.
const CSP: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'";
/// Swagger UI brings its own scripts and sets styles on elements.
const CSP_DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; \
     base-uri 'none'; form-action 'none'";

/// The id of one request, in logs and in the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// The client's own id when it is short and plain, else a new one.
    fn of(headers: &HeaderMap, clock: &dyn Clock) -> Self {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        headers
            .get(X_REQUEST_ID)
            .map(HeaderValue::as_bytes)
            .filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()))
            .filter(|id| id.iter().all(plain))
            .and_then(|id| String::from_utf8(id.to_vec()).ok())
            .map_or_else(|| Self(clock.ordered_id().to_string()), Self)
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Puts everything around the routes, outermost last.
pub fn wrap(routes: Router<ApiState>, state: ApiState) -> Router {
    routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(limit_time))
        .layer(from_fn_with_state(state.clone(), guard))
        .layer(from_fn_with_state(state.clone(), seal))
        .with_state(state)
}

async fn unknown_route(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; see /docs", quoted(uri.path()));
    Problem::new(Code::NotFound, detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let (method, path) = (quoted(method.as_str()), quoted(uri.path()));
    Problem::new(Code::MethodNotAllowed, format!("{path} does not take {method}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    error!(panic = what, "a request handler panicked");
    Problem::new(Code::Internal, "the log has the cause under this request's id").into_response()
}

async fn limit_time(request: Request, next: Next) -> Response {
    // Another replica does not wait longer for us than its own client for it.
    let asked = request.extensions().get::<Forwarded>().and_then(|it| it.deadline);
    let limit = asked.unwrap_or(ANSWER_TIMEOUT).min(ANSWER_TIMEOUT);
    let answer = tokio::time::timeout(limit, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let detail = format!("no answer within {:.1} s", limit.as_secs_f64());
        Problem::new(Code::Timeout, detail).into_response()
    })
}

/// Gives the request its id and span, and finishes the answer.
async fn seal(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = RequestId::of(request.headers(), state.handle.edges.clock.as_ref());
    let method = method_name(request.method());
    let docs = request.uri().path().starts_with("/docs");
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = info_span!("http.request", method, route, request.id = id.0);
    request.extensions_mut().insert(id.clone());
    let response = next.run(request).instrument(span.clone()).await;
    let response = finish(response, &id, docs);
    let took = begun.elapsed();
    let status = response.status();
    span.in_scope(|| log(method, &route, status, took, &id));
    if let Some(observer) = &state.observer {
        observer(method, &route, status.as_u16(), took);
    }
    response
}

fn log(method: &str, route: &str, status: StatusCode, took: Duration, id: &RequestId) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let status = status.as_u16();
    // Reads come every few seconds from dashboards and scrapes; what changes something,
    // and what is refused, is rare and worth a line.
    if status < 400 && matches!(method, "GET" | "HEAD" | "OPTIONS") {
        debug!(method, route, status, duration_ms, request.id = id.0, "answered a request");
    } else {
        info!(method, route, status, duration_ms, request.id = id.0, "answered a request");
    }
}

fn finish(mut response: Response, id: &RequestId, docs: bool) -> Response {
    let said = response.extensions_mut().remove::<Problem>();
    let passed_on = response.extensions().get::<PassedOn>().is_some();
    let unsaid = || if passed_on { None } else { unsaid(response.status()) };
    if let Some(problem) = said.or_else(unsaid) {
        let json = serde_json::to_vec(&problem.body(&id.0)).unwrap_or_default();
        *response.body_mut() = Body::from(json);
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(X_REQUEST_ID, id);
    }
    let csp = if docs { CSP_DOCS } else { CSP };
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, csp),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !docs {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The problem of an error that no handler of ours has put into words (the
/// documentation's own files answer with a bare status).
fn unsaid(status: StatusCode) -> Option<Problem> {
    match status {
        StatusCode::NOT_FOUND => Some(Problem::new(Code::NotFound, "there is nothing here")),
        StatusCode::METHOD_NOT_ALLOWED => {
            Some(Problem::new(Code::MethodNotAllowed, "see the header allow"))
        }
        status if status.is_server_error() => {
            Some(Problem::new(Code::Internal, "the log has the cause under this request's id"))
        }
        _ => None,
    }
}

/// A closed set: a client's own method must not become a metric label.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
