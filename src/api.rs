//! The HTTP API: the mission's routes with the original's field names, and beside them
//! what an operator asks next: why this many, why not more, why am I still waiting.
//!
//! It never acts. Every replica answers the same. Reads are rendered from the last view the
//! lead loop published, say how old that is, and cost no GitHub call and, but for logs, no
//! Docker call; a log on another replica's host is asked for there. Writes record an intent in the
//! store and wait a moment for the leader's answer, so that the counts they give are the
//! leader's own. Errors are RFC 9457 problems; bad input never becomes a 5xx.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app::Handle;
use crate::fleet::time::Timestamp;

pub mod ask;
pub mod company;
pub mod connection;
pub mod decisions;
pub mod extract;
pub mod github;
pub mod guard;
pub mod health;
pub mod hosts;
pub mod jobs;
pub mod logs;
pub mod metrics;
pub mod openapi;
pub mod peer;
pub mod pools;
pub mod problem;
pub mod reading;
pub mod remove;
pub mod replicas;
pub mod request;
pub mod runners;
pub mod scale;
pub mod shape;
pub mod status;
mod streamed;

pub use openapi::openapi_json;

/// What the API is told by the configuration.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Demanded as a bearer token of everything but the probes and the documentation.
    /// `None`: open; the configuration has made sure that this is meant.
    pub api_token: Option<SecretString>,
    /// Names beside `localhost` and the listen address that `Host` may carry.
    pub allowed_hosts: Vec<String>,
    pub listen_addr: SocketAddr,
    pub version: String,
    /// Shown in `/status`.
    pub poll_interval: Duration,
    pub idle_timeout: Duration,
    pub runner_image: String,
    pub started_at: Timestamp,
}

/// Renders the metrics in Prometheus' text format 0.0.4.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Told of every answer: method, route template (never a path), status, time taken.
pub type HttpObserver = Arc<dyn Fn(&'static str, &str, u16, Duration) + Send + Sync>;

/// Whether what must never stand still has moved lately; else what stands still.
pub type Alive = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    handle: Handle,
    settings: Arc<ApiSettings>,
    hosts_allowed: Arc<guard::AllowedHosts>,
    metrics_text: MetricsText,
    observer: Option<HttpObserver>,
    recorder: decisions::Recorder,
    keys: Arc<Mutex<ask::SeenKeys>>,
    followers: Arc<Semaphore>,
    company: Arc<company::LastReading>,
    nonces: Arc<peer::sign::Nonces>,
    peer_client: peer::forward::PeerClient,
    alive: Option<Alive>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ApiState {
    /// From the running loops. `metrics_text` is called on every scrape.
    #[must_use]
    pub fn new(handle: Handle, settings: ApiSettings, metrics_text: MetricsText) -> Self {
        let hosts_allowed = guard::AllowedHosts::new(settings.listen_addr, &settings.allowed_hosts);
        Self {
            handle,
            settings: Arc::new(settings),
            hosts_allowed: Arc::new(hosts_allowed),
            metrics_text,
            observer: None,
            recorder: decisions::Recorder::default(),
            keys: Arc::default(),
            followers: Arc::new(Semaphore::new(logs::FOLLOWERS_MAX)),
            company: Arc::default(),
            nonces: Arc::default(),
            peer_client: peer::forward::PeerClient::new(),
            alive: None,
        }
    }

    /// Has `observer` told of every answer.
    #[must_use]
    pub fn observed_by(mut self, observer: HttpObserver) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Has `/livez` ask `alive`.
    #[must_use]
    pub fn alive_while(mut self, alive: Alive) -> Self {
        self.alive = Some(alive);
        self
    }

    /// Where decisions are kept for `/api/v1/decisions`; [`decisions::record`] fills it.
    #[must_use]
    pub fn recorder(&self) -> decisions::Recorder {
        self.recorder.clone()
    }
}

/// The whole API as one router: routes, documentation, guards, problems.
pub fn router(state: ApiState) -> Router {
    let (routes, document) = openapi::documented().split_for_parts();
    let document = openapi::finish(document);
    let routes = routes.merge(openapi::swagger_ui(document));
    request::wrap(routes, state)
}

/// Serves until cancelled, then gives requests under way [`connection::DRAIN_GRACE`].
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    connection::serve(listener, router, cancel).await
}
