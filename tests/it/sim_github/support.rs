//! What the tests of the modelled GitHub share.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use reqwest::{Client, Method, RequestBuilder, Response};
use runner_orchestrator::sim::github::{SimGitHub, SimHandle, SimOptions};
use runner_orchestrator::sim::listener::{self, ListenerOptions, StopSignal, Transport};
use serde_json::{Value, json};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A served model with a plain HTTP client.
pub(crate) struct Model {
    pub(crate) handle: SimHandle,
    pub(crate) client: Client,
}

impl Model {
    pub(crate) async fn start() -> Self {
        Self::with(SimOptions::default()).await
    }

    pub(crate) async fn with(options: SimOptions) -> Self {
        let handle = SimGitHub::start(options).await.unwrap();
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        Self { handle, client }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.handle.api_url()))
            .header("user-agent", "test")
            .bearer_auth("sim-token")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "GET {path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.request(Method::POST, path).json(&body).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    /// Mints at the organisation; answers the runner's id and its blob.
    pub(crate) async fn mint(&self, name: &str, labels: &[&str]) -> (u64, String) {
        let body = json!({"name": name, "runner_group_id": 1, "labels": labels});
        let response = self.post("/orgs/acme/actions/runners/generate-jitconfig", body).await;
        assert_eq!(response.status(), 201);
        let body: Value = response.json().await.unwrap();
        (body["runner"]["id"].as_u64().unwrap(), text(&body["encoded_jit_config"]))
    }

    /// Starts a listener over HTTP.
    pub(crate) fn listen(&self, blob: &str) -> Listening {
        self.listen_with(blob, |_| ())
    }

    pub(crate) fn listen_with(
        &self,
        blob: &str,
        change: impl FnOnce(&mut ListenerOptions),
    ) -> Listening {
        let mut options = ListenerOptions::new(Transport::http().unwrap(), self.handle.clock());
        change(&mut options);
        Listening::start(options, blob)
    }
}

/// The text of a JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A listener that runs in this process. Dropping it is a kill -9.
pub(crate) struct Listening {
    task: Option<JoinHandle<i32>>,
    signals: mpsc::UnboundedSender<StopSignal>,
    output: Output,
}

impl Listening {
    pub(crate) fn start(options: ListenerOptions, blob: &str) -> Self {
        let (signals, receiver) = mpsc::unbounded_channel();
        let stream =
            stream::unfold(receiver, |mut r| async { r.recv().await.map(|s| (s, r)) }).boxed();
        let output = Output::default();
        let input = io::Cursor::new(format!("{blob}\n").into_bytes());
        let out = output.clone();
        #[expect(clippy::disallowed_methods, reason = "the task ends with this handle")]
        let task = tokio::spawn(async move { listener::run(options, input, out, stream).await });
        Self { task: Some(task), signals, output }
    }

    pub(crate) fn signal(&self, signal: StopSignal) {
        self.signals.send(signal).unwrap();
    }

    /// Waits for its end; answers its exit code.
    pub(crate) async fn ended(&mut self) -> i32 {
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(300), task).await.unwrap().unwrap()
    }

    pub(crate) fn output(&self) -> String {
        self.output.text()
    }

    /// Waits until it has printed this.
    pub(crate) async fn printed(&self, wanted: &str) {
        until(wanted, || self.output().contains(wanted)).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Waits until something is true, at most half a minute.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen: {what}");
}

/// What was written to it.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
