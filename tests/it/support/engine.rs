//! The real Docker engine for tests: a cluster of one's own, an image with a shell, and
//! nothing left of either, also when the test fails.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use runner_orchestrator::docker::{BollardDocker, Docker};
use runner_orchestrator::fleet::id::{BootId, ClusterMark, HostId, RunnerId, RunnerName};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::image::{self, ImageFile, ImageSpec};
use uuid::Uuid;

/// The engine the tests run on: `DOCKER_HOST`, or the usual socket.
pub(crate) fn connect() -> BollardDocker {
    let host = std::env::var_os("DOCKER_HOST").map(|host| host.into_string().unwrap());
    BollardDocker::connect(host.as_deref()).unwrap()
}

/// A mark that no other test and no other process uses.
pub(crate) fn random_mark() -> ClusterMark {
    ClusterMark::derive(&Uuid::new_v4().to_string())
}

/// The real engine under a random mark. Dropping it removes all that carries the mark.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) docker: Arc<BollardDocker>,
    pub(crate) mark: ClusterMark,
    pub(crate) image: Arc<ShellImage>,
}

impl Engine {
    pub(crate) async fn new() -> Self {
        let docker = Arc::new(connect());
        let image = ShellImage::get(&docker).await;
        Self { docker, mark: random_mark(), image }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mark = self.mark.clone();
        finish(async move {
            let swept = connect().forget_cluster(&mark).await.unwrap();
            assert_eq!(swept.stuck_networks, Vec::<String>::new());
        });
    }
}

/// An image with busybox as `/bin/sh` and its usual tools, and bash, shared by the tests of this
/// process and removed with the last of them.
#[derive(Debug)]
pub(crate) struct ShellImage {
    /// To be used as a container's image.
    pub(crate) reference: String,
}

static CURRENT: Mutex<Weak<ShellImage>> = Mutex::new(Weak::new());

impl ShellImage {
    /// The image, made by the first who asks.
    pub(crate) async fn get(docker: &BollardDocker) -> Arc<Self> {
        let current = || CURRENT.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(image) = current() {
            return image;
        }
        let reference = image::ensure(docker, &shell_image()).await.unwrap();
        let mut slot = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        // Two that were first at once made the same image under the same name.
        slot.upgrade().unwrap_or_else(|| {
            let image = Arc::new(Self { reference });
            *slot = Arc::downgrade(&image);
            image
        })
    }
}

impl Drop for ShellImage {
    fn drop(&mut self) {
        let reference = self.reference.clone();
        // Held while removing: a test that starts just now makes the image anew afterwards.
        let _slot = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        finish(async move { connect().remove_image(&reference).await.unwrap() });
    }
}

fn shell_image() -> ImageSpec {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "install the Debian package busybox-static to run these tests");
    let tools =
        ["sh", "cat", "head", "httpd", "mkdir", "sha256sum", "sleep", "tail", "timeout", "true"];
    ImageSpec {
        // With the process id: another test process removes its image when it ends.
        repository: format!("runner-orchestrator-test-{}", std::process::id()),
        files: vec![
            ImageFile { source: busybox.to_owned(), path: "/bin/busybox".to_owned() },
            // For its `/dev/tcp`: a statically linked busybox crashes when it looks up a
            // host, even one given as an address.
            ImageFile { source: PathBuf::from("/bin/bash"), path: "/bin/bash".to_owned() },
        ],
        links: tools.map(|tool| (format!("/bin/{tool}"), "busybox".to_owned())).to_vec(),
        command: vec!["/bin/sh".to_owned()],
    }
}

/// Runs something to its end in a drop, where nobody can wait for it. A failure is
/// reported by panicking, unless the test has failed already.
fn finish(work: impl Future<Output = ()> + Send + 'static) {
    let done = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    })
    .join();
    if !std::thread::panicking() {
        done.unwrap();
    }
}

/// Names for one runner of a test.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) runner: RunnerId,
    pub(crate) name: RunnerName,
    pub(crate) host: HostId,
    pub(crate) boot: BootId,
    pub(crate) at: Timestamp,
}

impl Names {
    pub(crate) fn random(mark: &ClusterMark) -> Self {
        let runner = RunnerId(Uuid::new_v4());
        let host = HostId(Uuid::new_v4());
        Self {
            runner,
            name: RunnerName::compose(mark, &host, &runner),
            host,
            boot: BootId(Uuid::new_v4()),
            at: Timestamp(1_700_000_000_000),
        }
    }
}
