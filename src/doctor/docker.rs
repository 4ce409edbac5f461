//! The Docker engine, as far as reading shows.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{Finding, chain};
use crate::config::{Config, DEFAULT_POOL};
use crate::docker::{BollardDocker, Daemon, Docker, DockerError, Supernet};
use crate::fleet::pool::Pool;

/// A socket that exists takes a connection at once or refuses it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The engine configured: whether it answers, and whether it suits the pools.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let host = config.docker.host.as_str();
    let docker = match BollardDocker::connect(Some(host)) {
        Ok(docker) => docker,
        Err(error) => {
            let fix = "set DOCKER_HOST to unix:///path or tcp://host:port";
            return vec![Finding::broken("engine", chain(&error), fix)];
        }
    };
    let daemon = match docker.daemon().await {
        Ok(daemon) => daemon,
        Err(error) => return vec![unreachable(host, &error).await],
    };
    let mut rows = vec![
        Finding::fine(
            "engine",
            format!(
                "{host}: Docker {}, API {}, {}, {}",
                daemon.version, daemon.api_version, daemon.architecture, daemon.storage_driver
            ),
        ),
        live_restore(&daemon),
    ];
    rows.extend(images(config, &docker).await);
    rows.extend(networks(config, &docker).await);
    rows.extend(config.pools.values().flat_map(|pool| room(config, pool, &daemon)));
    rows
}

/// Tells a missing socket, one that may not be used, and an engine that is down apart.
async fn unreachable(host: &str, error: &DockerError) -> Finding {
    let detail = chain(error);
    let Some(path) = host.strip_prefix("unix://") else {
        let fix = format!("check that the engine listens on {host} (DOCKER_HOST)");
        return Finding::broken("engine", detail, fix);
    };
    let connect = tokio::net::UnixStream::connect(path);
    let kind = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(Err(error)) => Some(error.kind()),
        Ok(Ok(_)) | Err(_) => None,
    };
    let metadata = std::fs::metadata(path).ok();
    match kind {
        Some(ErrorKind::NotFound) => {
            let fix = "start Docker (`systemctl start docker`), mount its socket into this \
                       container, or set DOCKER_HOST";
            Finding::broken("engine", format!("there is no socket {path}"), fix)
        }
        Some(ErrorKind::PermissionDenied) => {
            let (mode, gid) = metadata.map_or((0, 0), |meta| (meta.mode() & 0o777, meta.gid()));
            let detail = format!("{path} (mode {mode:03o}, group {gid}) may not be opened");
            let fix = format!(
                "let this process into group {gid}: `group_add: [\"{gid}\"]` in Compose, \
                 `--group-add {gid}` with docker run, `usermod -aG` on the host"
            );
            Finding::broken("engine", detail, fix)
        }
        Some(ErrorKind::ConnectionRefused) => {
            let fix = "start Docker (`systemctl start docker`); the socket is a left-over";
            Finding::broken("engine", format!("nobody listens on {path}"), fix)
        }
        Some(_) | None => {
            let fix = format!(
                "check that {path} is the engine's socket (DOCKER_HOST) and that `docker info` \
                 answers"
            );
            Finding::broken("engine", detail, fix)
        }
    }
}

fn live_restore(daemon: &Daemon) -> Finding {
    if daemon.live_restore {
        return Finding::fine("live-restore", "on");
    }
    Finding::warning(
        "live-restore",
        "off: a restart of the engine kills every runner with its job",
        "put {\"live-restore\": true} into /etc/docker/daemon.json and reload the engine \
         (`systemctl reload docker`)",
    )
}

