//! Configuration: one typed value, made once at start from the environment, `.env` and
//! the files they name. Each module receives its own part. Every mistake is reported,
//! not only the first; nothing is started with a wrong one.
//!
//! This is the only module that reads the environment.

mod dotenv;
mod github;
mod pools;
mod pools_file;
mod problem;
mod process;
mod reader;
pub mod reference;
mod show;
mod sources;
mod store;
mod telemetry;
mod value;
mod variables;

use std::collections::BTreeMap;
use std::time::Duration;

pub use github::{ApiUrl, AppCredentials, Credentials, GitHubConfig};
pub use pools::DEFAULT_POOL;
pub use problem::{ConfigError, Problem};
pub use process::{
    ApiConfig, ClusterConfig, DockerConfig, HostConfig, ShutdownConfig, ShutdownMode,
};
pub use show::{Setting, render};
pub use sources::{DOTENV_PATH, Origin, PREFIX, Sources};
pub use store::{RedisConfig, StoreConfig};
pub use telemetry::{LogFormat, TelemetryConfig, TracesConfig};
pub use variables::{Fallback, Section, VARIABLES, Variable, all, find};

use crate::fleet::id::PoolName;
use crate::fleet::policy::Placement;
use crate::fleet::pool::{Pool, Scope};
use reader::Reader;

/// Everything that was configured. Its `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    pub github: GitHubConfig,
    /// At least one. `default` is there when the environment names a scope.
    pub pools: BTreeMap<PoolName, Pool>,
    pub scaling: ScalingConfig,
    pub api: ApiConfig,
    pub docker: DockerConfig,
    pub host: HostConfig,
    pub cluster: ClusterConfig,
    pub store: StoreConfig,
    pub shutdown: ShutdownConfig,
    pub telemetry: TelemetryConfig,
    /// What is odd without being wrong, for the log at start. No secret is in it.
    pub warnings: Vec<String>,
    /// Every effective value and where it came from, secrets masked.
    pub settings: Vec<Setting>,
}

/// What scaling needs beside the pools.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScalingConfig {
    /// How long a manual scale-up holds when it is not used.
    pub manual_boost_ttl: Duration,
    /// Which of the hosts that have room takes a runner.
    pub placement: Placement,
}

/// The engine's address alone, for tools that need no other setting.
#[must_use]
pub fn docker_host() -> Option<String> {
    alone("DOCKER_HOST")
}

/// The address of Redis alone, as [`docker_host`].
#[must_use]
pub fn redis_url() -> Option<String> {
    alone("REDIS_URL")
}

fn alone(name: &str) -> Option<String> {
    let sources = Sources::from_process().ok()?;
    let prefixed = format!("{PREFIX}{name}");
    let set = |name: &str| sources.env.get(name).filter(|value| !value.is_empty()).cloned();
    set(&prefixed).or_else(|| set(name))
}

impl Config {
    /// Reads the environment of this process and the `.env` of its working directory.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn from_process() -> Result<Self, ConfigError> {
        let sources = Sources::from_process().map_err(|error| ConfigError {
            problems: vec![Problem {
                subject: DOTENV_PATH.to_owned(),
                text: format!("cannot be read ({error})"),
            }],
        })?;
        Self::load(&sources)
    }

    /// Makes the configuration from what the sources say.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(sources);
        let (github, scope) = github::read(&mut reader);
        let poll_interval = github.as_ref().map(|github| github.poll_interval);
        let boost_ttl = reader.get("MANUAL_BOOST_TTL", value::seconds(1..=7 * 24 * 3600));
        let placement = reader.get("PLACEMENT", placement).unwrap_or_default();
        let pools = read_pools(&mut reader, scope, poll_interval);
        let api = process::api(&mut reader);
        let docker = process::docker(&mut reader);
        let host = process::host(&mut reader);
        check_privileged(&mut reader, &pools, &host);
        let cluster = process::cluster(&mut reader);
        let store = store::read(&mut reader, &cluster);
        let shutdown = process::shutdown(&mut reader);
        let telemetry = telemetry::read(&mut reader);
        if let Some(github) = &github {
            check_rate_limit(&mut reader, github, &pools);
        }
        check_times(&mut reader, &pools, boost_ttl, poll_interval);
        check_room(&mut reader, &pools, &host);
        reader.warnings.extend(check_routing(&pools));

        let Reader { problems, warnings, settings, .. } = reader;
        let error = ConfigError { problems };
        if !error.problems.is_empty() {
            return Err(error);
        }
        // Each of these is `None` only together with a problem.
        let (Some(github), Some(manual_boost_ttl), Some(api), Some(docker)) =
            (github, boost_ttl, api, docker)
        else {
            return Err(error);
        };
        let (Some(shutdown), Some(telemetry)) = (shutdown, telemetry) else { return Err(error) };
        let scaling = ScalingConfig { manual_boost_ttl, placement };
        Ok(Self {
            github,
            pools,
            scaling,
            api,
            docker,
            host,
            cluster,
            store,
            shutdown,
            telemetry,
            warnings,
            settings,
        })
    }
}

fn placement(text: &str) -> Result<Placement, String> {
    match text.to_ascii_lowercase().as_str() {
        "spread" => Ok(Placement::Spread),
        "binpack" => Ok(Placement::Binpack),
        _ => Err("expected spread or binpack".to_owned()),
    }
}

