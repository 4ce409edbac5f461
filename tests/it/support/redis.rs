//! A Redis of one's own: Debian's `redis-server` on a free port, in a directory of its own,
//! gone with the value that stands for it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, RedisResult};
use tempfile::TempDir;

/// Long enough for a start on a busy machine; reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What becomes of the data over a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Data {
    Kept,
    Lost,
}

/// One server, running or not.
#[derive(Debug)]
pub(crate) struct Redis {
    dir: TempDir,
    pub(crate) port: u16,
    settings: Vec<String>,
    /// How its clients begin their URL, up to the host.
    scheme: String,
    child: Option<Child>,
}

impl Redis {
    /// A server that keeps its data over a restart.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further settings, as on the command line: `["--requirepass", "x"]`. `TLS`
    /// stands for the port.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let password = settings.iter().position(|word| *word == "--requirepass");
        let scheme = match password {
            Some(at) => format!("redis://:{}@", settings[at + 1]),
            None => "redis://".to_owned(),
        };
        Self::launch(settings, scheme)
    }

    /// A Sentinel that watches `master` under the name `fleet`.
    pub(crate) fn sentinel(master: &Self, quorum: usize) -> Self {
        let watched = format!("fleet 127.0.0.1 {} {quorum}", master.port);
        Self::launch(&["--sentinel", &watched], "redis://".to_owned())
    }

    fn launch(settings: &[&str], scheme: String) -> Self {
        let mut server = Self {
            dir: TempDir::new().unwrap(),
            port: 0,
            settings: settings.iter().map(|word| (*word).to_owned()).collect(),
            scheme,
            child: None,
        };
        // Between looking for a free port and using it somebody else may take it.
        for _ in 0..10 {
            let _ = fs::remove_file(server.dir.path().join("sentinel.conf"));
            server.port = free_port();
            if server.run() {
                return server;
            }
        }
        panic!("redis-server did not start: {}", server.log());
    }

    /// Starts the process and waits until it answers; `false` when it has ended instead.
    fn run(&mut self) -> bool {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("redis-server");
        if self.settings.first().is_some_and(|word| word == "--sentinel") {
            let file = self.dir.path().join("sentinel.conf");
            if !file.exists() {
                fs::write(&file, self.sentinel_file()).unwrap();
            }
            command.arg(file).arg("--sentinel");
        } else {
            let port = self.port.to_string();
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
            // What was written to the file survives the process, synchronised or not.
            command.args(["--appendonly", "yes", "--appendfsync", "no"]);
            let words = self.settings.iter().map(|word| if word == "TLS" { &port } else { word });
            command.arg("--dir").arg(self.dir.path()).args(words);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("redis-server is installed by tests/setup.sh");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let answer = self.try_ask::<redis::Value>(&["PING"]);
            let locked = |error: &redis::RedisError| {
                matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
                    || error.kind() == redis::ErrorKind::AuthenticationFailed
            };
            if answer.as_ref().map_or_else(locked, |_| true) || self.is_tls() && self.listens() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        false
    }

    fn sentinel_file(&self) -> String {
        format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {}\n\
             sentinel down-after-milliseconds fleet 1000\nsentinel failover-timeout fleet 3000\n",
            self.port,
            self.dir.path().display(),
            self.settings[1]
        )
    }

    fn is_tls(&self) -> bool {
        self.settings.iter().any(|word| word == "--tls-port")
    }

    fn listens(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// Its URL, with the password if it has one.
    pub(crate) fn url(&self) -> String {
        format!("{}127.0.0.1:{}", self.scheme, self.port)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs one command on a connection of its own.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut connection)
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it and starts it again on the same port.
    pub(crate) fn restart(&mut self, data: Data) {
        self.kill();
        if data == Data::Lost {
            let _ = fs::remove_dir_all(self.dir.path().join("appendonlydir"));
        }
        assert!(self.run(), "redis-server did not start again: {}", self.log());
    }

    /// Stops (`STOP`) or continues (`CONT`) the process.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
