//! The way to the daemon: over TCP, to one that comes late, to one that changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use runner_orchestrator::docker::{BollardDocker, Docker, DockerError};
use runner_orchestrator::fleet::id::ContainerId;
use serde_json::json;

use super::conformance::{self, Subject};
use crate::it::support::engine::Engine;

/// Just enough of a daemon to see what is asked of it.
#[derive(Debug, Default)]
struct Fake {
    version: Mutex<String>,
    asked: Mutex<Vec<String>>,
    removing: AtomicUsize,
    removing_max: AtomicUsize,
}

impl Fake {
    fn speaking(version: &str) -> Arc<Self> {
        Arc::new(Self { version: Mutex::new(version.to_owned()), ..Self::default() })
    }

    /// Serves until the returned task set is dropped.
    fn serve(self: &Arc<Self>, socket: &Path) -> tokio::task::JoinSet<()> {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(self));
        let mut served = tokio::task::JoinSet::new();
        served.spawn(async move { axum::serve(listener, router).await.unwrap() });
        served
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(State(fake): State<Arc<Fake>>, method: Method, uri: Uri) -> Response {
    fake.asked.lock().unwrap().push(uri.path().to_owned());
    if uri.path().ends_with("/version") {
        let version = fake.version.lock().unwrap().clone();
        return axum::Json(json!({ "ApiVersion": version })).into_response();
    }
    if method == Method::DELETE {
        let now = fake.removing.fetch_add(1, Ordering::SeqCst) + 1;
        fake.removing_max.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        fake.removing.fetch_sub(1, Ordering::SeqCst);
        return StatusCode::NO_CONTENT.into_response();
    }
    let wanted = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
    if wanted != format!("v{}", fake.version.lock().unwrap()) {
        let message = format!("client version {wanted} is too old");
        return (StatusCode::BAD_REQUEST, axum::Json(json!({ "message": message })))
            .into_response();
    }
    let message = "No such container: x";
    (StatusCode::NOT_FOUND, axum::Json(json!({ "message": message }))).into_response()
}

fn at(socket: &Path) -> BollardDocker {
    BollardDocker::connect(Some(&format!("unix://{}", socket.display()))).unwrap()
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    (directory, socket)
}

#[tokio::test]
async fn a_daemon_may_come_late_and_come_back_as_another_release() {
    let (_directory, socket) = socket();
    let docker = at(&socket);
    let id = ContainerId::from("x");
    for _ in 0..2 {
        let error = docker.state(&id).await.unwrap_err();
        assert!(matches!(error, DockerError::Unreachable { .. }), "{error}");
        assert!(error.is_transient());
    }

    let fake = Fake::speaking("1.41");
    let mut served = fake.serve(&socket);
    for _ in 0..2 {
        assert_eq!(docker.state(&id).await.unwrap(), None);
    }
    let look = "/v1.41/containers/x/json";
    assert_eq!(fake.asked(), ["/version", look, look], "agreed on once, then kept to");

    served.shutdown().await;
    std::fs::remove_file(&socket).unwrap();
    assert!(docker.state(&id).await.is_err());
    let fake = Fake::speaking("1.44");
    let _served = fake.serve(&socket);
    assert_eq!(docker.state(&id).await.unwrap(), None);
    assert_eq!(fake.asked(), ["/version", "/v1.44/containers/x/json"]);
}

#[tokio::test]
async fn a_version_refused_later_is_agreed_on_again() {
    let (_directory, socket) = socket();
    let fake = Fake::speaking("1.41");
    let _served = fake.serve(&socket);
    let docker = at(&socket);
    let id = ContainerId::from("x");
    assert_eq!(docker.state(&id).await.unwrap(), None);
    // Upgraded between two calls, so that no call ever failed to connect.
    "1.44".clone_into(&mut fake.version.lock().unwrap());
    assert_eq!(docker.state(&id).await.unwrap_err().status(), Some(400));
    assert_eq!(docker.state(&id).await.unwrap(), None);
}

#[tokio::test]
async fn no_more_than_eight_removals_run_at_once() {
    let (_directory, socket) = socket();
    let fake = Fake::speaking("1.41");
    let _served = fake.serve(&socket);
    let docker = at(&socket);
    let ids: Vec<_> = (0..40).map(|n| ContainerId(n.to_string())).collect();
    futures_util::future::try_join_all(ids.iter().map(|id| docker.remove(id))).await.unwrap();
    assert_eq!(fake.removing_max.load(Ordering::SeqCst), 8);
    let removed: BTreeSet<_> = fake.asked().into_iter().collect();
    assert_eq!(removed.len(), 41, "each once, and the version");
}

#[tokio::test]
async fn a_daemon_that_hangs_is_given_up() {
    let (_directory, socket) = socket();
    // It takes connections, as the kernel does for it, and never reads them.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let docker = at(&socket);
    tokio::time::pause();
    let error = docker.state(&ContainerId::from("x")).await.unwrap_err();
    assert!(matches!(error, DockerError::Timeout { .. }), "{error}");
    assert!(error.is_transient());
}

/// The same way of a runner through a TCP address, half-close included.
#[tokio::test]
async fn tcp_serves_as_well() {
    let engine = Engine::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut connections = tokio::task::JoinSet::new();
    let forward = async {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut far =
                    tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    };
    let subject = Subject {
        docker: Arc::new(BollardDocker::connect(Some(&address)).unwrap()),
        mark: engine.mark.clone(),
        image: engine.image.reference.clone(),
    };
    tokio::select! {
        () = forward => unreachable!("it accepts for ever"),
        () = conformance::a_runner_is_fed_followed_and_removed(&subject) => (),
    }
}
