//! `status`, `runners`, `pools`, `hosts`, `replicas`, `events`: what a running orchestrator
//! says, as tables or as the API's own JSON.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{ApiArgs, Client, segment};
use super::print;
use super::table::{cell, render, rows};

mod text;

use text::{hosts_table, pools_table, replicas_table, runners_table, stale, status_text};

/// `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub api: ApiArgs,
}

/// `runners`.
#[derive(Clone, Debug, Args)]
pub struct RunnersArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: Option<RunnersCommand>,
}

/// What to do with runners.
#[derive(Clone, Debug, Subcommand)]
pub enum RunnersCommand {
    /// List them (the default)
    Ls,
    /// Print a runner's log
    Logs {
        /// Runner id or name, or container
        id: String,
        /// The last so many lines
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
        tail: u32,
        /// Go on until the container ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Remove a runner that runs no job
    Rm {
        /// Runner id or name, or container
        id: String,
        /// Also when it runs a job, which then fails
        #[arg(long)]
        force: bool,
    },
    /// Ask for more runners now
    ScaleUp(ScaleArgs),
    /// Remove idle runners now
    ScaleDown(ScaleArgs),
}

/// How many, of which pool.
#[derive(Clone, Debug, Args)]
pub struct ScaleArgs {
    /// How many runners
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: u32,
    /// Of this pool; otherwise of `default` or of the only one
    #[arg(long)]
    pub pool: Option<String>,
}

/// `pools`.
#[derive(Clone, Debug, Args)]
pub struct PoolsArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: Option<PoolsCommand>,
}

/// What to do with pools.
#[derive(Clone, Debug, Subcommand)]
pub enum PoolsCommand {
    /// List them (the default)
    Ls,
    /// Start nothing new in a pool
    Pause { name: String },
    /// Take that back
    Resume { name: String },
}

/// `hosts`.
#[derive(Clone, Debug, Args)]
pub struct HostsArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: Option<HostsCommand>,
}

/// What to do with hosts.
#[derive(Clone, Debug, Subcommand)]
pub enum HostsCommand {
    /// List them (the default)
    Ls,
    /// Give a host nothing new
    Drain { id: String },
    /// Take that back
    Undrain { id: String },
}

/// `replicas`.
#[derive(Clone, Debug, Args)]
pub struct ReplicasArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: Option<ReplicasCommand>,
}

/// What to do with replicas.
#[derive(Clone, Debug, Subcommand)]
pub enum ReplicasCommand {
    /// List them (the default)
    Ls,
    /// Make a replica dispensable: others lead, its hosts are drained
    Drain { id: String },
    /// Take that back
    Undrain { id: String },
}

/// `events`.
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
    /// Only of this pool
    #[arg(long)]
    pub pool: Option<String>,
    /// Only about this runner, by id or name
    #[arg(long)]
    pub runner: Option<String>,
}

/// The fleet at a glance.
pub async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let body = client.get("/api/v1/status").await?;
    show(&client, &body, &status_text(&body));
    Ok(ExitCode::SUCCESS)
}

