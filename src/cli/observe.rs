//! `status`, `runners`, `pools`, `hosts`, `replicas`, `events`: what a running orchestrator says, as
//! tables or as the API's own JSON.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{ApiArgs, Client, segment};
use super::print;
use super::table::{cell, render, rows};

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

/// Replicas: who leads, who cares for which host, and what does not agree.
pub async fn replicas(args: ReplicasArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
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

/// A line over what may no longer be so; nothing over what is.
fn stale(body: &Value) -> String {
    if body.get("stale") != Some(&Value::Bool(true)) {
        return String::new();
    }
    match body.get("age_seconds").and_then(Value::as_f64) {
        Some(age) => format!("! stale: as it was {age:.0} s ago\n"),
        None => "! stale: nothing could be read yet\n".to_owned(),
    }
}

fn status_text(body: &Value) -> String {
    let at = |path: &str| cell(body, path);
    let mut out = stale(body);
    // Writing to a `String` cannot fail.
    let _ = write!(
        out,
        "cluster {}, version {}, up {}, leader: {}{}\n\
         runners: {} idle, {} busy, {} starting, {} retiring, {} unknown\n\
         queue: {} waiting, last read {}\n",
        at("orchestrator/cluster"),
        at("orchestrator/version"),
        at("orchestrator/uptime"),
        at("orchestrator/leader_name"),
        if body.pointer("/orchestrator/leader") == Some(&Value::Bool(true)) {
            ", this replica"
        } else {
            ""
        },
        at("runners/idle"),
        at("runners/busy"),
        at("runners/starting"),
        at("runners/retiring"),
        at("runners/unknown"),
        at("queue/current_length"),
        at("queue/last_poll"),
    );
    if body.pointer("/frozen") == Some(&Value::Bool(true)) {
        out.push_str("frozen: nothing is changed until someone unfreezes\n");
    }
    for row in rows(body.get("degraded"), &["what", "problem", "fix"]) {
        let said: Vec<String> = row.into_iter().filter(|cell| cell != "-").collect();
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "! {}", said.join(": "));
    }
    out.push('\n');
    out.push_str(&pools_table(body));
    out.push('\n');
    out.push_str(&hosts_table(body));
    // One replica alone is told of above.
    if body.get("replicas").and_then(Value::as_array).is_some_and(|them| them.len() > 1) {
        out.push('\n');
        out.push_str(&replicas_table(body));
    }
    out
}

fn runners_table(body: &Value) -> String {
    let fields = ["name", "pool", "phase", "hostname", "since", "id"];
    let head = ["NAME", "POOL", "PHASE", "HOST", "SINCE", "ID"];
    render(&head, &rows(body.get("runners"), &fields))
}

fn pools_table(body: &Value) -> String {
    let fields = [
        "name",
        "scope",
        "runners/listening",
        "runners/running",
        "runners/starting",
        "desired",
        "max_runners",
        "demand/waiting",
        "paused",
        "why",
    ];
    let head =
        ["POOL", "SCOPE", "IDLE", "BUSY", "STARTING", "DESIRED", "MAX", "WAITING", "PAUSED", "WHY"];
    render(&head, &rows(body.get("pools"), &fields))
}

fn hosts_table(body: &Value) -> String {
    let fields =
        ["hostname", "liveness", "docker_up", "runners", "max_runners", "draining", "agent", "id"];
    let head = ["HOST", "STATE", "DOCKER", "RUNNERS", "MAX", "DRAINING", "AGENT", "ID"];
    render(&head, &rows(body.get("hosts"), &fields))
}

fn replicas_table(body: &Value) -> String {
    let head = ["REPLICA", "LEADS", "STANDING", "HOST", "VERSION", "ADDRESS", "SEEN", "PROBLEMS"];
    let fields = ["name", "leader", "standing", "host", "version", "address"];
    let listed = body.get("replicas").and_then(Value::as_array).map(Vec::as_slice);
    let rows: Vec<Vec<String>> = listed
        .unwrap_or_default()
        .iter()
        .map(|replica| {
            let age = replica.get("age_seconds").and_then(Value::as_f64).unwrap_or_default();
            let problems: Vec<String> =
                rows(replica.get("problems"), &["what"]).into_iter().flatten().collect();
            let mut row: Vec<String> = fields.iter().map(|path| cell(replica, path)).collect();
            row.push(format!("{age:.0} s ago"));
            row.push(if problems.is_empty() { "-".to_owned() } else { problems.join(", ") });
            row
        })
        .collect();
    render(&head, &rows)
}
