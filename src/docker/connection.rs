//! The way to one daemon: opened on first use, its API version agreed on, every call
//! bounded in time, every failure told in our words.

use std::future::Future;
use std::time::Duration;

use bollard::errors::Error as LibraryError;
use bollard::{API_DEFAULT_VERSION, ClientVersion};
use http::uri::PathAndQuery;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::DockerError;

/// Where Docker listens when nobody says otherwise.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// The library wants a limit of its own in whole seconds. Ours end every call long before;
/// this one only has to be longer than the slowest of them (a pull).
const LIBRARY_LIMIT_SECONDS: u64 = 24 * 3600;

/// Calls that only read. A busy daemon answers a list of a hundred containers in far
/// less than a second; ten seconds without an answer means it hangs.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(10);

/// Create, start, attach and networks. Fifty starts at once took 5.8 s each on two cores;
/// five times that is a daemon that will not answer any more.
pub(super) const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// Removal of a container with its file system and volumes, which may be large.
pub(super) const REMOVE_LIMIT: Duration = Duration::from_secs(60);

/// One daemon's address, and the client for it once there was a reason to make one.
#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    client: Mutex<Option<bollard::Docker>>,
}

impl Connection {
    /// Reads the address; contacts nobody.
    pub(super) fn new(docker_host: Option<&str>) -> Result<Self, DockerError> {
        let address = Address::parse(docker_host.unwrap_or(DEFAULT_ADDRESS))?;
        Ok(Self { address, client: Mutex::new(None) })
    }

    /// Whether the daemon is on this machine.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Makes one call, within `limit` from here to its last byte.
    pub(super) async fn call<T, F>(
        &self,
        action: &'static str,
        limit: Duration,
        operation: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, DockerError>
    where
        F: Future<Output = Result<T, LibraryError>>,
    {
        let answer = timeout(limit, async {
            let client = self.client(action).await?;
            operation(client).await.map_err(|error| failure(action, error))
        })
        .await
        .unwrap_or_else(|_| Err(overdue(action, limit)));
        if let Err(error) = &answer {
            self.reconsider(error).await;
        }
        answer
    }

    /// A client that speaks the version the daemon and we both know. Waiting for the lock
    /// is waiting for somebody else's negotiation, under the same limit.
    pub(super) async fn client(
        &self,
        action: &'static str,
    ) -> Result<bollard::Docker, DockerError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = self.address.open().map_err(|error| failure(action, error))?;
        let version = client.version().await.map_err(|error| failure(action, error))?;
        let version = agree(version.api_version.as_deref().unwrap_or_default())
            .ok_or_else(|| answer(action, "the daemon names no API version"))?;
        let client = client.with_request_modifier(move |request| with_version(request, &version));
        *slot = Some(client.clone());
        Ok(client)
    }

    /// Forgets the client when the daemon went away or no longer takes our version: what
    /// answers next time may be another release of it.
    async fn reconsider(&self, error: &DockerError) {
        let stale = match error {
            DockerError::Unreachable { .. } => true,
            DockerError::Refused { status: 400, message, .. } => message.contains("client version"),
            _ => false,
        };
        if stale {
            *self.client.lock().await = None;
        }
    }
}

/// What `DOCKER_HOST` may hold.
#[derive(Debug)]
enum Address {
    Unix(String),
    Tcp(String),
}

impl Address {
    fn parse(text: &str) -> Result<Self, DockerError> {
        let refuse = |problem| DockerError::Address { address: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(refuse("a socket needs an absolute path, as in unix:///run/x.sock"));
            }
            return Ok(Self::Unix(path.to_owned()));
        }
        if let Some(host) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) {
            let host = host.trim_end_matches('/');
            if host.is_empty() || host.contains('/') {
                return Err(refuse("expected tcp://host:port"));
            }
            return Ok(Self::Tcp(format!("tcp://{host}")));
        }
        Err(refuse("expected unix:///path or tcp://host:port"))
    }

    fn open(&self) -> Result<bollard::Docker, LibraryError> {
        match self {
            Self::Unix(path) => {
                bollard::Docker::connect_with_unix(path, LIBRARY_LIMIT_SECONDS, API_DEFAULT_VERSION)
            }
            Self::Tcp(url) => {
                bollard::Docker::connect_with_http(url, LIBRARY_LIMIT_SECONDS, API_DEFAULT_VERSION)
            }
        }
    }
}

