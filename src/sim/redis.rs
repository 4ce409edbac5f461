//! A Redis server of our own for the demo and the tests: a child process on a free port of
//! this machine alone, that keeps nothing on disk. Everything in here blocks.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where it stands, also for a `PATH` without administrators' programs.
const PLACES: [&str; 5] = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/bin"];
/// It takes a few milliseconds; a busy machine may need seconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
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

/// A server. Dropping it ends it.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When there is none on this machine, or it does not come up.
    pub fn start() -> Result<Self, RedisError> {
        let places = PLACES.iter().map(|dir| PathBuf::from(dir).join("redis-server"));
        let program = places.into_iter().find(|file| file.is_file()).ok_or(RedisError::Missing)?;
        let mut last = RedisError::Missing;
        for _ in 0..ATTEMPTS {
            let port = free_port().map_err(RedisError::Start)?;
            let mut server = Self { program: program.clone(), port, child: None };
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

    /// kill -9: it forgets everything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it, empty, on the port it had.
    pub fn launch(&mut self) -> Result<(), RedisError> {
        let port = self.port.to_string();
        let child = Command::new(&self.program)
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", "/", "--maxmemory-policy", "noeviction", "--loglevel", "warning"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // It ends after the replicas, also when somebody interrupts us.
            .process_group(0)
            .spawn()
            .map_err(RedisError::Start)?;
        self.child = Some(child);
        let end = Instant::now() + ANSWERS_WITHIN;
        while Instant::now() < end {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() {
                break;
            }
            if self.command(&["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.kill();
        Err(RedisError::Silent { port: self.port })
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
