//! The way from the command line to a running orchestrator: its HTTP API, nothing else.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::print;
use super::table::printable;
use crate::config::{Config, PREFIX, Sources};

/// The longest an answer may take. A write waits three seconds for the leader; the rest
/// of it is a slow network.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A log of ten thousand lines over a slow line.
pub const LOG_TIMEOUT: Duration = Duration::from_secs(120);
/// A server that is there takes a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer's largest size: a thousand runners in full are about 2 MB.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A token is far shorter.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// Which orchestrator, and as whom.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// Where the orchestrator's API listens
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub api_url: url::Url,
    /// File that holds the API's token; otherwise `API_TOKEN` as configured
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the API's own answer instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// A client of one orchestrator.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<SecretString>,
    pub json: bool,
}

impl Client {
    /// Reads the token; contacts nobody.
    pub fn new(args: &ApiArgs) -> anyhow::Result<Self> {
        if !matches!(args.api_url.scheme(), "http" | "https") {
            bail!("--api-url {}: expected http:// or https://", args.api_url);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A token is for the server named, not for where that one points.
            .redirect(reqwest::redirect::Policy::none())
            // What listens on this machine or in this network needs no proxy.
            .no_proxy()
            .build()
            .context("could not make an HTTP client")?;
        let base = args.api_url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base, token: token(args)?, json: args.json })
    }

    /// GETs a path of the API.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.read(self.request(Method::GET, path)).await
    }

    /// POSTs a body to a path of the API.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.read(self.request(Method::POST, path).json(body)).await
    }

    /// DELETEs what a path names.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.read(self.request(Method::DELETE, path)).await
    }

    /// Prints a text as it comes, until it ends.
    pub async fn stream(&self, path: &str, within: Option<Duration>) -> anyhow::Result<()> {
        let mut request = self.request(Method::GET, path).header("accept", "text/plain");
        if let Some(within) = within {
            request = request.timeout(within);
        }
        let mut response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        while let Some(chunk) = response.chunk().await.context("the log broke off")? {
            print::bytes(&chunk);
        }
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(reqwest::Error::without_url).with_context(|| {
            format!("no answer from {}: is the orchestrator running? (--api-url)", self.base)
        })
    }

    async fn read(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("{} does not answer like an orchestrator", self.base))
    }

    async fn body(&self, mut response: Response) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES_MAX {
                bail!("{} answers with more than {BODY_BYTES_MAX} bytes", self.base);
            }
        }
        Ok(body)
    }

    /// The problem in its own words.
    async fn refusal(&self, response: Response) -> anyhow::Error {
        let status = response.status();
        let body = self.body(response).await.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = problem.get("detail").or(problem.get("title")).and_then(Value::as_str);
        let hint = match status {
            StatusCode::UNAUTHORIZED => " (set API_TOKEN or give --token-file)",
            _ => "",
        };
        anyhow::anyhow!("{status}: {}{hint}", printable(detail.unwrap_or("no explanation")))
    }
}

/// The token as named on the command line, as configured, or as in the environment alone:
/// a client needs no usable configuration of a server.
fn token(args: &ApiArgs) -> anyhow::Result<Option<SecretString>> {
    if let Some(path) = &args.token_file {
        return read_token(path).map(Some);
    }
    if let Ok(config) = Config::from_process() {
        return Ok(config.api.token);
    }
    let sources = Sources::from_process().context("could not read .env")?;
    let spelled = [format!("{PREFIX}API_TOKEN"), "API_TOKEN".to_owned()];
    let found = spelled.iter().find_map(|name| sources.env.get(name).map(|text| text.trim()));
    Ok(found.filter(|text| !text.is_empty()).map(SecretString::from))
}

/// A token in a file of its own.
pub fn read_token(path: &Path) -> anyhow::Result<SecretString> {
    let unread = || format!("could not read {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(unread)?;
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).with_context(unread)?;
    Ok(SecretString::from(text.trim()))
}

/// One part of a path: whatever the user typed stays within it.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_name_stays_one_segment() {
        assert_eq!(segment("a-1_b.c"), "a-1_b.c");
        assert_eq!(segment("../x?y=1#z é"), "..%2Fx%3Fy%3D1%23z%20%C3%A9");
    }
}