async fn images(config: &Config, docker: &BollardDocker) -> Vec<Finding> {
    let mut references: Vec<&str> = config.pools.values().map(|pool| pool.image.as_str()).collect();
    references.sort_unstable();
    references.dedup();
    let mut rows = Vec::new();
    for reference in references {
        let what = format!("image {reference}");
        rows.push(match docker.image(reference).await {
            Ok(Some(digest)) => Finding::fine(what, digest),
            Ok(None) if is_local(reference) => Finding::broken(
                what,
                "is not on the host",
                "build or pull it there, or set RUNNER_IMAGE to one that is",
            ),
            Ok(None) => Finding::warning(
                what,
                "is not on the host; it is pulled at start",
                format!("pull it now: `docker pull {reference}`"),
            ),
            Err(error) => Finding::broken(what, chain(&error), "see the engine's log"),
        });
    }
    rows
}

/// A name that no registry serves: made on this machine, by convention of its tag.
fn is_local(reference: &str) -> bool {
    reference.ends_with(":local")
}

async fn networks(config: &Config, docker: &BollardDocker) -> Vec<Finding> {
    let used = match docker.subnets().await {
        Ok(used) => used,
        Err(error) => {
            return vec![Finding::broken("networks", chain(&error), "see the engine's log")];
        }
    };
    let rows = config.pools.values().map(|pool| {
        let what = format!("subnet for pool {}", pool.name);
        match Supernet::DEFAULT.free(capacity(config, pool), &used) {
            // The pool's own network may be the one that took the last.
            0 => Finding::warning(
                what,
                "none is free in 10.213.0.0/16",
                "remove networks that nobody uses (`docker network ls`), unless this pool's \
                 network is there already",
            ),
            free => Finding::fine(what, format!("{free} free in 10.213.0.0/16")),
        }
    });
    rows.collect()
}

/// How many runners of a pool this host may come to hold.
fn capacity(config: &Config, pool: &Pool) -> u32 {
    config.host.max_runners.map_or(pool.max_runners, |max| max.min(pool.max_runners))
}

/// Whether the limits of a pool's runners fit the machine. Without limits there is
/// nothing to compare.
fn room(config: &Config, pool: &Pool, daemon: &Daemon) -> Vec<Finding> {
    let runners = capacity(config, pool);
    let mut rows = Vec::new();
    if let Some(cpus) = pool.resources.cpus {
        let what = format!("processors for pool {}", pool.name);
        let all = f64::from(runners) * cpus;
        let there = f64::from(daemon.cpus);
        let detail = format!("{runners} x {cpus} of {there}");
        rows.push(if cpus > there {
            let fix = format!("set RUNNER_CPUS to at most {there}");
            Finding::broken(what, format!("one runner asks for {cpus} of {there}"), fix)
        } else if all > there {
            let fix = "lower MAX_RUNNERS, HOST_MAX_RUNNERS or RUNNER_CPUS, or let jobs share";
            Finding::warning(what, detail, fix)
        } else {
            Finding::fine(what, detail)
        });
    }
    if let Some(bytes) = pool.resources.memory_bytes {
        let what = format!("memory for pool {}", pool.name);
        let all = bytes.saturating_mul(u64::from(runners));
        let (one, there) = (mebibytes(bytes), mebibytes(daemon.memory_bytes));
        let detail = format!("{runners} x {one} MiB of {there} MiB");
        rows.push(if bytes > daemon.memory_bytes {
            let fix = format!("set RUNNER_MEMORY to less than {there}m");
            Finding::broken(what, format!("one runner asks for {one} MiB of {there} MiB"), fix)
        } else if all > daemon.memory_bytes {
            let fix = "lower MAX_RUNNERS, HOST_MAX_RUNNERS or RUNNER_MEMORY: together they may \
                       use up the machine's memory";
            Finding::warning(what, detail, fix)
        } else {
            Finding::fine(what, detail)
        });
    }
    if rows.is_empty() && pool.name.as_str() == DEFAULT_POOL {
        let detail = format!("{} CPUs, {} MiB", daemon.cpus, mebibytes(daemon.memory_bytes));
        rows.push(Finding::fine("machine", format!("{detail}; runners have no limits")));
    }
    rows
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
