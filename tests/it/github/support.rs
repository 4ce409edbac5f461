//! A modelled GitHub and the real client in front of it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runner_orchestrator::clock::{Clock, SystemClock};
use runner_orchestrator::fleet::id::{RepoName, RunnerName};
use runner_orchestrator::fleet::pool::{Labels, Scope};
use runner_orchestrator::github::{Credentials, GitHubSettings, MintRequest, RestGitHub};
use runner_orchestrator::sim::github::{
    AppSpec, Fault, InstallationSpec, PlantedRunners, SimGitHub, SimHandle, SimOptions,
};

pub(crate) const RUNNERS: &str = "GET /orgs/{org}/actions/runners";
pub(crate) const RUNS: &str = "GET /repos/{owner}/{repo}/actions/runs";
pub(crate) const JOBS: &str = "GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs";
pub(crate) const MINT: &str = "POST /orgs/{org}/actions/runners/generate-jitconfig";
pub(crate) const TOKEN: &str = "POST /app/installations/{installation_id}/access_tokens";

pub(crate) fn pat(token: &str) -> Credentials {
    Credentials::Token(token.into())
}

/// A client over a real socket.
pub(crate) async fn served(options: SimOptions) -> (SimHandle, RestGitHub) {
    served_as(options, pat("sim-token")).await
}

pub(crate) async fn served_as(
    options: SimOptions,
    credentials: Credentials,
) -> (SimHandle, RestGitHub) {
    let handle = SimGitHub::start(options).await.unwrap();
    let settings = GitHubSettings { api_url: handle.api_url(), credentials };
    let client = RestGitHub::new(settings, Arc::new(SystemClock::new())).unwrap();
    (handle, client)
}

/// A client without a socket, for paused clocks.
pub(crate) fn quiet(options: &SimOptions) -> (SimGitHub, RestGitHub) {
    quiet_as(options, pat("sim-token"))
}

pub(crate) fn quiet_as(options: &SimOptions, credentials: Credentials) -> (SimGitHub, RestGitHub) {
    let sim = SimGitHub::new(options);
    let client = to_router(sim.router(), credentials);
    (sim, client)
}

/// A client of any router that plays GitHub.
pub(crate) fn to_router(router: Router, credentials: Credentials) -> RestGitHub {
    let api_url = "http://github.test/api/v3".to_owned();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    RestGitHub::in_process(GitHubSettings { api_url, credentials }, router, clock).unwrap()
}

pub(crate) fn org() -> Scope {
    Scope::Org("acme".into())
}

pub(crate) fn repo(n: usize) -> RepoName {
    RepoName(format!("acme/repo-{n}"))
}

pub(crate) fn request(name: &str) -> MintRequest {
    MintRequest {
        scope: org(),
        name: RunnerName::from(name),
        labels: Labels::from_iter(["self-hosted", "Linux"]),
        runner_group_id: 1,
    }
}

pub(crate) fn plant(sim: &SimGitHub, name_prefix: &str, count: usize) {
    let planted =
        PlantedRunners { count, name_prefix: name_prefix.into(), ..PlantedRunners::default() };
    sim.plant_runners(&planted).unwrap();
}

pub(crate) fn fault(route: &str) -> Fault {
    Fault { route: route.into(), ..Fault::default() }
}

pub(crate) fn calls(sim: &SimGitHub, route: &str) -> u64 {
    sim.state().calls.get(route).copied().unwrap_or(0)
}

/// A key pair made once for all tests: private and public half, PEM.
pub(crate) fn keys() -> &'static (String, String) {
    static KEYS: OnceLock<(String, String)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key().as_der().unwrap();
        (pem("PRIVATE KEY", pair.as_der().unwrap().as_ref()), pem("PUBLIC KEY", public.as_ref()))
    })
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

/// A model with an App installed on `acme`.
pub(crate) fn with_app(repos: usize) -> SimOptions {
    let app = AppSpec {
        id: 7,
        client_id: "Iv1.client".into(),
        public_key_pem: keys().1.clone(),
        installations: vec![
            InstallationSpec::for_runners(404, "other"),
            InstallationSpec::for_runners(505, "acme"),
        ],
    };
    let orgs = vec!["acme".into(), "other".into()];
    SimOptions { repos, orgs, app: Some(app), ..SimOptions::default() }
}

pub(crate) fn app(issuer: &str, installation_id: Option<u64>) -> Credentials {
    Credentials::App {
        issuer: issuer.into(),
        private_key_pem: keys().0.clone().into(),
        installation_id,
    }
}

/// Lets modelled time pass.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
