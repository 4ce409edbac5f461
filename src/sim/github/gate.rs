//! What every API request passes: user agent, faults, identity, limits; and what
//! every answer gets: rate headers, `ETag`, broken connections on request.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, sleep};

use super::SimGitHub;
use super::auth::Grant;
use super::bodies::Places;
use super::errors::ApiFailure;
use super::faults::Hit;
use super::limits::{Cost, Crossed, Standing};
use super::serve::Peer;
use super::state::World;
use super::unverified::Assumption;
use super::webhooks::hex;

/// Prefix of the GHES form of the API.
pub(crate) const GHES: &str = "/api/v3";
/// Time for the first half of a truncated answer to leave.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);
/// Values of `X-GitHub-Api-Version` that exist.
const API_VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];
/// Largest answer the model makes: 100 runs with two repositories each are about 2 MB.
const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// What the gate found out about a request, for its handler.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) grant: Grant,
    pub(crate) places: Places,
    /// `http://HOST` without a path.
    pub(crate) origin: String,
    /// The absolute URL asked for.
    pub(crate) url: String,
    /// Age of runner lists for this request.
    pub(crate) stale_ms: u64,
}

/// How a request is counted.
struct Route {
    method: Method,
    template: String,
}

impl Route {
    fn of(request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let path = path.unwrap_or("(unknown)");
        let template = path.strip_prefix(GHES).unwrap_or(path).to_owned();
        Self { method: request.method().clone(), template }
    }

    fn cost(&self) -> Cost {
        let reads = matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS);
        Cost {
            points: if reads { 1 } else { 5 },
            content: self.method == Method::POST,
            primary_free: self.template == "/rate_limit",
        }
    }

    fn mints(&self) -> bool {
        self.template.ends_with("/generate-jitconfig")
    }
}

/// Gives the open request back also when its client goes away.
struct Entered<'a> {
    sim: &'a SimGitHub,
    account: &'a str,
    /// Whether it turned out to cost no primary point.
    free: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.sim.with(|world, _| {
            world.limits.leave(self.account, self.free);
            world.points += u64::from(!self.free);
        });
    }
}

/// The middleware around every route of the API.
pub(crate) async fn pass(State(sim): State<SimGitHub>, request: Request, next: Next) -> Response {
    let route = Route::of(&request);
    let hit = sim.with(|world, _| {
        *world.calls.entry(format!("{} {}", route.method, route.template)).or_default() += 1;
        world.faults.hit(route.method.as_str(), &route.template, &mut world.fault_random)
    });
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
    let response = admitted(&sim, &route, &hit, request, next).await;
    break_on_request(&hit, peer, response).await
}

async fn admitted(
    sim: &SimGitHub,
    route: &Route,
    hit: &Hit,
    mut request: Request,
    next: Next,
) -> Response {
    if !request.headers().contains_key(header::USER_AGENT) {
        let message = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header";
        return ApiFailure::new(StatusCode::FORBIDDEN, message).into_response();
    }
    let version = request.headers().get("x-github-api-version");
    if version.is_some_and(|version| !API_VERSIONS.iter().any(|known| version == known)) {
        let message = "This API version is not supported.";
        return ApiFailure::new(StatusCode::GONE, message).into_response();
    }
    let authorization = text(request.headers(), &header::AUTHORIZATION).map(str::to_owned);
    let grant = sim.with(|world, now| world.accounts.identify(authorization.as_deref(), now));
    let grant = match grant {
        Ok(grant) => grant,
        Err(failure) => return failure.into_response(),
    };
    let account = grant.account.clone();
    let entered = sim.with(|world, now| {
        let limit = world.primary_limit(&grant);
        world.limits.enter(now, &account, limit, route.cost(), &world.settings)
    });
    if let Err(crossed) = entered {
        return over_limit(sim, &grant, route, crossed);
    }
    let mut entered = Entered { sim, account: &account, free: route.cost().primary_free };
    if hit.latency_ms > 0 {
        // Inside the gate: a slow request counts as an open one.
        sleep(Duration::from_millis(hit.latency_ms)).await;
    }
    let known = text(request.headers(), &header::IF_NONE_MATCH).map(str::to_owned);
    let asked = asked(sim, &request, grant.clone(), hit);
    request.extensions_mut().insert(asked);
    let response = match hit.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        Some(status) => faulted(sim, status, hit, route, request, next).await,
        None => next.run(request).await,
    };
    let response = conditional(sim, &grant, route, known.as_deref(), response).await;
    entered.free |= response.status() == StatusCode::NOT_MODIFIED;
    drop(entered);
    with_rate_headers(sim, &grant, route, response)
}

/// Answers a fault's status; a hostile mint registers the runner all the same.
async fn faulted(
    sim: &SimGitHub,
    status: StatusCode,
    hit: &Hit,
    route: &Route,
    request: Request,
    next: Next,
) -> Response {
    let hostile = sim.with(|world, _| world.settings.hostile.hostile(Assumption::MintServerError));
    if hostile && route.mints() && status.is_server_error() {
        drop(next.run(request).await);
    }
    let message = hit.message.clone().unwrap_or_else(|| format!("Modelled fault {status}"));
    let mut failure = ApiFailure::new(status, message);
    failure.retry_after_s = hit.retry_after;
    failure.into_response()
}

