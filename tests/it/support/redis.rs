//! A Redis of one's own, in a directory of its own, gone with the value that stands for it:
//! the product's launcher, with a client beside it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult};
pub(crate) use runner_orchestrator::sim::redis::Data;
use runner_orchestrator::sim::redis::{Options, RedisServer};
use tempfile::TempDir;

/// One server, running or not. The server goes before its directory.
#[derive(Debug)]
pub(crate) struct Redis {
    server: RedisServer,
    pub(crate) port: u16,
    /// How its clients begin their URL, up to the host.
    scheme: String,
    dir: TempDir,
}

impl Redis {
    /// A server that keeps its data over a restart.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further settings, as on the command line: `["--requirepass", "x"]`. `PORT`
    /// stands for the port.
    pub(crate) fn with(settings: &[&str]) -> Self {
        let password = settings.iter().position(|word| *word == "--requirepass");
        let scheme = match password {
            Some(at) => format!("redis://:{}@", settings[at + 1]),
            None => "redis://".to_owned(),
        };
        let settings = settings.iter().map(|word| (*word).to_owned()).collect();
        Self::launch(Options { settings, ..Options::default() }, scheme)
    }

    /// A Sentinel that watches `master` under the name `fleet`.
    pub(crate) fn sentinel(master: &Self, quorum: usize) -> Self {
        let watches = Some(format!("fleet 127.0.0.1 {} {quorum}", master.port));
        Self::launch(Options { watches, ..Options::default() }, "redis://".to_owned())
    }

    fn launch(options: Options, scheme: String) -> Self {
        let dir = TempDir::new().unwrap();
        let options = Options { dir: Some(dir.path().to_owned()), ..options };
        let server = RedisServer::with(&options)
            .unwrap_or_else(|error| panic!("{error}: {}", log(dir.path())));
        Self { port: server.address().port(), server, scheme, dir }
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
        self.server.kill();
    }

    /// Ends it and starts it again on the same port.
    pub(crate) fn restart(&mut self, data: Data) {
        let started = self.server.restart(data);
        started.unwrap_or_else(|error| panic!("{error}: {}", log(self.dir.path())));
    }

    /// Stops (`STOP`) or continues (`CONT`) the process.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.server.pid().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success());
    }
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}
