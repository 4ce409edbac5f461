//! A Redis server of our own for the demo and the tests: a child process on a free port of
//! this machine alone. Given a directory it keeps its data there over a restart, else it
//! keeps nothing. Everything in here blocks.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where it stands, also for a `PATH` without administrators' programs.
const PLACES: [&str; 5] = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/bin"];
/// It takes a few milliseconds; a busy machine may need seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// The port was free a moment ago; somebody else may have been faster.
const ATTEMPTS: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("redis-server is not installed: install the package redis-server, or set REDIS_URL")]
    Missing,
    #[error("redis-server did not start")]
    Start(#[source] io::Error),
    #[error("redis-server does not answer on port {port}")]
    Silent { port: u16 },
    #[error("redis-server did not answer {command}")]
    Command {
        command: String,
        #[source]
        source: io::Error,
    },
}

/// What becomes of the data over a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// They come back, as far as they were written to the file (`appendonly`).
    Kept,
    Lost,
}

/// How a server is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keeps its data and its log here; `None`: keeps nothing.
    pub dir: Option<PathBuf>,
    /// Further words of its command line. [`PORT`] stands for the port.
    pub settings: Vec<String>,
    /// Is a Sentinel that watches this: `name host port quorum`.
    pub watches: Option<String>,
    /// An interrupt from the keyboard does not end it: whoever started it does.
    pub sheltered: bool,
}

/// Stands for the port in [`Options::settings`].
pub const PORT: &str = "PORT";

/// A server. Dropping it ends it.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    options: Options,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing, and waits until it answers.
    ///
    /// # Errors
    /// When there is none on this machine, or it does not come up.
    pub fn start() -> Result<Self, RedisError> {
        // It ends after the replicas, also when somebody interrupts us.
        Self::with(&Options { sheltered: true, ..Options::default() })
    }

    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When there is none on this machine, or it does not come up.
    pub fn with(options: &Options) -> Result<Self, RedisError> {
        let places = PLACES.iter().map(|dir| PathBuf::from(dir).join("redis-server"));
        let program = places.into_iter().find(|file| file.is_file()).ok_or(RedisError::Missing)?;
        let mut last = RedisError::Missing;
        for _ in 0..ATTEMPTS {
            let port = free_port().map_err(RedisError::Start)?;
            let (program, options) = (program.clone(), options.clone());
            let mut server = Self { program, port, options, child: None };
            // A Sentinel keeps its port in its file.
            if let Some(file) = server.sentinel_file() {
                let _ = fs::remove_file(file);
            }
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// For `REDIS_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Of the process; `None` while it does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// kill -9, as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it, and starts it again on the same port with its data or without. One without
    /// a directory has lost them anyway.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn restart(&mut self, data: Data) -> Result<(), RedisError> {
        self.kill();
        if data == Data::Lost {
            self.lose_data();
        }
        self.launch()
    }

    /// Takes away what it would start with; for one that does not run.
    pub fn lose_data(&self) {
        if let Some(dir) = &self.options.dir {
            let _ = fs::remove_dir_all(dir.join("appendonlydir"));
            // Where servers before version 7 keep them.
            let _ = fs::remove_file(dir.join("appendonly.aof"));
        }
    }

    /// Starts it, on the port it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn launch(&mut self) -> Result<(), RedisError> {
        let child = self.command_line().and_then(|mut it| it.spawn()).map_err(RedisError::Start)?;
        self.child = Some(child);
        let end = Instant::now() + ANSWERS_WITHIN;
        while Instant::now() < end {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() {
                break;
            }
            if self.is_up() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill();
        Err(RedisError::Silent { port: self.port })
    }

    fn command_line(&self) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        let port = self.port.to_string();
        if let (Some(watched), Some(file)) = (&self.options.watches, self.sentinel_file()) {
            if !file.exists() {
                fs::write(&file, self.sentinel_settings(watched))?;
            }
            command.arg(file).arg("--sentinel");
        } else {
            let keeps = if self.options.dir.is_some() { "yes" } else { "no" };
            let dir = self.options.dir.as_deref().unwrap_or_else(|| Path::new("/"));
            command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
                // What was written to the file survives the process, synchronised or not.
                .args(["--appendonly", keeps, "--appendfsync", "no"])
                .args(["--maxmemory-policy", "noeviction"])
                .arg("--dir")
                .arg(dir);
        }
        let words = self.options.settings.iter();
        command.args(words.map(|word| if word == PORT { &port } else { word }));
        command.env_clear().stdin(Stdio::null());
        match &self.options.dir {
            Some(dir) => {
                let log = File::create(dir.join("log"))?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        if self.options.sheltered {
            command.process_group(0);
        }
        Ok(command)
    }

    fn sentinel_file(&self) -> Option<PathBuf> {
        let dir = self.options.dir.as_ref().filter(|_| self.options.watches.is_some())?;
        Some(dir.join("sentinel.conf"))
    }

    fn sentinel_settings(&self, watched: &str) -> String {
        let dir = self.options.dir.as_deref().unwrap_or_else(|| Path::new("/"));
        let name = watched.split(' ').next().unwrap_or_default();
        format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {watched}\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 3000\n",
            self.port,
            dir.display(),
        )
    }

    /// It answers, if only that it wants a password; one that speaks TLS alone listens.
    fn is_up(&self) -> bool {
        if self.options.settings.iter().any(|word| word == "--tls-port") {
            return TcpStream::connect_timeout(&self.address(), ANSWER_LIMIT).is_ok();
        }
        let answers = ["+PONG", "-NOAUTH"];
        self.command(&["PING"]).is_ok_and(|answer| answers.iter().any(|it| answer.starts_with(it)))
    }

    /// Sends one command; the first piece of its answer, as Redis writes it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn command(&self, words: &[&str]) -> Result<String, RedisError> {
        self.ask(words).map_err(|source| RedisError::Command { command: words.join(" "), source })
    }

    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address(), ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "*{}\r\n", words.len())?;
        for word in words {
            write!(stream, "${}\r\n{word}\r\n", word.len())?;
        }
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