fn asked(sim: &SimGitHub, request: &Request, grant: Grant, hit: &Hit) -> Asked {
    let host = text(request.headers(), &header::HOST).unwrap_or("localhost");
    let origin = format!("http://{host}");
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let root = if path.starts_with(GHES) { GHES } else { "" };
    let stale_s = hit.stale_seconds.unwrap_or_else(|| sim.with(|w, _| w.settings.stale_seconds));
    Asked {
        grant,
        places: Places::new(&format!("{origin}{root}")),
        url: format!("{origin}{path}"),
        origin,
        stale_ms: stale_s.min(super::settings::STALE_SECONDS_MAX) * 1_000,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn over_limit(sim: &SimGitHub, grant: &Grant, route: &Route, crossed: Crossed) -> Response {
    let (status, silent) = sim.with(|world, _| {
        let hostile = &world.settings.hostile;
        let status = if hostile.hostile(Assumption::LimitStatus) {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::FORBIDDEN
        };
        (status, hostile.hostile(Assumption::SecondaryRetryAfter))
    });
    let mut failure = match crossed {
        Crossed::Primary => {
            ApiFailure::new(status, format!("API rate limit exceeded for {}.", grant.account))
        }
        Crossed::Secondary { .. } => ApiFailure::new(
            status,
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        ),
    };
    if let Crossed::Secondary { retry_after_s } = crossed {
        failure.retry_after_s = (!silent).then_some(retry_after_s);
    }
    with_rate_headers(sim, grant, route, failure.into_response())
}

/// Adds an `ETag` to a good answer, and makes it 304 when the client knows it.
async fn conditional(
    sim: &SimGitHub,
    grant: &Grant,
    route: &Route,
    known: Option<&str>,
    response: Response,
) -> Response {
    if route.method != Method::GET || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let tag = sim.with(|world, _| etag(world, grant, &bytes));
    let matches = known.is_some_and(|known| {
        known.split(',').map(str::trim).any(|one| bare(one) == bare(&tag) || one == "*")
    });
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    if matches {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn bare(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn etag(world: &World, grant: &Grant, bytes: &Bytes) -> String {
    let mut digest = Sha256::new();
    digest.update(bytes);
    if world.settings.hostile.hostile(Assumption::EtagPerToken) {
        digest.update(grant.fingerprint.to_le_bytes());
    }
    let tag = hex(&digest.finalize());
    let weak = world.settings.hostile.hostile(Assumption::EtagWeak);
    format!("{}\"{tag}\"", if weak { "W/" } else { "" })
}

fn with_rate_headers(
    sim: &SimGitHub,
    grant: &Grant,
    route: &Route,
    mut response: Response,
) -> Response {
    let (standing, request_id, separate) = sim.with(|world, now| {
        let limit = world.primary_limit(grant);
        let separate = world.settings.hostile.hostile(Assumption::MintRateResource);
        (world.limits.standing(now, &grant.account, limit), world.id_random.bits(), separate)
    });
    let resource = if separate && route.mints() { "actions_runner_registration" } else { "core" };
    put_standing(response.headers_mut(), standing, resource);
    if let Ok(value) = HeaderValue::from_str(&format!("{request_id:016X}")) {
        response.headers_mut().insert("x-github-request-id", value);
    }
    response
}

fn put_standing(headers: &mut HeaderMap, standing: Standing, resource: &'static str) {
    headers.insert("x-ratelimit-limit", standing.limit.into());
    headers.insert("x-ratelimit-remaining", standing.remaining().into());
    headers.insert("x-ratelimit-used", standing.used.into());
    headers.insert("x-ratelimit-reset", standing.reset_s.into());
    headers.insert("x-ratelimit-resource", HeaderValue::from_static(resource));
}

/// Breaks an answer that a fault wants broken, after its effect has happened.
async fn break_on_request(hit: &Hit, peer: Option<Peer>, response: Response) -> Response {
    if hit.drop_response {
        return match peer {
            Some(peer) => {
                peer.cut();
                StatusCode::BAD_GATEWAY.into_response()
            }
            // Without a socket, a body that breaks at once is the nearest thing.
            None => broken_after(Bytes::new(), response),
        };
    }
    if hit.corrupt {
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::from("{\"total_count\": 1, <html>"));
    }
    if hit.truncate {
        let (parts, body) = response.into_parts();
        let whole = to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
        let half = whole.slice(..whole.len() / 2);
        return broken_after(half, Response::from_parts(parts, Body::empty()));
    }
    response
}

fn broken_after(bytes: Bytes, response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let rest = async {
        // What came before shall be on its way when the connection breaks.
        sleep(FLUSH_PAUSE).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    };
    let body = stream::iter([Ok(bytes)]).chain(stream::once(rest));
    Response::from_parts(parts, Body::from_stream(body))
}