/// The older of the daemon's newest version and the one our models were made from.
fn agree(daemon: &str) -> Option<ClientVersion> {
    let (major, minor) = daemon.split_once('.')?;
    let daemon =
        ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? };
    Some(if daemon < *API_DEFAULT_VERSION { daemon } else { *API_DEFAULT_VERSION })
}

/// Puts the version into the path. The library leaves it out, and a path without one
/// means the daemon's newest, whose answers our models may not know.
fn with_version<B>(request: http::Request<B>, version: &ClientVersion) -> http::Request<B> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let versioned = format!("/v{version}{path}");
    let mut uri = head.uri.clone().into_parts();
    uri.path_and_query = versioned.parse().ok();
    // Both parses succeed whenever the original did; otherwise the path stays as it was.
    if let Ok(uri) = http::Uri::from_parts(uri) {
        head.uri = uri;
    }
    http::Request::from_parts(head, body)
}

/// Our word for what the library says went wrong.
pub(super) fn failure(action: &'static str, error: LibraryError) -> DockerError {
    match error {
        LibraryError::DockerResponseServerError { status_code, message } => {
            DockerError::Refused { action, status: status_code, message }
        }
        // An error in the middle of an answer that began well; Docker gives it no status.
        LibraryError::DockerStreamError { error } => {
            DockerError::Refused { action, status: 500, message: error }
        }
        LibraryError::RequestTimeoutError => {
            overdue(action, Duration::from_secs(LIBRARY_LIMIT_SECONDS))
        }
        LibraryError::IOError { .. }
        | LibraryError::HyperResponseError { .. }
        | LibraryError::HyperLegacyError { .. }
        | LibraryError::SocketNotFoundError(_) => {
            DockerError::Unreachable { action, source: Box::new(error) }
        }
        other => DockerError::Answer { action, source: Box::new(other) },
    }
}

/// The answer came and made no sense.
pub(super) fn answer(action: &'static str, problem: &str) -> DockerError {
    DockerError::Answer { action, source: problem.into() }
}

/// No answer within the limit.
pub(super) fn overdue(action: &'static str, limit: Duration) -> DockerError {
    DockerError::Timeout {
        action,
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_version_is_spoken() {
        assert_eq!(agree("1.41").unwrap().to_string(), "1.41");
        assert_eq!(agree("1.99").unwrap().to_string(), API_DEFAULT_VERSION.to_string());
        for bad in ["", "1", "one.two", "1.41.2"] {
            assert!(agree(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_version_goes_before_the_path_and_the_query_stays() {
        let request = http::Request::get("unix://2f72756e/containers/json?all=true").body(());
        let version = agree("1.41").unwrap();
        let request = with_version(request.unwrap(), &version);
        assert_eq!(request.uri().to_string(), "unix://2f72756e/v1.41/containers/json?all=true");
    }

    #[test]
    fn addresses_of_another_kind_are_refused_by_name() {
        for bad in ["ssh://host", "/var/run/docker.sock", "unix://run/x", "tcp://", "tcp://a/b", ""]
        {
            let error = Connection::new(Some(bad)).unwrap_err();
            assert!(matches!(error, DockerError::Address { .. }), "{bad}: {error}");
        }
        for good in ["unix:///run/x.sock", "tcp://10.0.0.1:2375", "http://localhost:2375/"] {
            assert!(Connection::new(Some(good)).is_ok(), "{good}");
        }
        assert!(Connection::new(None).is_ok());
    }
}
