//! What replicas ask of each other: a request for a runner on another replica's host is
//! forwarded there, once. It is signed with the cluster's secret, so that it needs no
//! token; forged, late and replayed ones are refused and counted.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::warn;

use super::ApiState;
use super::extract::read;
use super::problem::{Code, Problem};
use crate::fleet::time::Timestamp;
use crate::telemetry::metrics::PeerRequest;

pub mod forward;
pub mod sign;

use sign::{Nonce, Signed};

/// Says that another replica sent this, and that it must not go further.
pub const HOP: HeaderName = HeaderName::from_static("x-forwarded-hop");
/// The instant of the signature, in milliseconds since 1970 by the store's time.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("x-peer-timestamp");
/// 32 hexadecimal digits that are used once.
pub const NONCE: HeaderName = HeaderName::from_static("x-peer-nonce");
/// 64 hexadecimal digits.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-peer-signature");
/// How long the sender waits for the answer's head, in milliseconds.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-peer-deadline-ms");
/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A signature older or younger than this is refused.
pub const TIMESTAMP_TOLERANCE: Duration = Duration::from_secs(30);
/// The store tells the time in a millisecond or two, or this process's clock is used.
const CLOCK_TIMEOUT: Duration = Duration::from_millis(300);

/// Routes that are forwarded; a signature opens no other.
const ROUTES: [&str; 2] = ["/api/v1/runners/{id}", "/api/v1/runners/{id}/logs"];

/// A request that another replica has forwarded, proven by its signature.
#[derive(Clone, Debug)]
pub struct Forwarded {
    pub body: Bytes,
    /// How long the sender waits.
    pub deadline: Option<Duration>,
}

/// Whether a request says that another replica sent it.
#[must_use]
pub fn claims(headers: &HeaderMap) -> bool {
    headers.contains_key(&HOP)
}

/// Lets a forwarded request in, marked as [`Forwarded`].
///
/// # Errors
/// What is wrong with it; counted.
pub async fn admit(state: &ApiState, request: Request) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = read(body).await?;
    let forwarded = match verify(state, &parts, body).await {
        Ok(forwarded) => forwarded,
        Err((outcome, detail)) => {
            state.handle.edges.metrics.peer_request(outcome);
            warn!(outcome = outcome.as_str(), detail, "refusing a request of another replica");
            return Err(Problem::new(Code::PeerRefused, detail));
        }
    };
    state.handle.edges.metrics.peer_request(PeerRequest::Accepted);
    parts.extensions.insert(forwarded);
    Ok(Request::from_parts(parts, Body::empty()))
}

type Refused = (PeerRequest, &'static str);

async fn verify(state: &ApiState, parts: &Parts, body: Bytes) -> Result<Forwarded, Refused> {
    let forged = |detail| (PeerRequest::Forged, detail);
    let secret = state.handle.settings.peers.secret.as_ref();
    let secret =
        secret.ok_or_else(|| forged("forwarding is off here: CLUSTER_SECRET is not set"))?;
    let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    if !route.is_some_and(|route| ROUTES.contains(&route)) {
        return Err(forged("this route is never forwarded"));
    }
    if only(&parts.headers, HOP).is_none_or(|hop| hop != "1") {
        return Err(forged("a request is forwarded once and no further"));
    }
    let text = |name| only(&parts.headers, name);
    let at = text(TIMESTAMP).and_then(|text| text.parse().ok()).map(Timestamp);
    let nonce = text(NONCE).and_then(Nonce::parse);
    let (Some(at), Some(nonce), Some(signature)) = (at, nonce, text(SIGNATURE)) else {
        return Err(forged("the signature is missing or incomplete"));
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let signed = Signed {
        method: parts.method.as_str(),
        target,
        to: state.handle.replica,
        at,
        nonce,
        body: &body,
    };
    if !signed.is_signed_by(secret, signature) {
        return Err(forged(
            "the signature is not of this cluster's secret, or not for this replica",
        ));
    }
    // The store is asked only for those who know the secret.
    let now = shared_now(state).await;
    if now.since(at) > TIMESTAMP_TOLERANCE || at.since(now) > TIMESTAMP_TOLERANCE {
        return Err((PeerRequest::Late, "the signature is too old, or from the future"));
    }
    state.nonces.admit(nonce, now)?;
    let deadline = text(DEADLINE).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    Ok(Forwarded { body, deadline })
}

/// The one value of a header; none when it is missing, given twice or no text.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(text)), None) => Some(text),
        _ => None,
    }
}

/// The time that all replicas share; this process's own while the store is away.
async fn shared_now(state: &ApiState) -> Timestamp {
    let edges = &state.handle.edges;
    match tokio::time::timeout(CLOCK_TIMEOUT, edges.store.now()).await {
        Ok(Ok(now)) => now,
        Ok(Err(_)) | Err(_) => edges.clock.now(),
    }
}
