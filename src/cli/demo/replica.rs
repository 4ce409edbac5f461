//! One orchestrator of the demo: a child process, started, asked and killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::child::{Output, Program};

/// An answer that takes longer comes from a process that is stopped or busy dying.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What is the same for every start of a replica.
#[derive(Clone, Debug)]
pub struct Plan {
    pub executable: PathBuf,
    /// `docker` or `model`.
    pub engine: &'static str,
    pub env: Vec<(String, String)>,
    pub log: Option<PathBuf>,
}

/// A replica that runs.
#[derive(Debug)]
pub struct Replica {
    pub program: Program,
    /// `http://address:port`
    pub api: String,
}

/// What a replica says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Said {
    /// Whether it decides.
    pub leader: bool,
    pub term: Option<u64>,
    /// Its id; another one after each start.
    pub replica: String,
}

#[derive(Deserialize)]
struct Status {
    orchestrator: Said,
}

impl Replica {
    /// Starts it and waits until its API listens.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let output = Output { ready_field: "address", log: plan.log.clone() };
        let args = ["serve", "--engine", plan.engine].map(str::to_owned);
        let executable: &Path = &plan.executable;
        let (program, address) = Program::start(executable, &args, &plan.env, output).await?;
        Ok(Self { program, api: format!("http://{address}") })
    }

    /// Asks it about itself; `None` when it does not answer.
    pub async fn ask(&self, http: &reqwest::Client) -> Option<Said> {
        ask(http, &self.api).await.ok()
    }
}

async fn ask(http: &reqwest::Client, api: &str) -> anyhow::Result<Said> {
    let url = format!("{api}/api/v1/status");
    let answer = http.get(url).timeout(ANSWER_LIMIT).send().await?.error_for_status()?;
    let status: Status = answer.json().await.context("the status could not be read")?;
    Ok(status.orchestrator)
}
