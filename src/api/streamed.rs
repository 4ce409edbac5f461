//! Large answers, sent while they are written: those of a full fleet come to megabytes,
//! and need not lie in memory together.

use std::future::ready;
use std::io::{self, Write};
use std::mem;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

/// What is sent at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces written ahead of a reader; a slow one holds the writer up, and 1.3 MB.
const PIECES_AHEAD: usize = 4;

/// An answer of JSON that `write` writes, on a thread that may block. There are at most as
/// many as there are connections; a writer whose reader has gone is told by an error.
pub(super) fn json<W>(write: W) -> Response
where
    W: FnOnce(&mut Output) -> serde_json::Result<()> + Send + 'static,
{
    let (sink, pieces) = mpsc::channel(PIECES_AHEAD);
    let written = spawn_blocking(move || {
        let mut out = Output { sink, piece: Vec::with_capacity(PIECE_BYTES) };
        write(&mut out)?;
        out.flush()
    });
    // Without it an answer that broke off would look like one that ended.
    let broken = async {
        match written.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(panicked) => Some(Err(io::Error::other(panicked))),
        }
    };
    let pieces = ReceiverStream::new(pieces).map(Ok).chain(stream::once(broken).filter_map(ready));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

/// What an answer is written to. Named, not `dyn Write`, and each full piece handed on as it
/// is: a full fleet's answer is written in millions of small parts.
#[derive(Debug)]
pub(super) struct Output {
    sink: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Output {
    #[inline]
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.piece.len() + part.len() > PIECE_BYTES {
            self.flush()?;
        }
        self.piece.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is sent for nothing: in HTTP an empty piece is the end.
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let sent = self.sink.blocking_send(Bytes::from(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde::ser::Error;

    use super::*;

    #[tokio::test]
    async fn an_answer_of_many_pieces_comes_whole() {
        let words = vec!["runner"; 100_000];
        let response = json({
            let words = words.clone();
            move |out| serde_json::to_writer(out, &words)
        });
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(serde_json::from_slice::<Vec<String>>(&bytes).unwrap(), words);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_does_not_look_whole() {
        let failed = json(|out| {
            out.write_all(b"[1").map_err(serde_json::Error::io)?;
            Err(serde_json::Error::custom("no more"))
        });
        assert!(failed.into_body().collect().await.is_err());
        let panicked = json(|_| panic!("a bug"));
        assert!(panicked.into_body().collect().await.is_err());
    }

    #[tokio::test]
    async fn a_writer_ends_with_its_reader() {
        let (ended, told) = tokio::sync::oneshot::channel();
        let response = json(move |out| {
            let piece = vec![b' '; PIECE_BYTES];
            let written = (0..1_000).try_for_each(|_| out.write_all(&piece));
            let _ = ended.send(written.is_err());
            written.map_err(serde_json::Error::io)
        });
        drop(response);
        assert!(told.await.unwrap());
    }
}
