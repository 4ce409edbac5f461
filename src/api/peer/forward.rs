//! Sending a request on to the replica that cares for the runner's host.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::sign::{Nonce, Signed};
use super::{DEADLINE, HOP, NONCE, SIGNATURE, TIMESTAMP, TRACEPARENT, shared_now};
use crate::api::ApiState;
use crate::api::problem::{Code, Problem};
use crate::api::reading::Reading;
use crate::api::request::{RequestId, X_REQUEST_ID};
use crate::fleet::id::{HostId, ReplicaId};
use crate::telemetry::chain;
use crate::telemetry::metrics::PeerForward;
use crate::telemetry::trace;

/// For the head of a log's answer: the owner gives Docker five seconds, and the client
/// hears of an owner that is away before its own ten seconds are over.
pub const LOG_DEADLINE: Duration = Duration::from_millis(7_500);
/// A hint helps at once or not at all.
pub const HINT_DEADLINE: Duration = Duration::from_secs(1);
/// A replica that is there takes a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A followed log may be quiet for hours; a peer that vanished is noticed all the same.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// What of the owner's answer the client gets beside status and body.
const PASSED: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::RETRY_AFTER, HeaderName::from_static("x-accel-buffering")];

/// Marks an answer whose body is another replica's, also when it is a problem.
#[derive(Clone, Copy, Debug)]
pub struct PassedOn;

/// The client for other replicas. It follows no redirect and uses no proxy.
#[derive(Clone, Debug)]
pub struct PeerClient(Option<reqwest::Client>);

impl PeerClient {
    /// Made once; without a TLS implementation nothing can be forwarded.
    #[must_use]
    pub fn new() -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build();
        Self(client.inspect_err(|error| warn!(error = %chain(error), "no client")).ok())
    }
}

impl Default for PeerClient {
    fn default() -> Self {
        Self::new()
    }
}

/// The replica that cares for a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    pub replica: ReplicaId,
    /// For people.
    pub name: String,
    pub address: Option<String>,
}

/// What is sent on.
#[derive(Debug)]
pub struct Sending<'a> {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub accept: Option<&'a header::HeaderValue>,
    pub request_id: &'a RequestId,
    pub body: Vec<u8>,
    pub within: Duration,
}

impl ApiState {
    /// The replica that must be asked about a host; `None`: this one reaches it itself.
    pub async fn owner_elsewhere(&self, reading: &Reading, host: HostId) -> Option<Owner> {
        let own = self.handle.replica;
        let reported_by = reading.host(&host).map(|record| record.replica);
        if reported_by == Some(own) {
            return None;
        }
        let known = self.company().await;
        // Who stands by for a host has the same Docker daemon before it.
        if known.company.replicas.get(&own).is_some_and(|record| record.host == Some(host)) {
            return None;
        }
        let replica = known.agent_of(host, reported_by).filter(|agent| *agent != own)?;
        let record = known.company.replicas.get(&replica);
        let name = match record {
            Some(_) => known.name(replica),
            // It has not announced itself lately; its host is what people know.
            None => reading.host(&host).map_or_else(
                || known.name(replica),
                |record| format!("{} on {}", known.name(replica), record.hostname),
            ),
        };
        Some(Owner { replica, name, address: record.and_then(|it| it.advertise.clone()) })
    }

    /// Sends a request on, and its answer back as it comes.
    ///
    /// # Errors
    /// Forwarding is off, or the owner cannot be reached; both name the owner.
    pub async fn forward(&self, owner: &Owner, sending: Sending<'_>) -> Result<Response, Problem> {
        let deadline = Instant::now() + sending.within;
        let target = sending.target.clone();
        let sent = match self.signed(owner, sending).await {
            Ok(request) => timeout_at(deadline, request.send()).await,
            Err(problem) => return Err(problem),
        };
        let metrics = &self.handle.edges.metrics;
        let why = match sent {
            Ok(Ok(answer)) if answer.status() == StatusCode::UNAUTHORIZED => {
                metrics.peer_forward(PeerForward::Refused);
                let detail = format!(
                    "{} refuses what this replica forwards; give every replica the same \
                     CLUSTER_SECRET, and see orchestrator_peer_requests_total there",
                    owner.name
                );
                return Err(Problem::new(Code::OwnerUnreachable, detail));
            }
            Ok(Ok(answer)) => {
                metrics.peer_forward(PeerForward::Answered);
                return Ok(passed_on(answer));
            }
            Ok(Err(error)) => chain(&error.without_url()),
            Err(_) => "no answer in time".to_owned(),
        };
        metrics.peer_forward(PeerForward::Unreachable);
        info!(owner = %owner.replica, target, error = why, "could not reach another replica");
        let detail = format!("{} does not answer: {why}", owner.name);
        Err(Problem::new(Code::OwnerUnreachable, detail))
    }

    async fn signed(
        &self,
        owner: &Owner,
        sending: Sending<'_>,
    ) -> Result<reqwest::RequestBuilder, Problem> {
        let peers = &self.handle.settings.peers;
        let (Some(secret), Some(client)) = (&peers.secret, &self.peer_client.0) else {
            let detail = format!(
                "its host belongs to {}; ask that replica{}, or set CLUSTER_SECRET on every \
                 replica to have requests forwarded",
                owner.name,
                owner.address.as_ref().map_or_else(String::new, |at| format!(" at {at}")),
            );
            return Err(Problem::new(Code::OtherReplica, detail));
        };
        let Some(address) = &owner.address else {
            self.handle.edges.metrics.peer_forward(PeerForward::Unreachable);
            let detail = format!(
                "its host belongs to {}, which is away or has no address that this replica \
                 reaches (ADVERTISE_URL there)",
                owner.name
            );
            return Err(Problem::new(Code::OwnerUnreachable, detail));
        };
        let (at, nonce) = (shared_now(self).await, Nonce::fresh());
        let signed = Signed {
            method: sending.method.as_str(),
            target: &sending.target,
            to: owner.replica,
            at,
            nonce,
            body: &sending.body,
        };
        let signature = signed.signature(secret).unwrap_or_default();
        let mut request = client
            .request(sending.method.clone(), format!("{address}{}", sending.target))
            .header(HOP, "1")
            .header(TIMESTAMP, at.0)
            .header(NONCE, nonce.text())
            .header(SIGNATURE, signature)
            .header(DEADLINE, u64::try_from(sending.within.as_millis()).unwrap_or(u64::MAX))
            .header(X_REQUEST_ID, sending.request_id.as_str());
        if let Some(accept) = sending.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(traceparent) = trace::traceparent() {
            request = request.header(TRACEPARENT, traceparent);
        }
        Ok(request.body(sending.body))
    }
}

/// The owner's answer, its body piece by piece as it arrives.
fn passed_on(answer: reqwest::Response) -> Response {
    let mut headers = HeaderMap::new();
    for name in PASSED {
        if let Some(value) = answer.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let status = answer.status();
    let pieces = stream::unfold(Some(answer), |answer| async move {
        let mut answer = answer?;
        match answer.chunk().await {
            Ok(Some(piece)) => Some((Ok::<Bytes, reqwest::Error>(piece), Some(answer))),
            Ok(None) => None,
            // The status is long out: the connection breaks, so that nobody takes this for
            // the end.
            Err(error) => Some((Err(error.without_url()), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(PassedOn);
    response
}
