//! A fleet of one on real parts: the modelled GitHub and the orchestrator as processes,
//! runners as containers of the local engine.

use std::path::Path;
use std::time::Duration;

use runner_orchestrator::cli::demo::child::{Output, Program};
use runner_orchestrator::cli::demo::engine::{RealEngine, fresh_cluster_name};
use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::ClusterMark;
use serde_json::{Value, json};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_runner-orchestrator");
const TOKEN: &str = "sim-token";
pub(crate) const REPO: &str = "acme/demo";

/// One world; [`Fleet::end`] takes it down and says what was left over.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) engine: RealEngine,
    pub(crate) mark: ClusterMark,
    cluster: String,
    github: Program,
    pub(crate) github_url: String,
    orchestrator: Option<Program>,
    pub(crate) api: String,
    http: reqwest::Client,
}

impl Fleet {
    /// Everything but the orchestrator.
    pub(crate) async fn build(max_runners: u32) -> Self {
        let cluster = fresh_cluster_name();
        let mark = ClusterMark::derive(&cluster);
        let executable = Path::new(EXECUTABLE);
        let engine = RealEngine::prepare(Some(executable), &mark, max_runners).await.unwrap();
        let (gateway, bridge) = engine.place().unwrap();
        let listen = format!("{gateway}:0");
        let args =
            ["sim", "github", "--token", TOKEN, "--listen", &listen, "--bind-device", bridge]
                .map(str::to_owned);
        let output = Output { ready_field: "listening", log: None };
        let (github, github_url) = Program::start(executable, &args, &[], output).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            engine,
            mark,
            cluster,
            github,
            github_url,
            orchestrator: None,
            api: String::new(),
            http,
        }
    }

    /// Starts the orchestrator, on this Docker socket or the usual one.
    pub(crate) async fn start(&mut self, docker_host: Option<String>, more: &[(&str, &str)]) {
        let mut env: Vec<(String, String)> = [
            ("GITHUB_API_URL", format!("{}/api/v3", self.github_url).as_str()),
            ("GITHUB_TOKEN", TOKEN),
            ("GITHUB_REPO", REPO),
            ("CLUSTER_NAME", &self.cluster),
            ("RUNNER_IMAGE", &self.engine.image),
            ("MIN_RUNNERS", "0"),
            ("MAX_RUNNERS", "4"),
            ("SCALE_UP_THRESHOLD", "1"),
            ("SCALE_DOWN_THRESHOLD", "0"),
            ("POLL_INTERVAL", "1"),
            ("LISTEN_ADDR", "127.0.0.1:0"),
        ]
        .into_iter()
        .chain(more.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        if let Some(docker_host) = docker_host {
            env.push(("DOCKER_HOST".to_owned(), docker_host));
        }
        let log = std::env::var_os("TEST_LOGS")
            .map(|dir| Path::new(&dir).join(format!("{}.log", self.cluster)));
        let output = Output { ready_field: "address", log };
        let executable = Path::new(EXECUTABLE);
        let (program, address) =
            Program::start(executable, &["serve".to_owned()], &env, output).await.unwrap();
        self.orchestrator = Some(program);
        self.api = format!("http://{address}");
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.orchestrator.take().unwrap().kill().await.unwrap();
    }

    /// SIGTERM, and wait for its end. Whether it ended well.
    pub(crate) async fn stop(&mut self) -> bool {
        self.orchestrator.take().unwrap().stop(Duration::from_secs(90)).await.unwrap()
    }

    pub(crate) async fn sim(&self, what: &str, body: Value) -> Value {
        let url = format!("{}/_sim/{what}", self.github_url);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{what}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub(crate) async fn jobs(&self, count: u32, seconds: f64) {
        let labels = ["self-hosted", "linux"];
        let jobs =
            json!({"count": count, "repo": REPO, "labels": labels, "duration_seconds": seconds});
        self.sim("jobs", jobs).await;
    }

    pub(crate) async fn state(&self) -> Value {
        let url = format!("{}/_sim/state", self.github_url);
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until `done` says so of the modelled GitHub's state.
    pub(crate) async fn until(&self, within: Duration, what: &str, done: impl Fn(&Value) -> bool) {
        let begun = tokio::time::Instant::now();
        loop {
            let state = self.state().await;
            if done(&state) {
                return;
            }
            assert!(begun.elapsed() < within, "{what}: not within {within:?}: {state:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn until_all_done(&self, within: Duration) {
        self.until(within, "all jobs done", |state| {
            let jobs = state["jobs"].as_array().unwrap();
            !jobs.is_empty() && jobs.iter().all(|job| job["status"] == "completed")
        })
        .await;
    }

    pub(crate) async fn containers(&self) -> usize {
        self.engine.docker.containers(&self.mark).await.unwrap().len()
    }

    /// Asserts that each job ran to success exactly once.
    pub(crate) async fn each_job_once(&self) {
        let state = self.state().await;
        for job in state["jobs"].as_array().unwrap() {
            assert_eq!(job["conclusion"], "success", "{job:#}");
            assert_eq!(job["attempts"], 1, "{job:#}");
        }
    }

    /// Asserts that nothing is left, and takes the world away.
    pub(crate) async fn end(self) {
        let containers = self.containers().await;
        let keep = [self.engine.network.name.clone()];
        let swept = self.engine.docker.sweep(&self.mark, &keep).await.unwrap();
        let state = self.state().await;
        self.engine.docker.forget_cluster(&self.mark).await.unwrap();
        self.github.stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!(containers, 0, "containers left over");
        assert_eq!(state["runners"], json!([]), "registrations left over");
        assert_eq!((swept.volumes, swept.networks), (0, 0), "volumes or networks left over");
    }
}
