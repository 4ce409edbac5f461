//! A proxy before Docker's socket that stops at one chosen request: before the daemon has
//! seen it, or after it has acted and before anybody is told. Whoever waits on `fired`
//! then kills the client, which is what a crash at exactly that point looks like.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Where to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Before,
    After,
}

/// What to stop at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Point {
    Create(When),
    Attach(When),
    Start(When),
    /// The first bytes to a container's standard input.
    Stdin(When),
}

impl Point {
    pub(crate) const ALL: [Self; 8] = [
        Self::Create(When::Before),
        Self::Create(When::After),
        Self::Attach(When::Before),
        Self::Attach(When::After),
        Self::Start(When::Before),
        Self::Start(When::After),
        Self::Stdin(When::Before),
        Self::Stdin(When::After),
    ];

    fn matches(self, request: &str) -> Option<When> {
        let is = |part: &str| request.starts_with("POST") && request.contains(part);
        match self {
            Self::Create(when) if is("/containers/create") => Some(when),
            Self::Attach(when) if is("/attach") => Some(when),
            Self::Start(when) if is("/start") => Some(when),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Trap {
    point: Mutex<Option<Point>>,
    fired: Notify,
}

impl Trap {
    /// Takes the trap if this is its point: it springs once.
    fn springs(&self, request: &str) -> Option<When> {
        let mut point = self.point.lock().unwrap();
        let when = point.and_then(|point| point.matches(request));
        if when.is_some() {
            *point = None;
        }
        when
    }

    fn springs_at_stdin(&self) -> Option<When> {
        let mut point = self.point.lock().unwrap();
        match *point {
            Some(Point::Stdin(when)) => {
                *point = None;
                Some(when)
            }
            _ => None,
        }
    }
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub(crate) struct DockerProxy {
    path: PathBuf,
    trap: Arc<Trap>,
    _tasks: JoinSet<()>,
}

impl DockerProxy {
    pub(crate) fn start(path: PathBuf, real: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let trap = Arc::new(Trap::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, real, trap.clone()));
        Self { path, trap, _tasks: tasks }
    }

    pub(crate) fn docker_host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    pub(crate) fn set(&self, point: Point) {
        *self.trap.point.lock().unwrap() = Some(point);
    }

    /// Ends when the trap has sprung.
    pub(crate) async fn fired(&self) {
        self.trap.fired.notified().await;
    }
}

async fn accept(listener: UnixListener, real: PathBuf, trap: Arc<Trap>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (real, trap) = (real.clone(), trap.clone());
        connections.spawn(async move {
            // A connection that ends early is what this proxy is for.
            let _ = connection(client, &real, &trap).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(client: UnixStream, real: &Path, trap: &Trap) -> std::io::Result<()> {
    let server = UnixStream::connect(real).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut bytes = Vec::new();
    loop {
        let Some(head_end) = read_head(&mut from_client, &mut bytes).await? else { return Ok(()) };
        let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
        let body = read_body(&mut from_client, &mut bytes, head_end, &head).await?;
        let request: Vec<u8> = bytes.drain(..head_end + body).collect();
        match trap.springs(head.lines().next().unwrap_or_default()) {
            Some(When::Before) => return hold(trap).await,
            Some(When::After) => {
                to_server.write_all(&request).await?;
                let mut answer = [0; 4096];
                let _ = from_server.read(&mut answer).await?;
                return hold(trap).await;
            }
            None => to_server.write_all(&request).await?,
        }
        if head.to_ascii_lowercase().contains("upgrade:") {
            return hijacked(from_client, to_client, from_server, to_server, trap).await;
        }
        if !relay_answer(&mut from_server, &mut to_client, &mut from_client).await? {
            return Ok(());
        }
    }
}

/// Nothing moves any more on this connection until it is dropped with the proxy.
async fn hold(trap: &Trap) -> std::io::Result<()> {
    trap.fired.notify_one();
    std::future::pending().await
}

/// Reads until the blank line; where the head ends, or `None` at the end of input.
async fn read_head(
    from: &mut OwnedReadHalf,
    bytes: &mut Vec<u8>,
) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if from.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads the body into `bytes`; how long it is.
async fn read_body(
    from: &mut OwnedReadHalf,
    bytes: &mut Vec<u8>,
    head_end: usize,
    head: &str,
) -> std::io::Result<usize> {
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        loop {
            if let Some(at) = bytes[head_end..].windows(5).position(|w| w == b"0\r\n\r\n") {
                return Ok(at + 5);
            }
            if from.read_buf(bytes).await? == 0 {
                return Ok(bytes.len() - head_end);
            }
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < head_end + length {
        if from.read_buf(bytes).await? == 0 {
            break;
        }
    }
    Ok(length)
}

/// Passes answer bytes on until the client speaks again or either side ends. Whether the
/// connection goes on.
async fn relay_answer(
    from_server: &mut OwnedReadHalf,
    to_client: &mut OwnedWriteHalf,
    from_client: &mut OwnedReadHalf,
) -> std::io::Result<bool> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = from_server.read(&mut buffer) => {
                let read = read?;
                if read == 0 {
                    return Ok(false);
                }
                to_client.write_all(&buffer[..read]).await?;
            }
            ready = from_client.readable() => {
                ready?;
                return Ok(true);
            }
        }
    }
}

/// After an upgrade: raw bytes both ways; the trap may spring at the first to the daemon.
async fn hijacked(
    mut from_client: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    mut from_server: OwnedReadHalf,
    mut to_server: OwnedWriteHalf,
    trap: &Trap,
) -> std::io::Result<()> {
    let down = async { tokio::io::copy(&mut from_server, &mut to_client).await };
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                to_server.shutdown().await?;
                return Ok::<_, std::io::Error>(());
            }
            match trap.springs_at_stdin() {
                Some(When::Before) => return hold(trap).await,
                Some(When::After) => {
                    to_server.write_all(&buffer[..read]).await?;
                    return hold(trap).await;
                }
                None => to_server.write_all(&buffer[..read]).await?,
            }
        }
    };
    let (down, up) = tokio::join!(down, up);
    down?;
    up
}
