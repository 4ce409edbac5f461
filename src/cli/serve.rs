//! `serve`: the orchestrator itself.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{EXIT_CONFIG, advertise, print};
use crate::api::{self, ApiSettings, ApiState};
use crate::app::{App, Edges, Settings};
use crate::clock::{Clock, SharedClock};
use crate::config::{self, Config, RedisConfig, ShutdownMode, StoreConfig};
use crate::docker::{BollardDocker, Docker, MeasuredDocker};
use crate::fleet::id::PoolName;
use crate::fleet::policy::Policy;
use crate::fleet::reason::REASON_CODES;
use crate::github::{Credentials, GitHub, GitHubSettings, RestGitHub};
use crate::loops::announce::Peers;
use crate::loops::host::Shutdown;
use crate::sim::clock::SimClock;
use crate::sim::docker::{ModelDocker, ModelSettings};
use crate::sim::listener::{ListenerFaults, Transport};
use crate::sim::program::ListenerProgram;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::redis::{RedisSettings, RedisStore, Tls};
use crate::telemetry::metrics::{HttpRequest, Metrics};
use crate::telemetry::{self, Output};

/// The exit code of a second signal: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// How the orchestrator runs; everything else is configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Run runners in a modelled engine inside this process, for trying things out
    #[arg(long, value_enum, default_value_t = Engine::Docker)]
    pub engine: Engine,
}

/// What runs the runners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Engine {
    #[default]
    Docker,
    Model,
}

/// Serves until told to stop.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) => {
            print::message(&error.to_string());
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    let _flush = telemetry::init(&config.telemetry, Output::Stdout)?;
    for warning in &config.warnings {
        warn!(warning, "configuration");
    }
    let listener = TcpListener::bind(config.api.listen)
        .await
        .with_context(|| format!("could not listen on {}", config.api.listen))?;
    let address = listener.local_addr().context("could not read the address listened on")?;

    let edges = edges(&config, args.engine)?;
    let (metrics, seen) = (edges.metrics.clone(), edges.metrics.clone());
    let github = edges.github.clone();
    let peers = Peers {
        advertise: advertise::url(config.cluster.advertise.as_ref(), address),
        secret: config.cluster.secret.clone(),
    };
    let settings = settings(&config, peers);
    let api_settings = api_settings(&config, address, edges.clock.as_ref());
    let app = App::start(edges, settings);
    let vitals = app.handle().lease_alive;
    let state = ApiState::new(
        app.handle(),
        api_settings,
        Arc::new(move || {
            metrics.github_calls(&github.calls());
            metrics.github_budget(&github.budget());
            metrics.render()
        }),
    )
    .observed_by(Arc::new(move |method, route, status, took| {
        seen.http_request(&HttpRequest { method, route, status, took });
    }))
    .alive_while(Arc::new(move || vitals.check()));
    let stop_api = CancellationToken::new();
    let recorder = state.recorder();
    api::decisions::record(&app.handle().listeners, recorder);
    let mut beside = JoinSet::new();
    let served = api::serve(listener, api::router(state), stop_api.clone());
    beside.spawn(async move {
        if let Err(error) = served.await {
            warn!(error = %error, "the API ended");
        }
    });
    info!(address = %address, engine = ?args.engine, "listening");

    let stop = CancellationToken::new();
    beside.spawn(stop_by_signal(stop.clone()));
    let ended = app.run(stop).await;
    // The API tells how far the shutdown is until there is nothing more to tell.
    stop_api.cancel();
    beside.abort_all();
    ended?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The first signal begins the shutdown, the second ends the process at once.
async fn stop_by_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("signals cannot be caught; the process can only be killed");
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = term.recv() => (),
            _ = int.recv() => (),
        }
        if first {
            info!("stopping; a second signal ends the process at once");
            stop.cancel();
        }
    }
    exit_now();
}

#[expect(clippy::exit, reason = "the operator has asked twice: nothing is waited for any more")]
fn exit_now() {
    std::process::exit(EXIT_INTERRUPTED);
}