fn read_pools(
    reader: &mut Reader<'_>,
    scope: Option<Scope>,
    poll_interval: Option<Duration>,
) -> BTreeMap<PoolName, Pool> {
    let scope_set = github::SCOPE_VARIABLES.iter().any(|name| reader.is_set(name));
    let fields = pools::from_environment(reader, scope);
    if let Some(poll_interval) = poll_interval {
        reader.derived("SCALE_UP_MAX_WAIT", poll_interval.as_secs());
    }
    let file = reader.text("POOLS_FILE");
    let mut pools = match &file {
        Some(path) => pools_file::read(reader, path, &fields, poll_interval),
        None => BTreeMap::new(),
    };
    if !scope_set && file.is_none() {
        reader.problem("GITHUB_ORG", "missing (set it, GITHUB_REPO or GITHUB_ENTERPRISE)");
    }
    pools.extend(fields.finish(DEFAULT_POOL, poll_interval).map(|pool| (pool.name.clone(), pool)));
    pools
}

/// A pool cannot grant itself what only the operator of a host may.
fn check_privileged(reader: &mut Reader<'_>, pools: &BTreeMap<PoolName, Pool>, host: &HostConfig) {
    let privileged = |pool: &&Pool| pool.docker.is_privileged() && !host.allow_privileged;
    for pool in pools.values().filter(privileged) {
        let subject = match pool.name.as_str() {
            DEFAULT_POOL => format!("{}={}", reader.spelled("RUNNER_DOCKER"), pool.docker.name()),
            name => format!("pool {name:?} docker={}", pool.docker.name()),
        };
        reader.problem(
            subject,
            "makes its jobs as good as root on this host, which ALLOW_PRIVILEGED_RUNNERS=true \
             must allow",
        );
    }
}

/// Polling may use up the hourly limit of a token. Answers that have not changed cost
/// nothing, so this is the worst case: a warning, not a mistake.
fn check_rate_limit(
    reader: &mut Reader<'_>,
    github: &GitHubConfig,
    pools: &BTreeMap<PoolName, Pool>,
) {
    const POINTS_AN_HOUR: u64 = 5000;
    /// Two lists of runs and one of runners.
    const POINTS_A_POLL: u64 = 3;
    let mut scopes: Vec<&Scope> = pools.values().map(|pool| &pool.scope).collect();
    scopes.sort();
    scopes.dedup();
    let rounds = 3600 / github.poll_interval.as_secs().max(1);
    let points = rounds * POINTS_A_POLL * u64::try_from(scopes.len()).unwrap_or(u64::MAX);
    if github.api_url.is_public() && points > POINTS_AN_HOUR {
        let seconds = github.poll_interval.as_secs();
        let name = reader.spelled("POLL_INTERVAL");
        reader.warn(format!(
            "{name}={seconds}: a busy queue may cost {points} requests an hour, and GitHub \
             allows {POINTS_AN_HOUR}; polling slows down when they run short"
        ));
    }
}

fn check_times(
    reader: &mut Reader<'_>,
    pools: &BTreeMap<PoolName, Pool>,
    boost_ttl: Option<Duration>,
    poll_interval: Option<Duration>,
) {
    for pool in pools.values() {
        if let Some(ttl) = boost_ttl.filter(|ttl| *ttl < pool.start_deadline) {
            let subject = format!("{}={}", reader.spelled("MANUAL_BOOST_TTL"), ttl.as_secs());
            let deadline = pool.start_deadline.as_secs();
            let text = format!(
                "must be at least the START_DEADLINE of pool {} ({deadline}), or a manual \
                 scale-up ends before its runners listen",
                pool.name
            );
            reader.problem(subject, text);
        }
        if poll_interval.is_some_and(|interval| pool.idle_timeout < interval) {
            reader.warn(format!(
                "IDLE_TIMEOUT of pool {} ({} s) is below POLL_INTERVAL: runners may go while \
                 their job is not yet seen",
                pool.name,
                pool.idle_timeout.as_secs()
            ));
        }
    }
}

/// With one host its limit bounds every floor; with several it does not.
fn check_room(reader: &mut Reader<'_>, pools: &BTreeMap<PoolName, Pool>, host: &HostConfig) {
    let floor: u32 = pools.values().map(|pool| pool.min_runners).sum();
    if let Some(max) = host.max_runners.filter(|max| *max < floor) {
        reader.warn(format!(
            "HOST_MAX_RUNNERS={max} is below the {floor} runners that MIN_RUNNERS asks for: one \
             host cannot hold them"
        ));
    }
}

/// A job belongs to one pool, so of two pools that serve the same labels for the same
/// owner only one gets jobs.
fn check_routing(pools: &BTreeMap<PoolName, Pool>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, first) in pools.values().enumerate() {
        for second in pools.values().skip(index + 1) {
            if first.scope == second.scope && first.labels == second.labels {
                let winner = if second.priority > first.priority { second } else { first };
                warnings.push(format!(
                    "pools {} and {} serve the same labels: all jobs go to {}",
                    first.name, second.name, winner.name
                ));
            }
        }
    }
    warnings
}
