//! `sim`: the modelled GitHub and the stand-in listener as programs of their own.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;

use crate::sim::clock::SimClock;
use crate::sim::github::{
    AppSpec, InstallationSpec, SettingsPatch, SimGitHub, SimOptions, TokenSpec,
};
use crate::sim::image::reach::reach;
use crate::sim::listener::{ListenerFaults, ListenerOptions, StopSignal, Transport, run as listen};

/// Programs of the modelled world.
#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Serve the modelled GitHub until interrupted.
    Github(GithubArgs),
    /// Be one runner: read a JIT configuration from standard input, run one job.
    Listener(ListenerArgs),
    /// Tell whether a URL can be reached from here: any HTTP answer will do.
    Probe { url: String },
}

/// Arguments of `sim github`.
#[derive(Debug, Args)]
pub struct GithubArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Take connections from this network device only.
    #[arg(long, value_name = "DEV")]
    pub bind_device: Option<String>,
    /// A token that may do everything; may be given several times.
    #[arg(long = "token", value_name = "TOKEN", default_value = "sim-token")]
    pub tokens: Vec<String>,
    /// An organisation; may be given several times, the first is the default.
    #[arg(long = "org", value_name = "LOGIN", default_value = "acme")]
    pub orgs: Vec<String>,
    /// The enterprise above all organisations.
    #[arg(long, value_name = "SLUG")]
    pub enterprise: Option<String>,
    /// How many repositories the first organisation has: repo-1, repo-2 …
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repos: usize,
    /// Decides every random choice.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Base URL that runners are told; absent: the Host of the minting request.
    #[arg(long, value_name = "URL")]
    pub runner_url: Option<String>,
    /// Seconds until a vanished busy runner's job fails.
    #[arg(long, value_name = "SECONDS")]
    pub lost_after: Option<f64>,
    /// Seconds until a job that was not picked up is queued again.
    #[arg(long, value_name = "SECONDS")]
    pub pickup_deadline: Option<f64>,
    /// PEM file with the public key of the GitHub App.
    #[arg(long, value_name = "FILE")]
    pub app_key: Option<PathBuf>,
    /// The App's numeric id.
    #[arg(long, value_name = "ID", default_value_t = 7)]
    pub app_id: u64,
    /// The id of its installation on the first organisation.
    #[arg(long, value_name = "ID", default_value_t = 505)]
    pub installation_id: u64,
}

/// Arguments of `sim listener`.
#[derive(Debug, Args)]
pub struct ListenerArgs {
    /// Seconds to wait for the JIT configuration.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, env = "SIM_LISTENER_INPUT_SECONDS")]
    pub input_seconds: u64,
    /// Exit with this code at once.
    #[arg(long, value_name = "CODE", env = "SIM_LISTENER_EXIT_AT_START")]
    pub exit_at_start: Option<i32>,
    /// Connect, but never listen for jobs.
    #[arg(long, env = "SIM_LISTENER_NEVER_LISTEN")]
    pub never_listen: bool,
    /// Print this line during the job; may be given several times.
    #[arg(long = "forge", value_name = "LINE", env = "SIM_LISTENER_FORGE")]
    pub forged_lines: Vec<String>,
    /// Go on when terminated.
    #[arg(long, env = "SIM_LISTENER_IGNORE_TERM")]
    pub ignore_term: bool,
    /// Exit like the stock run.sh: 0 where the listener's own code is 1 or 5.
    #[arg(long, env = "SIM_LISTENER_FOLD_EXIT_CODES")]
    pub fold_exit_codes: bool,
}

/// Runs one of the programs; answers its exit code.
///
/// # Errors
/// When the address cannot be bound, the key file not read, or signals not caught.
pub async fn run(command: SimCommand) -> anyhow::Result<ExitCode> {
    match command {
        SimCommand::Github(args) => github(args).await,
        SimCommand::Listener(args) => listener(args).await,
        SimCommand::Probe { url } => Ok(match reach(&url).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                super::print::message(&why);
                ExitCode::FAILURE
            }
        }),
    }
}

