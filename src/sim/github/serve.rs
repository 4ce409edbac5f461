//! Sockets of the model: a listener that can bind to a network device, and
//! connections that can be cut in the middle of an answer.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections waiting to be accepted; a burst of thousands of runners fits.
const BACKLOG: i32 = 4_096;
/// Pause after a failed accept, so that running out of files does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The far end of a connection, with the means to cut it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    cut: Arc<AtomicBool>,
}

impl Peer {
    /// Closes the connection before the next byte is written.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Accepts connections that end with `stopped`.
pub(crate) struct CuttableListener {
    inner: TcpListener,
    stopped: CancellationToken,
}

impl CuttableListener {
    pub(crate) fn new(inner: TcpListener, stopped: CancellationToken) -> Self {
        Self { inner, stopped }
    }
}

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, _)) => {
                    // Small answers shall leave at once; a refusal only costs time.
                    stream.set_nodelay(true).ok();
                    let cut = Arc::new(AtomicBool::new(false));
                    let stopped = Box::pin(self.stopped.clone().cancelled_owned());
                    let io = CuttableStream { inner: stream, cut: cut.clone(), stopped };
                    return (io, Peer { cut });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { cut: Arc::new(AtomicBool::new(false)) })
    }
}

/// A connection that fails once it is cut or the server has stopped.
pub(crate) struct CuttableStream {
    inner: TcpStream,
    cut: Arc<AtomicBool>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl CuttableStream {
    fn alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let stopped = self.stopped.as_mut().poll(context).is_ready();
        if stopped || self.cut.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.alive(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.alive(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

/// Listens on `address`, reachable only through `device` when one is named.
pub(crate) fn listen(address: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
