//! What runs inside a modelled container.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncWrite, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::log::Log;
use crate::docker::{LogStream, RunnerContainer};

/// The program of every container of a modelled host. One value serves them all; it tells
/// them apart by what it is given.
#[async_trait]
pub trait ContainerProgram: Send + Sync + fmt::Debug {
    /// Runs to its end and returns the exit code. Dropped where a real process would be
    /// killed. Time only by `tokio::time`, so that a paused clock moves it.
    async fn run(&self, process: Process) -> i64;
}

/// A program's surroundings.
#[derive(Debug)]
pub struct Process {
    /// What the container was created from.
    pub spec: Arc<RunnerContainer>,
    /// Ends when the attached writer is dropped.
    pub stdin: DuplexStream,
    pub stdout: Output,
    pub stderr: Output,
    /// The stop signal: cancelled when the container is to end in its own way.
    pub stop: CancellationToken,
}

/// One output stream of a container. Writing never waits: what nobody reads in time is
/// dropped at the log's bound.
#[derive(Debug)]
pub struct Output {
    log: Arc<Log>,
    stream: LogStream,
}

impl Output {
    pub(super) fn new(log: Arc<Log>, stream: LogStream) -> Self {
        Self { log, stream }
    }

    /// Writes one line.
    pub fn line(&self, text: &str) {
        self.log.write(self.stream, format!("{text}\n").as_bytes());
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.log.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
