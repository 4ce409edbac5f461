//! The modelled GitHub of the demo: a child process, and what it is asked and told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::child::{Output, Program};

pub const REPO: &str = "acme/demo";
pub const TOKEN: &str = "sim-token";

/// Where and how it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub executable: PathBuf,
    pub address: String,
    pub device: Option<String>,
    pub seed: u64,
    /// A busy runner that was silent this long has lost its job.
    pub lost_after_seconds: u64,
    pub log: Option<PathBuf>,
}

/// The modelled GitHub, running.
#[derive(Debug)]
pub struct ModelledGitHub {
    program: Program,
    /// `http://address:port`
    pub url: String,
    http: reqwest::Client,
}

/// Its state, as far as it is judged.
#[derive(Clone, Debug, Deserialize)]
pub struct SimState {
    pub jobs: Vec<SimJob>,
    pub runners: Vec<Value>,
    pub calls: BTreeMap<String, u64>,
}

/// One job.
#[derive(Clone, Debug, Deserialize)]
pub struct SimJob {
    pub id: u64,
    pub status: String,
    pub conclusion: Option<String>,
    pub queued_at: Option<chrono::DateTime<chrono::Utc>>,
    pub started_at: Option<chrono::DateTime<chrono::Utc>>,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default)]
    pub lost: bool,
}

impl SimState {
    /// How many jobs are such.
    #[must_use]
    pub fn count(&self, which: impl Fn(&SimJob) -> bool) -> u32 {
        let count = self.jobs.iter().filter(|job| which(job)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

impl ModelledGitHub {
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let mut args: Vec<String> =
            ["sim", "github", "--token", TOKEN, "--listen"].map(str::to_owned).to_vec();
        args.push(format!("{}:0", settings.address));
        if let Some(device) = &settings.device {
            args.extend(["--bind-device".to_owned(), device.clone()]);
        }
        args.extend(["--seed".to_owned(), settings.seed.to_string()]);
        let output = Output { ready_field: "listening", log: settings.log.clone() };
        let (program, url) = Program::start(&settings.executable, &args, &[], output).await?;
        let http = crate::sim::http::plain_client().timeout(Duration::from_secs(10)).build()?;
        let github = Self { program, url, http };
        let lost_after = json!({ "lost_after_seconds": settings.lost_after_seconds });
        github.post("settings", &lost_after).await?;
        Ok(github)
    }

    /// Queues jobs, one for each duration in seconds.
    pub async fn queue(&self, seconds: &[u32]) -> anyhow::Result<()> {
        let jobs = json!({
            "count": seconds.len(),
            "repo": REPO,
            "labels": ["self-hosted", "linux"],
            "durations": seconds,
        });
        self.post("jobs", &jobs).await
    }

    pub async fn post(&self, what: &str, body: &Value) -> anyhow::Result<()> {
        let url = format!("{}/_sim/{what}", self.url);
        let answer = self.http.post(&url).json(body).send().await?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!("the modelled GitHub answered {status}: {}", answer.text().await?);
        }
        Ok(())
    }

    /// Switches every fault off.
    pub async fn clear_faults(&self) -> anyhow::Result<()> {
        let url = format!("{}/_sim/faults", self.url);
        self.http.delete(&url).send().await?.error_for_status()?;
        Ok(())
    }

    pub async fn state(&self) -> anyhow::Result<SimState> {
        let url = format!("{}/_sim/state", self.url);
        let answer = self.http.get(&url).send().await?.error_for_status()?;
        answer.json().await.context("the modelled GitHub's state could not be read")
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.program.stop(Duration::from_secs(5)).await.map(drop)
    }
}

/// Lengths of jobs between two bounds that follow the seed; quality of randomness is no
/// matter here.
#[must_use]
pub fn job_lengths(count: u32, seed: u64, (low, high): (u32, u32)) -> Vec<u32> {
    let length = |n: u32| {
        let mixed = (seed ^ u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        low + u32::try_from(mixed % u64::from(high - low + 1)).unwrap_or(0)
    };
    (0..count).map(length).collect()
}
