//! A modelled GitHub and the real client in front of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runner_orchestrator::clock::{Clock, SystemClock};
use runner_orchestrator::fleet::id::{GitHubRunnerId, RepoName, RunnerName};
use runner_orchestrator::fleet::pool::{Labels, Scope};
use runner_orchestrator::github::{
    Credentials, Deregistered, GitHub, GitHubSettings, MintRequest, RestGitHub,
};
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

/// What a runner leaves in the list when it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaves {
    AGap,
    /// Another is registered for it.
    ASuccessor,
}

/// A client of the model in which runners go while their list is read: a moment before each
/// page but the first is served, the one registered longest is deleted.
pub(crate) fn restless(sim: &SimGitHub, leaves: Leaves) -> RestGitHub {
    let model = sim.clone();
    let others = Arc::new(to_router(sim.router(), pat("sim-token")));
    let oldest: BTreeSet<u64> = sim.state().runners.iter().map(|runner| runner.id.0).collect();
    let oldest = Arc::new(Mutex::new(oldest.into_iter()));
    let someone_goes = from_fn(move |request: Request, next: Next| {
        let (others, oldest, model) = (Arc::clone(&others), Arc::clone(&oldest), model.clone());
        async move {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            if path.ends_with("/actions/runners") && !query.ends_with("page=1") {
                pass(1).await;
                let id = oldest.lock().unwrap().next().unwrap();
                let gone = others.deregister(&org(), GitHubRunnerId(id)).await.unwrap();
                assert_eq!(gone, Deregistered::Deleted);
                if leaves == Leaves::ASuccessor {
                    plant(&model, &format!("after-{id}"), 1);
                }
            }
            next.run(request).await
        }
    });
    to_router(sim.router().layer(someone_goes), pat("sim-token"))
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
