//! A TCP proxy whose directions can be stalled: bytes are taken and not passed on, the
//! connections stay open, and nobody is told. That is what a network that drops packets
//! looks like from both ends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// A proxy in front of one server; it ends with this value.
#[derive(Debug)]
pub(crate) struct StallProxy {
    pub(crate) address: SocketAddr,
    stalled: [watch::Sender<bool>; 2],
    _accepting: JoinSet<()>,
}

impl StallProxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stalled = [watch::Sender::new(false), watch::Sender::new(false)];
        let [to_server, to_client] = [stalled[0].subscribe(), stalled[1].subscribe()];
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (to_server, to_client) = (to_server.clone(), to_client.clone());
                passing.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, into_client) = client.into_split();
                    let (from_server, into_server) = server.into_split();
                    // The end of either direction ends the connection, as a real one does.
                    tokio::select! {
                        () = pass(from_client, into_server, to_server) => (),
                        () = pass(from_server, into_client, to_client) => (),
                    }
                });
            }
        });
        Self { address, stalled, _accepting: accepting }
    }

    /// From now on nothing goes this way.
    pub(crate) fn stall(&self, direction: Direction) {
        self.stalled[direction as usize].send_replace(true);
    }

    /// Nothing goes either way.
    pub(crate) fn stall_all(&self) {
        self.stall(Direction::ToServer);
        self.stall(Direction::ToClient);
    }

    /// Everything goes on.
    pub(crate) fn resume_all(&self) {
        self.resume(Direction::ToServer);
        self.resume(Direction::ToClient);
    }

    /// What was held back goes on, and what comes.
    pub(crate) fn resume(&self, direction: Direction) {
        self.stalled[direction as usize].send_replace(false);
    }
}

/// New connections are stalled too: they are accepted, and nothing comes of them.
async fn pass(
    mut from: OwnedReadHalf,
    mut into: OwnedWriteHalf,
    mut stalled: watch::Receiver<bool>,
) {
    let bytes: &mut [u8] = &mut vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(bytes).await {
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            return;
        }
        if into.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
