//! How a listener reaches the runner service: over HTTP, or in the same process.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::sim::github::runner_service::{
    Completion, JobMessage, Message, Renewed, SessionOpened, SessionRequest,
};
use crate::sim::github::{JitConfig, JobId};

/// Every call but a poll is answered within this.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A poll may take this much longer than it is held.
const POLL_GRACE: Duration = Duration::from_secs(10);
/// Largest answer of the service; a job message has a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// A way to the runner service.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Over sockets, to the URL of the JIT configuration.
    Http(reqwest::Client),
    /// Straight into a model's router: thousands of listeners without a socket.
    InProcess(Router),
}

impl Transport {
    /// A plain HTTP client; proxies of the environment are not used.
    ///
    /// # Errors
    /// When no client can be built.
    pub fn http() -> Result<Self, reqwest::Error> {
        Ok(Self::Http(crate::sim::http::plain_client().tcp_nodelay(true).build()?))
    }
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer within {seconds} s")]
    Timeout { seconds: u64 },
    #[error("the service could not be reached")]
    Unreachable,
    #[error("the service answered {0}")]
    Status(StatusCode),
    #[error("the answer was not understood")]
    Body,
}

/// An attempt to open a session.
pub(super) enum Opened {
    Session(String),
    Conflict,
    Refused,
    Gone,
}

/// A poll's answer.
pub(super) enum Polled {
    Job(JobMessage),
    Nothing,
    Gone,
}

/// The runner service of one listener.
pub(super) struct Service {
    transport: Transport,
    base: String,
}

impl Service {
    pub(super) fn new(transport: Transport, config: &JitConfig) -> Self {
        Self { transport, base: config.server_url.clone() }
    }

    pub(super) async fn open(&self, config: &JitConfig) -> Result<Opened, CallError> {
        let request = SessionRequest {
            agent_id: config.agent_id,
            secret: config.secret.expose_secret().to_owned(),
        };
        let path = "/_runner/sessions";
        let (status, body) = self.call(Method::POST, path, json(&request)?, CALL_LIMIT).await?;
        match status {
            StatusCode::CREATED => Ok(Opened::Session(parse::<SessionOpened>(&body)?.session_id)),
            StatusCode::CONFLICT => Ok(Opened::Conflict),
            StatusCode::UNAUTHORIZED => Ok(Opened::Refused),
            StatusCode::NOT_FOUND => Ok(Opened::Gone),
            other => Err(CallError::Status(other)),
        }
    }

    pub(super) async fn close(&self, session: &str) -> Result<(), CallError> {
        let path = format!("/_runner/sessions/{session}");
        self.call(Method::DELETE, &path, Bytes::new(), CALL_LIMIT).await.map(|_| ())
    }

    pub(super) async fn poll(&self, session: &str, hold: Duration) -> Result<Polled, CallError> {
        let hold_ms = hold.as_millis();
        let path = format!("/_runner/sessions/{session}/message?hold_ms={hold_ms}");
        let (status, body) = self.call(Method::GET, &path, Bytes::new(), hold + POLL_GRACE).await?;
        match status {
            StatusCode::OK => Ok(Polled::Job(parse::<Message>(&body)?.job)),
            StatusCode::NO_CONTENT => Ok(Polled::Nothing),
            StatusCode::NOT_FOUND => Ok(Polled::Gone),
            other => Err(CallError::Status(other)),
        }
    }

    /// Whether the job is this runner's to run.
    pub(super) async fn start(&self, session: &str, job: JobId) -> Result<bool, CallError> {
        self.job_call(session, job, "start", Bytes::new()).await.map(|answer| answer.is_some())
    }

    /// Whether the job shall go on.
    pub(super) async fn renew(&self, session: &str, job: JobId) -> Result<bool, CallError> {
        match self.job_call(session, job, "renew", Bytes::new()).await? {
            Some(body) => Ok(!parse::<Renewed>(&body)?.cancel),
            None => Ok(false),
        }
    }

    pub(super) async fn complete(
        &self,
        session: &str,
        job: JobId,
        result: &str,
    ) -> Result<(), CallError> {
        let body = json(&Completion { result: result.to_owned() })?;
        self.job_call(session, job, "complete", body).await.map(|_| ())
    }

    /// A call about a job; `None` when the service does not know it as ours.
    async fn job_call(
        &self,
        session: &str,
        job: JobId,
        what: &str,
        body: Bytes,
    ) -> Result<Option<Bytes>, CallError> {
        let path = format!("/_runner/sessions/{session}/jobs/{job}/{what}");
        let (status, body) = self.call(Method::POST, &path, body, CALL_LIMIT).await?;
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(CallError::Status(other)),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let answered = timeout(limit, async {
            match &self.transport {
                Transport::Http(client) => self.over_http(client, method, path, body).await,
                Transport::InProcess(router) => in_process(router, method, path, body).await,
            }
        });
        answered.await.map_err(|_| CallError::Timeout { seconds: limit.as_secs() })?
    }

    async fn over_http(
        &self,
        client: &reqwest::Client,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = client
            .request(method, format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let answer = request.send().await.map_err(|_| CallError::Unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|_| CallError::Unreachable)?;
        Ok((status, body))
    }
}

async fn in_process(
    router: &Router,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), CallError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|_| CallError::Unreachable)?;
    let Ok(answer) = router.clone().oneshot(request).await;
    let status = answer.status();
    let body = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await;
    Ok((status, body.map_err(|_| CallError::Body)?))
}

fn json(value: &impl Serialize) -> Result<Bytes, CallError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|_| CallError::Body)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|_| CallError::Body)
}