fn edges(config: &Config, engine: Engine) -> anyhow::Result<Edges> {
    let clock: Arc<dyn Clock> = Arc::new(SharedClock::new());
    let github: Arc<dyn GitHub> = Arc::new(github(config, clock.clone())?);
    let docker: Arc<dyn Docker> = match engine {
        Engine::Docker => Arc::new(BollardDocker::connect(Some(&config.docker.host))?),
        Engine::Model => Arc::new(model(config, clock.clone())?),
    };
    let metrics = Arc::new(Metrics::new(config.pools.values(), REASON_CODES)?);
    Ok(Edges {
        docker: Arc::new(MeasuredDocker::new(docker, metrics.clone())),
        github,
        store: store(&config.store, &clock)?,
        clock,
        metrics,
    })
}

/// Where shared state is kept. A Redis that is away is waited for by whoever needs it; there
/// is no falling back to memory, which would make a second fleet.
fn store(config: &StoreConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config {
        StoreConfig::Memory => Arc::new(MemoryStore::new(clock.clone())),
        StoreConfig::Redis(redis) => Arc::new(RedisStore::start(redis_settings(redis))?),
    })
}

/// The Redis as configured; also what `doctor` looks at.
#[must_use]
pub fn redis_settings(redis: &RedisConfig) -> RedisSettings {
    RedisSettings {
        address: redis.address.clone(),
        tls: Tls { ca_pem: redis.ca_pem.clone(), identity_pem: redis.identity_pem.clone() },
        cluster: redis.cluster.clone(),
    }
}

/// The client as configured; also what `doctor` checks with.
pub fn github(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<RestGitHub> {
    let credentials = match &config.github.credentials {
        config::Credentials::Token(token) => Credentials::Token(token.clone()),
        config::Credentials::App(app) => Credentials::App {
            issuer: app.id.to_string(),
            private_key_pem: app.private_key.clone(),
            installation_id: app.installation_id,
        },
    };
    let api_url = config.github.api_url.as_str().to_owned();
    Ok(RestGitHub::new(GitHubSettings { api_url, credentials }, clock)?)
}

fn model(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<ModelDocker> {
    let transport = Transport::http().context("could not make an HTTP client")?;
    let program =
        ListenerProgram { transport, clock: SimClock::real(), faults: ListenerFaults::default() };
    let settings = ModelSettings {
        images: config.pools.values().map(|pool| pool.image.clone()).collect(),
        ..ModelSettings::default()
    };
    Ok(ModelDocker::new(TaskTracker::new(), clock, Arc::new(program), settings))
}

fn settings(config: &Config, peers: Peers) -> Settings {
    let policy = policy(config);
    let all_pools: u32 = config.pools.values().map(|pool| pool.max_runners).sum();
    Settings {
        cluster_name: config.cluster.name.clone(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pools: config.pools.clone(),
        poll_interval: config.github.poll_interval,
        host_max_runners: config.host.max_runners.unwrap_or(all_pools),
        shutdown: Shutdown {
            drain: config.shutdown.mode == ShutdownMode::Drain,
            timeout: config.shutdown.timeout,
        },
        policy,
        peers,
    }
}

/// The rule's figures that follow the configuration: a list is read once a poll, so its
/// age is judged in polls.
fn policy(config: &Config) -> Policy {
    let usual = Policy::default();
    let poll = config.github.poll_interval;
    Policy {
        boost_ttl: config.scaling.manual_boost_ttl,
        placement: config.scaling.placement,
        registrations_fresh: usual.registrations_fresh.max(poll * 3),
        ended_memory: usual.ended_memory.max(poll * 2),
        ..usual
    }
}

fn api_settings(
    config: &Config,
    listen_addr: std::net::SocketAddr,
    clock: &dyn Clock,
) -> ApiSettings {
    let shown =
        config.pools.get(&PoolName::from(config::DEFAULT_POOL)).or(config.pools.values().next());
    ApiSettings {
        api_token: config.api.token.clone(),
        allowed_hosts: config.api.allowed_hosts.clone(),
        listen_addr,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        poll_interval: config.github.poll_interval,
        idle_timeout: shown.map(|pool| pool.idle_timeout).unwrap_or_default(),
        runner_image: shown.map(|pool| pool.image.clone()).unwrap_or_default(),
        started_at: clock.now(),
    }
}