/// Runners: list, log, remove, scale.
pub async fn runners(args: RunnersArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    match args.command.unwrap_or(RunnersCommand::Ls) {
        RunnersCommand::Ls => {
            let body = client.get("/api/v1/runners").await?;
            show(&client, &body, &format!("{}{}", stale(&body), runners_table(&body)));
        }
        RunnersCommand::Logs { id, tail, follow } => {
            logs(&client, &id, tail, follow).await?;
        }
        RunnersCommand::Rm { id, force } => {
            let path = format!("/api/v1/runners/{}?force={force}", segment(&id));
            told(&client, &client.delete(&path).await?);
        }
        RunnersCommand::ScaleUp(scale) => {
            let body = client.post("/api/v1/runners/scale-up", &scale_body(scale)).await?;
            told(&client, &body);
        }
        RunnersCommand::ScaleDown(scale) => {
            let body = client.post("/api/v1/runners/scale-down", &scale_body(scale)).await?;
            told(&client, &body);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Pools: list, pause, resume.
pub async fn pools(args: PoolsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let (name, verb) = match args.command.unwrap_or(PoolsCommand::Ls) {
        PoolsCommand::Ls => {
            let body = client.get("/api/v1/pools").await?;
            show(&client, &body, &format!("{}{}", stale(&body), pools_table(&body)));
            return Ok(ExitCode::SUCCESS);
        }
        PoolsCommand::Pause { name } => (name, "pause"),
        PoolsCommand::Resume { name } => (name, "resume"),
    };
    let path = format!("/api/v1/pools/{}/{verb}", segment(&name));
    told(&client, &client.post(&path, &json!({})).await?);
    Ok(ExitCode::SUCCESS)
}

/// Hosts: list, drain, undrain.
pub async fn hosts(args: HostsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let (id, verb) = match args.command.unwrap_or(HostsCommand::Ls) {
        HostsCommand::Ls => {
            let body = client.get("/api/v1/hosts").await?;
            show(&client, &body, &format!("{}{}", stale(&body), hosts_table(&body)));
            return Ok(ExitCode::SUCCESS);
        }
        HostsCommand::Drain { id } => (id, "drain"),
        HostsCommand::Undrain { id } => (id, "undrain"),
    };
    let path = format!("/api/v1/hosts/{}/{verb}", segment(&id));
    told(&client, &client.post(&path, &json!({})).await?);
    Ok(ExitCode::SUCCESS)
}

/// Replicas: who leads, who cares for which host, and what does not agree; drain, undrain.
pub async fn replicas(args: ReplicasArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let asked = match args.command.unwrap_or(ReplicasCommand::Ls) {
        ReplicasCommand::Ls => None,
        ReplicasCommand::Drain { id } => Some((id, "drain")),
        ReplicasCommand::Undrain { id } => Some((id, "undrain")),
    };
    if let Some((id, verb)) = asked {
        let path = format!("/api/v1/replicas/{}/{verb}", segment(&id));
        told(&client, &client.post(&path, &json!({})).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let body = client.get("/api/v1/replicas").await?;
    let mut text = stale(&body);
    text.push_str(&replicas_table(&body));
    for replica in body.get("replicas").and_then(Value::as_array).into_iter().flatten() {
        for row in rows(replica.get("problems"), &["problem", "fix"]) {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "! {}", row.join(": "));
        }
    }
    show(&client, &body, &text);
    Ok(ExitCode::SUCCESS)
}

/// The last decisions, newest first.
pub async fn events(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let mut path = format!("/api/v1/decisions?limit={}", args.limit);
    for (name, value) in [("pool", &args.pool), ("runner", &args.runner)] {
        if let Some(value) = value {
            // Writing to a `String` cannot fail.
            let _ = write!(path, "&{name}={}", segment(value));
        }
    }
    let body = client.get(&path).await?;
    let fields = ["at", "kind", "pool", "runner_name", "reason/detail"];
    let head = ["AT", "DECISION", "POOL", "RUNNER", "WHY"];
    show(&client, &body, &render(&head, &rows(body.get("decisions"), &fields)));
    Ok(ExitCode::SUCCESS)
}

async fn logs(client: &Client, id: &str, tail: u32, follow: bool) -> anyhow::Result<()> {
    let path = format!("/api/v1/runners/{}/logs?tail={tail}", segment(id));
    if client.json && !follow {
        let body = client.get(&path).await?;
        print::result(&body.to_string());
        return Ok(());
    }
    let within = (!follow).then_some(super::client::LOG_TIMEOUT);
    client.stream(&format!("{path}&follow={follow}"), within).await
}

fn scale_body(args: ScaleArgs) -> Value {
    let mut body = Map::new();
    body.insert("count".to_owned(), args.count.into());
    if let Some(pool) = args.pool {
        body.insert("pool".to_owned(), pool.into());
    }
    Value::Object(body)
}

/// The table, or the body for programs.
fn show(client: &Client, body: &Value, text: &str) {
    if client.json {
        print::result(&body.to_string());
    } else {
        print::text(text);
    }
}

/// What was done, in the API's own sentence.
fn told(client: &Client, body: &Value) {
    let sentence = match cell(body, "message") {
        message if message != "-" => message,
        _ => body.to_string(),
    };
    show(client, body, &format!("{sentence}\n"));
}