async fn github(args: GithubArgs) -> anyhow::Result<ExitCode> {
    let (address, device) = (args.listen, args.bind_device.clone());
    let patch = SettingsPatch {
        lost_after_seconds: args.lost_after,
        pickup_deadline_seconds: args.pickup_deadline,
        runner_url: args.runner_url.clone(),
        ..SettingsPatch::default()
    };
    let mut signals = signals()?;
    let sim = SimGitHub::new(&options(args)?);
    sim.change_settings(&patch);
    let handle = sim
        .listen(address, device.as_deref(), CancellationToken::new())
        .await
        .with_context(|| format!("could not listen on {address}"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({"listening": handle.base_url()}))?;
    out.flush()?;
    drop(out);
    tracing::info!(address = %handle.address(), "the modelled GitHub listens");
    signals.next().await;
    handle.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn options(args: GithubArgs) -> anyhow::Result<SimOptions> {
    let account = args.orgs.first().cloned().unwrap_or_default();
    let app = match &args.app_key {
        None => None,
        Some(file) => Some(AppSpec {
            id: args.app_id,
            client_id: format!("Iv1.{:016x}", args.app_id),
            public_key_pem: std::fs::read_to_string(file)
                .with_context(|| format!("could not read {}", file.display()))?,
            installations: vec![InstallationSpec::for_runners(args.installation_id, &account)],
        }),
    };
    Ok(SimOptions {
        seed: args.seed,
        orgs: args.orgs,
        enterprise: args.enterprise,
        repos: args.repos,
        tokens: args.tokens.iter().map(|token| TokenSpec::all_powerful(token)).collect(),
        app,
        ..SimOptions::default()
    })
}

async fn listener(args: ListenerArgs) -> anyhow::Result<ExitCode> {
    let signals = signals()?;
    let transport = Transport::http().context("could not make an HTTP client")?;
    let mut options = ListenerOptions::new(transport, SimClock::real());
    options.input_limit = Duration::from_secs(args.input_seconds);
    options.fold_exit_codes = args.fold_exit_codes;
    options.faults = ListenerFaults {
        exit_at_start: args.exit_at_start,
        never_listen: args.never_listen,
        forged_lines: args.forged_lines,
        ignore_term: args.ignore_term,
        ..ListenerFaults::default()
    };
    let code = listen(options, first_line(), PlainOut(std::io::stdout()), signals).await;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// SIGINT and SIGTERM as a stream.
fn signals() -> anyhow::Result<impl Stream<Item = StopSignal> + Unpin> {
    let interrupt = signal(SignalKind::interrupt()).context("could not catch SIGINT")?;
    let terminate = signal(SignalKind::terminate()).context("could not catch SIGTERM")?;
    let both = stream::unfold((interrupt, terminate), |(mut interrupt, mut terminate)| async {
        let which = tokio::select! {
            _ = interrupt.recv() => StopSignal::Interrupt,
            _ = terminate.recv() => StopSignal::Terminate,
        };
        Some((which, (interrupt, terminate)))
    });
    Ok(Box::pin(both))
}

/// The first line of standard input. A thread of its own reads it: one that never
/// gets a line does not keep the process from exiting, as the runtime's own would.
fn first_line() -> impl AsyncRead + Unpin {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let read = std::io::stdin().lock().read_until(b'\n', &mut line);
        // Who no longer waits for the line has decided without it.
        sender.send(read.map(|_| Bytes::from(line))).ok();
    });
    let line = stream::once(async { receiver.await.unwrap_or_else(|_| Ok(Bytes::new())) });
    StreamReader::new(Box::pin(line))
}

/// Standard output, written where it is called: a line is out when the call returns,
/// and no thread is kept for it.
struct PlainOut(std::io::Stdout);

impl AsyncWrite for PlainOut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.0.flush())
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_flush(context)
    }
}
