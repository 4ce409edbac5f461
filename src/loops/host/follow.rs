//! Following what runs: a runner's output, Docker's events, and how a container ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Event, Host};
use crate::docker::{ContainerEventKind, ContainerState, Docker, DockerError, LogLine, LogQuery};
use crate::fleet::id::{ContainerId, RunnerId};
use crate::fleet::listener::{Line, classify};
use crate::fleet::runner::Seen;

/// Between an end of output and Docker's knowledge of the exit lie a few milliseconds.
const EXIT_POLLS: [u64; 8] = [0, 5, 10, 20, 40, 80, 200, 500];
/// After an event stream that broke.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Follows a runner's output to its end. `running` tells whoever waits that a job began.
pub async fn output(
    runner: RunnerId,
    mut lines: BoxStream<'static, Result<LogLine, DockerError>>,
    running: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
) {
    loop {
        let next = tokio::select! { biased;
            // Its boot is over; the next one follows anew.
            () = events.closed() => return,
            next = lines.next() => next,
        };
        let Some(line) = next else { break };
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                debug!(runner.id = %runner, error = %error, "its output broke off");
                break;
            }
        };
        let seen = match classify(&line.text) {
            Some(Line::Listening) => Seen::ListeningLine,
            Some(Line::RunningJob) => {
                running.send_replace(true);
                Seen::JobLine
            }
            Some(Line::Completed(result)) => {
                if events.send(Event::JobResult(runner, result)).await.is_err() {
                    return;
                }
                continue;
            }
            None => continue,
        };
        if events.send(Event::Seen(runner, seen)).await.is_err() {
            return;
        }
    }
    let _ = events.send(Event::OutputEnded(runner)).await;
}

/// Follows an adopted container from the start of its log.
pub async fn adopted(
    docker: Arc<dyn Docker>,
    runner: RunnerId,
    container: ContainerId,
    running: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
) {
    let query = LogQuery { follow: true, ..LogQuery::default() };
    match docker.logs(&container, &query).await {
        Ok(lines) => output(runner, lines, running, events).await,
        Err(error) => {
            warn!(runner.id = %runner, error = %error, "its log cannot be read");
            let _ = events.send(Event::OutputEnded(runner)).await;
        }
    }
}

/// Asks Docker how the container ended. `None` in the answer: it has not, as far as can
/// be told.
pub async fn settle_exit(
    docker: Arc<dyn Docker>,
    runner: RunnerId,
    container: ContainerId,
    events: mpsc::Sender<Event>,
) {
    let mut exit = None;
    for wait_ms in EXIT_POLLS {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        if let Ok(Some(ContainerState::Exited { code, oom })) = docker.state(&container).await {
            exit = Some((code, oom));
            break;
        }
    }
    let _ = events.send(Event::ExitSettled(runner, exit)).await;
}

/// Turns Docker's event stream into looks at single containers. Reconnects for ever; what
/// was missed in between is found by the list.
pub async fn docker_events(host: Host, events: mpsc::Sender<Event>, cancel: CancellationToken) {
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = stream_once(&host, &events) => (),
        }
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RECONNECT_AFTER) => (),
        }
        if events.send(Event::EventStream).await.is_err() {
            return;
        }
    }
}

async fn stream_once(host: &Host, events: &mpsc::Sender<Event>) {
    let mut stream = match host.docker.events(&host.cluster).await {
        Ok(stream) => stream,
        Err(error) => {
            debug!(error = %error, "docker's event stream could not be opened");
            return;
        }
    };
    while let Some(Ok(event)) = stream.next().await {
        let nudge = match (event.kind, event.runner) {
            (ContainerEventKind::Died, Some(runner)) => Event::Died(runner, event.exit_code),
            (ContainerEventKind::OutOfMemory, Some(runner)) => Event::OutOfMemory(runner),
            (ContainerEventKind::Removed, _) => Event::EventStream,
            (ContainerEventKind::Died | ContainerEventKind::OutOfMemory, None)
            | (ContainerEventKind::Started, _) => continue,
        };
        if events.send(nudge).await.is_err() {
            return;
        }
    }
}
