//! What a test can make go wrong at a modelled host.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::docker::{DockerError, Input};

/// How long a call that gets no answer waits for it, as at a real engine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A call to the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    Daemon,
    Identity,
    Marker,
    Containers,
    Network,
    Image,
    Pull,
    Create,
    Attach,
    /// The end of what is written to a container's standard input.
    HandOver,
    Start,
    State,
    Stop,
    Remove,
    Logs,
    Events,
    Sweep,
}

/// How it goes wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Answered with this status; nothing was done.
    Refuse { status: u16, message: String },
    /// No connection; nothing was done.
    Unreachable,
    /// Done, but the connection breaks before the answer.
    DropAnswer,
    /// Nothing is done and nothing is answered, until the call's time is over.
    Hang,
}

/// Counts calls and lets the chosen ones fail.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    away: bool,
    planned: Vec<(Operation, Fault, u32)>,
    calls: BTreeMap<Operation, u64>,
}

impl Faults {
    pub(super) fn plan(&self, operation: Operation, fault: Fault, times: u32) {
        self.state().planned.push((operation, fault, times));
    }

    pub(super) fn clear(&self) {
        self.state().planned.clear();
    }

    pub(super) fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    pub(super) fn calls(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or_default()
    }

    /// Makes one call, or lets it fail as planned.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        action: &'static str,
        effect: impl Future<Output = Result<T, DockerError>>,
    ) -> Result<T, DockerError> {
        match self.next(operation) {
            None => effect.await,
            Some(Fault::Refuse { status, message }) => {
                Err(DockerError::Refused { action, status, message })
            }
            Some(Fault::Unreachable) => Err(unreachable(action)),
            Some(Fault::DropAnswer) => {
                effect.await?;
                Err(unreachable(action))
            }
            Some(Fault::Hang) => {
                tokio::time::sleep(ANSWER_LIMIT).await;
                let timeout_ms = u64::try_from(ANSWER_LIMIT.as_millis()).unwrap_or(u64::MAX);
                Err(DockerError::Timeout { action, timeout_ms })
            }
        }
    }

    /// A standard input whose end fails as planned: all that was written has arrived, and
    /// the writer is told otherwise.
    pub(super) fn input(&self, input: Input) -> Input {
        match self.next(Operation::HandOver) {
            Some(_) => Box::pin(Doubtful(input)),
            None => input,
        }
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state();
        *state.calls.entry(operation).or_default() += 1;
        if state.away {
            return Some(Fault::Unreachable);
        }
        let due = |(planned, _, times): &&mut (Operation, Fault, u32)| {
            *planned == operation && *times > 0
        };
        let (_, fault, times) = state.planned.iter_mut().find(due)?;
        *times -= 1;
        Some(fault.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreachable(action: &'static str) -> DockerError {
    DockerError::Unreachable { action, source: "the modelled connection is broken".into() }
}

/// Says that it failed when it is closed, and has closed.
struct Doubtful(Input);

impl AsyncWrite for Doubtful {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.as_mut().poll_shutdown(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            other => other,
        }
    }
}
