//! A modelled container's log: bounded, readable by many at their own pace.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::docker::logs::Splitter;
use crate::docker::{DockerError, LogLine, LogQuery, LogStream};
use crate::fleet::time::Timestamp;

/// A runner says a dozen lines in its life. A reader that falls further behind than this
/// misses the oldest; a thousand containers stay in a few megabytes.
const LINES_KEPT: usize = 256;

/// And no container keeps more text than this, whatever its lines are like.
const BYTES_KEPT: usize = 128 * 1024;

/// The log of one container.
#[derive(Debug)]
pub(super) struct Log {
    clock: Arc<dyn Clock>,
    written: Mutex<Written>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Written {
    splitter: Splitter,
    lines: VecDeque<(Timestamp, LogLine)>,
    /// The number of the first line kept, counted from the container's start.
    first: usize,
    bytes: usize,
    ended: bool,
}

impl Log {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, written: Mutex::default(), changed: Notify::new() }
    }

    pub(super) fn write(&self, stream: LogStream, bytes: &[u8]) {
        let now = self.clock.now();
        let mut written = self.written();
        written.splitter.push(stream, bytes);
        written.keep(now);
        drop(written);
        self.changed.notify_waiters();
    }

    /// No more will come.
    pub(super) fn end(&self) {
        let now = self.clock.now();
        let mut written = self.written();
        written.splitter.finish();
        written.keep(now);
        written.ended = true;
        drop(written);
        self.changed.notify_waiters();
    }

    /// Lines from now on.
    pub(super) fn attach(self: &Arc<Self>) -> BoxStream<'static, Result<LogLine, DockerError>> {
        let next = self.written().end();
        self.read(next, LogQuery { follow: true, ..LogQuery::default() })
    }

    /// Lines as asked for.
    pub(super) fn query(
        self: &Arc<Self>,
        query: &LogQuery,
    ) -> BoxStream<'static, Result<LogLine, DockerError>> {
        let written = self.written();
        let wanted = query.tail.and_then(|tail| usize::try_from(tail).ok()).unwrap_or(usize::MAX);
        let next = written.end() - wanted.min(written.lines.len());
        drop(written);
        self.read(next, query.clone())
    }

    fn read(
        self: &Arc<Self>,
        next: usize,
        query: LogQuery,
    ) -> BoxStream<'static, Result<LogLine, DockerError>> {
        let reader = Reader { log: Arc::clone(self), next, query };
        stream::unfold(reader, async |mut reader| reader.line().await.map(|line| (line, reader)))
            .map(Ok)
            .boxed()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// The number the next line will have.
    fn end(&self) -> usize {
        self.first + self.lines.len()
    }

    fn keep(&mut self, now: Timestamp) {
        while let Some(line) = self.splitter.next_line() {
            self.bytes += line.text.len();
            self.lines.push_back((now, line));
        }
        while self.lines.len() > LINES_KEPT || self.bytes > BYTES_KEPT {
            let Some((_, line)) = self.lines.pop_front() else { break };
            self.bytes -= line.text.len();
            self.first += 1;
        }
    }
}

/// One reader's place in the log.
struct Reader {
    log: Arc<Log>,
    next: usize,
    query: LogQuery,
}

impl Reader {
    async fn line(&mut self) -> Option<LogLine> {
        loop {
            let changed = self.log.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that what is written right after the look wakes us.
            changed.as_mut().enable();
            let (line, ended) = {
                let written = self.log.written();
                self.next = self.next.max(written.first);
                (written.lines.get(self.next - written.first).cloned(), written.ended)
            };
            if let Some((at, line)) = line {
                self.next += 1;
                if self.query.since.is_some_and(|since| at < since) {
                    continue;
                }
                return Some(self.show(at, line));
            }
            if ended || !self.query.follow {
                return None;
            }
            changed.await;
        }
    }

    fn show(&self, at: Timestamp, line: LogLine) -> LogLine {
        if !self.query.timestamps {
            return line;
        }
        LogLine { text: format!("{at} {}", line.text), ..line }
    }
}
