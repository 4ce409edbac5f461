//! Bare calls, with the statuses and headers that the product's own client interprets.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Probe;
use crate::fleet::pool::Scope;

/// GitHub gives up after 10 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A page of runners is some hundred kilobytes at most.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error("--live needs GITHUB_TOKEN; a GitHub App's tokens are not measured with")]
    NoToken,
    #[error("no pool is configured")]
    NoPool,
    #[error("a client for github could not be made")]
    Client {
        #[source]
        source: reqwest::Error,
    },
    #[error("github did not answer {call}")]
    Call {
        call: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error("github's answer to {call} is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge { call: &'static str },
    #[error("github answered {call} with status {status}: {message}")]
    Refused { call: &'static str, status: u16, message: String },
}

/// An answer. Its body may hold a secret, so it is never shown.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: reqwest::header::HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    pub(super) fn refused(&self, call: &'static str) -> LiveError {
        let message = self.body.get("message").and_then(Value::as_str).unwrap_or("no message");
        LiveError::Refused { call, status: self.status, message: message.to_owned() }
    }
}

/// GitHub's id in a runner's body.
pub(super) fn id(runner: &Value) -> Option<u64> {
    runner.get("id").and_then(Value::as_u64)
}

pub(super) struct Wire {
    http: reqwest::Client,
    /// `<api>/<scope>/actions/runners`
    runners: String,
    token: SecretString,
}

impl Wire {
    pub(super) fn new(
        api_url: &str,
        scope: &Scope,
        token: SecretString,
    ) -> Result<Self, LiveError> {
        let http = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .user_agent(concat!("runner-orchestrator/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| LiveError::Client { source })?;
        let prefix = match scope {
            Scope::Repo(repo) => format!("repos/{repo}"),
            Scope::Org(org) => format!("orgs/{org}"),
            Scope::Enterprise { slug, .. } => format!("enterprises/{slug}"),
        };
        Ok(Self { http, runners: format!("{api_url}/{prefix}/actions/runners"), token })
    }

    pub(super) async fn mint(&self, probe: &Probe) -> Result<Answer, LiveError> {
        let body = json!({
            "name": probe.name,
            "runner_group_id": probe.group_id,
            "labels": [probe.label],
            "work_folder": "_work",
        });
        let request = self.request(Method::POST, "/generate-jitconfig").json(&body);
        send("the registration", request).await
    }

    pub(super) async fn delete(&self, id: u64) -> Result<Answer, LiveError> {
        send("the deletion", self.request(Method::DELETE, &format!("/{id}"))).await
    }

    pub(super) async fn one(&self, id: u64) -> Result<Answer, LiveError> {
        send("the look at a runner", self.request(Method::GET, &format!("/{id}"))).await
    }

    /// The list of runners of this name; with another token where one is given, and only
    /// if it is another than `etag` names.
    pub(super) async fn list(
        &self,
        name: &str,
        etag: Option<&str>,
        token: Option<&SecretString>,
    ) -> Result<Answer, LiveError> {
        let path = format!("{}?name={name}&per_page=100", self.runners);
        let mut request = self.http.get(path);
        if let Some(etag) = etag {
            request = request.header("if-none-match", etag);
        }
        send("the list of runners", with_token(request, token.unwrap_or(&self.token))).await
    }

    /// The runners of this name, as listed.
    pub(super) async fn find(&self, name: &str) -> Result<Vec<Value>, LiveError> {
        let answer = self.list(name, None, None).await?;
        match answer.status {
            200 => Ok(of_name(&answer.body, name)),
            _ => Err(answer.refused("the list of runners")),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        with_token(self.http.request(method, format!("{}{path}", self.runners)), &self.token)
    }
}

/// A filter that GitHub does not know is ignored, so the names are compared here too.
fn of_name(body: &Value, name: &str) -> Vec<Value> {
    let listed = body.get("runners").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |runner: &Value| runner.get("name").and_then(Value::as_str) == Some(name);
    listed.into_iter().filter(named).collect()
}

fn with_token(request: RequestBuilder, token: &SecretString) -> RequestBuilder {
    request
        .bearer_auth(token.expose_secret())
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
}

async fn send(call: &'static str, request: RequestBuilder) -> Result<Answer, LiveError> {
    let broken = |source| LiveError::Call { call, source };
    let mut response = request.send().await.map_err(broken)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BODY_BYTES_MAX {
            return Err(LiveError::TooLarge { call });
        }
    }
    // A deletion has no body, and a proxy's page is no JSON: neither is looked into.
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(Answer { status, headers, body })
}
