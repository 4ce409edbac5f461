//! A model without a socket, under a paused clock: an hour takes no time.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use runner_orchestrator::sim::github::{SimGitHub, SimOptions};
use runner_orchestrator::sim::listener::{ListenerOptions, Transport};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::support::{Listening, text};

/// 2026-01-02T03:04:05Z.
pub(crate) const START_MS: u64 = 1_767_323_045_000;

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null when the body is empty or no JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) struct Quiet {
    pub(crate) sim: SimGitHub,
    pub(crate) router: Router,
}

impl Quiet {
    pub(crate) fn new() -> Self {
        Self::with(SimOptions::default())
    }

    pub(crate) fn with(options: SimOptions) -> Self {
        let sim = SimGitHub::new(&SimOptions { start_epoch_ms: Some(START_MS), ..options });
        let router = sim.router();
        Self { sim, router }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        // The runner service is not part of the API.
        let root = if path.starts_with("/_") { "" } else { "/api/v3" };
        let mut request = Request::builder().method(method).uri(format!("{root}{path}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let given = |name: &str| headers.iter().any(|(given, _)| *given == name);
        if !given("authorization") {
            request = request.header("authorization", "Bearer sim-token");
        }
        for (name, value) in [("host", "model.test"), ("user-agent", "test")] {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 * 1_024 * 1_024).await.unwrap_or_default();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn try_mint(&self, name: &str, labels: &[&str]) -> Answer {
        let body = json!({"name": name, "runner_group_id": 1, "labels": labels});
        self.post("/orgs/acme/actions/runners/generate-jitconfig", body).await
    }

    pub(crate) async fn mint(&self, name: &str) -> (u64, String) {
        let minted = self.try_mint(name, &["self-hosted"]).await;
        assert_eq!(minted.status, StatusCode::CREATED, "{}", minted.body);
        let id = minted.body["runner"]["id"].as_u64().unwrap();
        (id, text(&minted.body["encoded_jit_config"]))
    }

    pub(crate) fn listen(&self, blob: &str) -> Listening {
        let transport = Transport::InProcess(self.router.clone());
        Listening::start(ListenerOptions::new(transport, self.sim.clock()), blob)
    }

    /// Names and states of the listed runners of the organisation.
    pub(crate) async fn listed(&self) -> Vec<(String, String, bool)> {
        let list = self.get("/orgs/acme/actions/runners").await;
        assert_eq!(list.status, StatusCode::OK);
        let runners = list.body["runners"].as_array().unwrap().clone();
        let one = |r: &Value| (text(&r["name"]), text(&r["status"]), r["busy"] == true);
        runners.iter().map(one).collect()
    }
}

/// Lets modelled time pass.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
