//! The line from one replica to Redis: a proxy that can go silent, in one direction or
//! both, without closing anything; that is what a bad network looks like.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line {
    Open,
    Stalled,
    /// Redis gets what is asked and does it; nobody hears of it.
    NoAnswers,
    NoRequests,
}

#[derive(Debug)]
pub(super) struct StallingLine {
    pub(super) address: SocketAddr,
    state: watch::Sender<Line>,
    _tasks: JoinSet<()>,
}

impl StallingLine {
    pub(super) async fn to(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(Line::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, redis, seen.clone()));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(super) fn set(&self, line: Line) {
        self.state.send_replace(line);
    }
}

async fn carry(client: TcpStream, redis: SocketAddr, state: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(redis).await else { return };
    let (client, server) = (client.into_split(), server.into_split());
    // Either side's end is the end of both.
    tokio::select! {
        () = pump(client.0, server.1, state.clone(), &[Line::Stalled, Line::NoRequests]) => (),
        () = pump(server.0, client.1, state, &[Line::Stalled, Line::NoAnswers]) => (),
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut state: watch::Receiver<Line>,
    silent: &[Line],
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || state.wait_for(|line| !silent.contains(line)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
