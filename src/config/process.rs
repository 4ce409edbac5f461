//! The API, the Docker engine, the host, the cluster, and how the process ends.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::reader::Reader;
use super::value;

/// What the HTTP API needs.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    pub listen: SocketAddr,
    /// What callers must send; `None` = nobody is asked.
    pub token: Option<SecretString>,
    /// Further names the API may be called by, in lower case.
    pub allowed_hosts: Vec<String>,
}

/// What the Docker edge needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DockerConfig {
    /// `unix:///path` or `tcp://host:port`.
    pub host: String,
}

/// What this host may hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// Of all pools together; `None` = only the pools' own limits.
    pub max_runners: Option<u32>,
    /// Its operator allows jobs that are as good as root on it.
    pub allow_privileged: bool,
}

/// Which installation this is.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// `None`: the mark derives from the host's identity.
    pub name: Option<String>,
    /// Signs forwarded requests; `None` = nothing is forwarded.
    pub secret: Option<SecretString>,
    /// Where other replicas reach this one's API; `None` = follows from the address listened on.
    pub advertise: Option<Url>,
}

/// How the process ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShutdownConfig {
    pub mode: ShutdownMode,
    /// How long a drain waits for busy runners.
    pub timeout: Duration,
}

/// What happens to runners when the process is told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShutdownMode {
    /// Idle ones are removed, busy ones given time and then left.
    Drain,
    /// All stay; the next start adopts them.
    Detach,
}

pub(super) fn api(reader: &mut Reader<'_>) -> Option<ApiConfig> {
    let listen = reader.get("LISTEN_ADDR", value::listen_address);
    let token = shared_secret(reader, "API_TOKEN");
    let anonymous = reader.get("API_ALLOW_ANONYMOUS", value::boolean);
    let allowed_hosts = reader.get("API_ALLOWED_HOSTS", host_names).unwrap_or_default();
    let token_set = reader.is_set("API_TOKEN");
    if let (Some(listen), Some(anonymous)) = (listen, anonymous) {
        if !listen.ip().is_loopback() && !token_set && !anonymous {
            let subject = format!("{}={listen}", reader.spelled("LISTEN_ADDR"));
            reader.problem(
                subject,
                "reachable from other machines, so API_TOKEN is needed (or \
                 API_ALLOW_ANONYMOUS=true, when the port is published on 127.0.0.1 only)",
            );
        }
        if anonymous && token_set {
            let name = reader.spelled("API_ALLOW_ANONYMOUS");
            reader.warn(format!("{name} has no effect, because API_TOKEN is set"));
        }
    }
    Some(ApiConfig { listen: listen?, token, allowed_hosts })
}

/// Shorter ones can be guessed by trying.
const SHARED_SECRET_CHARS_MIN: usize = 16;

/// A secret of the operator's own making.
fn shared_secret(reader: &mut Reader<'_>, name: &'static str) -> Option<SecretString> {
    let secret = reader.secret(name, |text| {
        // It travels in an HTTP header.
        if text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(())
        } else {
            Err("expected visible ASCII characters without blanks".to_owned())
        }
    })?;
    if secret.expose_secret().len() < SHARED_SECRET_CHARS_MIN {
        let name = reader.spelled(name);
        reader.warn(format!("{name} has fewer than {SHARED_SECRET_CHARS_MIN} characters"));
    }
    Some(secret)
}

fn host_names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = value::list(text).iter().map(|name| name.to_lowercase()).collect();
    let fits = |name: &String| {
        name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if names.iter().all(fits) {
        Ok(names)
    } else {
        Err("expected host names without port, separated by commas".to_owned())
    }
}

pub(super) fn docker(reader: &mut Reader<'_>) -> Option<DockerConfig> {
    Some(DockerConfig { host: reader.get("DOCKER_HOST", value::docker_host)? })
}

pub(super) fn host(reader: &mut Reader<'_>) -> HostConfig {
    HostConfig {
        max_runners: reader.get("HOST_MAX_RUNNERS", value::whole(1..=10_000)),
        allow_privileged: reader.get("ALLOW_PRIVILEGED_RUNNERS", value::boolean).unwrap_or(false),
    }
}

pub(super) fn cluster(reader: &mut Reader<'_>) -> ClusterConfig {
    ClusterConfig {
        name: reader.get("CLUSTER_NAME", value::name),
        secret: shared_secret(reader, "CLUSTER_SECRET"),
        advertise: reader.get("ADVERTISE_URL", advertised_url),
    }
}

/// Routes are appended to it, so it ends where they begin.
fn advertised_url(text: &str) -> Result<Url, String> {
    value::http_url(text).ok().filter(|url| url.path() == "/").ok_or_else(|| {
        "expected a URL such as http://10.0.0.7:8080, without path or credentials".to_owned()
    })
}

pub(super) fn shutdown(reader: &mut Reader<'_>) -> Option<ShutdownConfig> {
    let mode = reader.get("SHUTDOWN_MODE", shutdown_mode);
    let timeout = reader.get("SHUTDOWN_TIMEOUT", value::seconds(0..=24 * 3600));
    // One replica that stops leaves nobody behind to care for its runners.
    let (default, text) = if reader.is_set("REDIS_URL") {
        (ShutdownMode::Detach, "detach")
    } else {
        (ShutdownMode::Drain, "drain")
    };
    reader.derived("SHUTDOWN_MODE", text);
    Some(ShutdownConfig { mode: mode.unwrap_or(default), timeout: timeout? })
}

fn shutdown_mode(text: &str) -> Result<ShutdownMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "drain" => Ok(ShutdownMode::Drain),
        "detach" => Ok(ShutdownMode::Detach),
        _ => Err("expected drain or detach".to_owned()),
    }
}
