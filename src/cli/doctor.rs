//! `doctor`: what is wrong, and what to do about it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{EXIT_CONFIG, print, serve};
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, StoreConfig};
use crate::doctor::{self, Finding, Findings, Group, Level, live};
use crate::fleet::id::PoolName;

/// What to look at.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Register one throw-away runner at GitHub, compare GitHub's behaviour with what is
    /// assumed of it, and delete the runner again
    #[arg(long)]
    pub live: bool,
    /// With --live: try to delete this busy runner, by GitHub's id, to see the refusal.
    /// Should GitHub not refuse, the runner is gone and its job fails
    #[arg(long, value_name = "ID", requires = "live")]
    pub busy_runner: Option<u64>,
    /// With --live: a file with another token for the same scope, to compare their `ETag`
    #[arg(long, value_name = "FILE", requires = "live")]
    pub second_token_file: Option<PathBuf>,
}

/// Checks everything; 0 when all works, 1 when something is broken, [`EXIT_CONFIG`] when
/// the configuration cannot be used.
pub async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) => {
            show(&args, &unusable(&error), "unusable");
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    if args.live {
        return measure(&args, &config).await;
    }
    let findings = examine(&config).await;
    let worst = findings.worst();
    let verdict = match worst {
        Level::Fine => "fine",
        Level::Warning => "warning",
        Level::Broken => "broken",
    };
    show(&args, &findings, verdict);
    Ok(if worst == Level::Broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(config: &Config) -> Findings {
    let clock = std::sync::Arc::new(SystemClock::new());
    let github = match serve::github(config, clock.clone()) {
        Ok(github) => doctor::github::examine(config, &github, clock.as_ref()).await,
        Err(error) => vec![Finding::broken(
            "client",
            format!("{error:#}"),
            "check GITHUB_API_URL and, for a GitHub App, GITHUB_APP_PRIVATE_KEY_FILE",
        )],
    };
    let docker = doctor::docker::examine(config).await;
    let mut groups = vec![
        Group { name: "Configuration", rows: configuration(config) },
        Group { name: "GitHub", rows: github },
        Group { name: "Docker", rows: docker },
    ];
    if let StoreConfig::Redis(redis) = &config.store {
        let settings = serve::redis_settings(redis);
        let rows = doctor::redis::examine(config, settings, clock.as_ref()).await;
        groups.push(Group { name: "Redis", rows });
    }
    Findings { groups }
}

fn configuration(config: &Config) -> Vec<Finding> {
    let pools: Vec<&str> = config.pools.keys().map(PoolName::as_str).collect();
    let mut rows = vec![Finding::fine("settings", format!("pools: {}", pools.join(", ")))];
    rows.extend(config.warnings.iter().map(|warning| {
        Finding::warning("settings", warning, "see `config show` for where each value came from")
    }));
    rows
}

/// Every mistake as a row; its text says what is allowed.
fn unusable(error: &ConfigError) -> Findings {
    let rows = error
        .problems
        .iter()
        .map(|problem| Finding {
            what: problem.subject.clone(),
            level: Level::Broken,
            detail: None,
            fix: Some(problem.text.clone()),
        })
        .collect();
    Findings { groups: vec![Group { name: "Configuration", rows }] }
}

async fn measure(args: &DoctorArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let wishes = live::Wishes {
        busy_runner: args.busy_runner,
        second_token: match &args.second_token_file {
            Some(path) => Some(super::client::read_token(path)?),
            None => None,
        },
    };
    let measured = live::measure(config, wishes, super::stop_asked()?).await?;
    if args.json {
        print::result(&serde_json::to_string(&measured)?);
    } else {
        print::text(&measured.render());
    }
    Ok(if measured.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(args: &DoctorArgs, findings: &Findings, verdict: &str) {
    if args.json {
        print::result(&json!({"verdict": verdict, "groups": findings.groups}).to_string());
    } else {
        print::text(&findings.render());
    }
}
