//! Docker engines through their command line client: this machine's, or one of the test's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::program::{command, ending, on_path, output, wait_for};

/// How a client reaches an engine, and which builder it asks for.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    program: PathBuf,
    /// `None` = the machine's own engine.
    socket: Option<PathBuf>,
    buildkit: bool,
}

impl Client {
    /// This machine's engine and the classic builder.
    pub(crate) fn classic() -> Self {
        Self { program: "docker".into(), socket: None, buildkit: false }
    }

    /// The engine behind a socket, through a client that has `BuildKit` or its plugin.
    pub(crate) fn buildkit(socket: PathBuf) -> Self {
        let able = |docker: &PathBuf| {
            let asks = |what: &[&str]| ending(command(docker).args(what));
            let built_in = ["Docker version 19.", "Docker version 20."];
            let (_, version) = asks(&["--version"]);
            asks(&["buildx", "version"]).0 == Some(0)
                || built_in.iter().any(|old| version.starts_with(old))
        };
        let program = on_path("docker").into_iter().find(able);
        let program =
            program.expect("run tests/setup.sh test: no docker client builds with BuildKit");
        Self { program, socket: Some(socket), buildkit: true }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut docker = command(&self.program);
        docker.args(arguments).env("DOCKER_BUILDKIT", if self.buildkit { "1" } else { "0" });
        if let Some(socket) = &self.socket {
            docker.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        }
        docker
    }

    /// Runs a docker command that has to succeed; its standard output, trimmed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        output(&mut self.command(arguments)).trim().to_owned()
    }
}

/// A container that is removed when this is dropped, whatever became of it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) client: Client,
    pub(crate) id: String,
}

impl Container {
    /// Starts one in the background.
    pub(crate) fn start(client: &Client, arguments: &[&str]) -> Self {
        let id = client.run(&[&["run", "--detach"], arguments].concat());
        Self { client: client.clone(), id }
    }

    pub(crate) fn logs(&self) -> String {
        ending(&mut self.client.command(&["logs", &self.id])).1
    }

    /// What it said until this line.
    pub(crate) fn logs_until(&self, line: &str) -> String {
        wait_for(&format!("{line:?} in the log"), Duration::from_secs(30), || {
            let logs = self.logs();
            assert!(self.inspect("{{.State.Running}}") == "true", "ended early: {logs}");
            logs.lines().any(|said| said == line).then_some(logs)
        })
    }

    pub(crate) fn inspect(&self, format: &str) -> String {
        self.client.run(&["inspect", "--format", format, &self.id])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let (_, said) = ending(&mut self.client.command(&["rm", "--force", "--volumes", &self.id]));
        assert!(std::thread::panicking() || said.contains(&self.id), "{said}");
    }
}

/// An engine of the test's own, without any network. Everything in it goes with
/// it, `BuildKit`'s cache too, which cannot be removed for one build alone.
#[derive(Debug)]
pub(crate) struct PrivateEngine {
    daemon: Child,
    /// Its socket lies here: the path of a socket must be short.
    dir: TempDir,
    /// On the disk of the build output; `/tmp` may be memory.
    data: Option<TempDir>,
}

impl PrivateEngine {
    pub(crate) fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // The machine's own daemon.json is not for this one.
        std::fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // In a network of its own: without a bridge dockerd takes away the one it finds,
        // and that is the machine's. It ends with the test, also with a killed one.
        let mut dockerd = Command::new("unshare");
        dockerd
            .args(["--net", "setpriv", "--pdeathsig", "TERM", "dockerd"])
            .args(["--config-file", &at("daemon.json"), "--pidfile", &at("pid")])
            .args(["--host", &format!("unix://{}", at("docker.sock")), "--exec-root", &at("exec")])
            .args(["--data-root", &data.path().display().to_string()])
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false"])
            .env("PATH", with_sbin())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let daemon = dockerd.spawn().unwrap();
        let mut engine = Self { daemon, dir, data: Some(data) };
        let client =
            Client { buildkit: false, socket: Some(engine.socket()), program: "docker".into() };
        wait_for("an engine of the test's own", Duration::from_secs(50), || {
            let ended = engine.daemon.try_wait().unwrap();
            assert_eq!(ended, None, "dockerd needs root's rights; it said:\n{}", engine.log());
            (ending(&mut client.command(&["version"])).0 == Some(0)).then_some(())
        });
        engine
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// Where dockerd and what it calls stand, also for a `PATH` without them.
fn with_sbin() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let _ = ending(command("kill").arg(self.daemon.id().to_string()));
        let end = self.daemon.wait();
        let data = self.data.take().map(TempDir::close);
        if !std::thread::panicking() {
            end.unwrap();
            data.transpose().expect("the engine's data removed: nothing is mounted there");
        }
    }
}
