//! From a container's two interleaved output streams to bounded lines of text.

use std::collections::VecDeque;

use bollard::container::LogOutput;
use bollard::errors::Error as LibraryError;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use super::connection::failure;
use super::{DockerError, LINE_BYTES_MAX, LogLine, LogStream};

/// Cuts the library's frames into lines. Ends after the first error.
pub(super) fn lines(
    action: &'static str,
    frames: impl Stream<Item = Result<LogOutput, LibraryError>> + Send + 'static,
) -> BoxStream<'static, Result<LogLine, DockerError>> {
    let state = Reading { frames: frames.boxed(), splitter: Splitter::default(), ended: false };
    stream::unfold(state, move |mut state| async move {
        loop {
            if let Some(line) = state.splitter.next_line() {
                return Some((Ok(line), state));
            }
            if state.ended {
                return None;
            }
            match state.frames.next().await {
                Some(Ok(LogOutput::StdErr { message })) => {
                    state.splitter.push(LogStream::Stderr, &message);
                }
                // Unframed output can only come from a container with a terminal, which
                // is none of ours; it is shown rather than lost.
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                    state.splitter.push(LogStream::Stdout, &message);
                }
                Some(Ok(LogOutput::StdIn { .. })) => (),
                Some(Err(error)) => {
                    state.ended = true;
                    return Some((Err(failure(action, error)), state));
                }
                None => {
                    state.ended = true;
                    state.splitter.finish();
                }
            }
        }
    })
    .boxed()
}

struct Reading {
    frames: BoxStream<'static, Result<LogOutput, LibraryError>>,
    splitter: Splitter,
    ended: bool,
}

/// Collects bytes of both streams and hands out whole lines in the order of their ends.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ready: VecDeque<LogLine>,
}

impl Splitter {
    /// Takes bytes as they come. What a line has beyond [`LINE_BYTES_MAX`] is dropped.
    pub(crate) fn push(&mut self, stream: LogStream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.extend(stream, line);
            self.complete(stream);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.extend(stream, bytes);
    }

    /// The output is over: an unfinished line is a line too.
    pub(crate) fn finish(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if !self.buffer(stream).is_empty() {
                self.complete(stream);
            }
        }
    }

    /// The oldest whole line not yet handed out.
    pub(crate) fn next_line(&mut self) -> Option<LogLine> {
        self.ready.pop_front()
    }

    fn extend(&mut self, stream: LogStream, bytes: &[u8]) {
        let buffer = self.buffer(stream);
        let room = LINE_BYTES_MAX.saturating_sub(buffer.len());
        buffer.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn complete(&mut self, stream: LogStream) {
        // Taking the buffer, not only clearing it, keeps a container that once wrote a
        // long line from holding its memory for ever.
        let line = std::mem::take(self.buffer(stream));
        self.ready.push_back(LogLine { stream, text: text(&line) });
    }

    fn buffer(&mut self, stream: LogStream) -> &mut Vec<u8> {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }
}

/// Decodes lossily. A replacement character is longer than the byte it stands for, so the
/// limit is applied once more.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::from_utf8_lossy(line).into_owned();
    let end = text.len().min(LINE_BYTES_MAX);
    let end = (0..=end).rfind(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        for chunk in chunks {
            splitter.push(LogStream::Stdout, chunk);
        }
        splitter.finish();
        std::iter::from_fn(|| splitter.next_line()).map(|line| line.text).collect()
    }

    #[test]
    fn the_two_streams_do_not_mix_within_a_line() {
        let mut splitter = Splitter::default();
        splitter.push(LogStream::Stdout, b"one ");
        splitter.push(LogStream::Stderr, b"two\n");
        splitter.push(LogStream::Stdout, b"line\r\n");
        splitter.finish();
        let lines: Vec<_> = std::iter::from_fn(|| splitter.next_line()).collect();
        assert_eq!(
            lines,
            [
                LogLine { stream: LogStream::Stderr, text: "two".to_owned() },
                LogLine { stream: LogStream::Stdout, text: "one line".to_owned() },
            ]
        );
    }

    #[test]
    fn a_line_is_cut_at_the_limit_and_the_next_one_is_whole() {
        let flood = vec![b'x'; LINE_BYTES_MAX * 3];
        let lines = split(&[&flood, &flood, b"\nnext\n"]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4]);
        // Each of these bytes decodes to three.
        let garbage = vec![0xff; LINE_BYTES_MAX];
        assert!(split(&[&garbage]).iter().all(|line| line.len() <= LINE_BYTES_MAX));
    }

    proptest! {
        #[test]
        fn where_the_frames_are_cut_changes_nothing(
            output in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let cut = cut.min(output.len());
            let (head, tail) = output.split_at(cut);
            prop_assert_eq!(split(&[head, tail]), split(&[&output]));
        }
    }
}
