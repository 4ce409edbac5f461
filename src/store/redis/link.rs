//! One question and one answer, whatever happens to the connection: each ends within its
//! limit, and a connection in doubt is not used again.

use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, TimeoutType, Timeouts};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ScriptInvocation, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::connect::{CONNECT_WITHIN, Dialer, Manager};
use super::health::Health;
use crate::store::StoreError;

/// What a request may take in all, a second attempt included.
const WITHIN: Duration = Duration::from_secs(1);
/// At the fleet's largest everything is some megabytes.
const ALL_WITHIN: Duration = Duration::from_secs(2);
/// Less for a lease: of the four seconds in which it must be renewed, eight attempts fit.
const LEASE_WITHIN: Duration = Duration::from_millis(500);
/// More would help nobody: the server works on one request at a time.
const CONNECTIONS_MAX: usize = 8;
/// An idle connection that does not answer its PING within this is replaced.
const RECYCLE_WITHIN: Duration = Duration::from_millis(400);

/// Answers of a server that will take no write, or no request at all, on this connection.
/// Another connection may lead to another server.
const WRONG_SERVER: &[&str] =
    &["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MOVED"];
/// Answers that mean: not now, or not you.
const NOT_READY: &[&str] = &["LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS"];

/// The way to the server.
#[derive(Debug)]
pub(super) struct Link {
    dialer: Arc<Dialer>,
    pool: Pool<Manager>,
    /// Leases have a connection of their own, so that they never wait behind a large answer.
    lease: Mutex<Option<Own>>,
    pub(super) health: Health,
}

struct Own {
    number: u64,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Which connection a request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Any; the request only reads.
    Read,
    /// Any; everything is read.
    ReadAll,
    /// Any; the request writes.
    Write,
    /// The leases' own.
    Lease,
}

impl Way {
    fn within(self) -> Duration {
        match self {
            Self::Read | Self::Write => WITHIN,
            Self::ReadAll => ALL_WITHIN,
            Self::Lease => LEASE_WITHIN,
        }
    }
}

/// What is asked.
pub(super) enum Question<'a> {
    Script(&'a ScriptInvocation<'a>),
    Command(&'a Cmd),
}

impl Question<'_> {
    async fn put(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Self::Script(script) => script.invoke_async(connection).await,
            Self::Command(command) => command.query_async(connection).await,
        }
    }
}

/// Why there is no answer.
enum Trouble {
    Slow,
    /// No connection could be made.
    Unconnected(RedisError),
    /// It was asked, and this came back.
    Failed(RedisError),
}

impl Link {
    pub(super) fn new(dialer: Arc<Dialer>, health: Health) -> Result<Self, StoreError> {
        let manager = Manager { dialer: dialer.clone(), answer_within: ALL_WITHIN };
        let timeouts = Timeouts {
            wait: Some(WITHIN),
            create: Some(CONNECT_WITHIN * 2),
            recycle: Some(RECYCLE_WITHIN),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unavailable {
                action: "making its connections",
                problem: error.to_string(),
            })?;
        Ok(Self { dialer, pool, lease: Mutex::new(None), health })
    }

    /// Asks once, and once more on a new connection when the first one turns out to be
    /// dead: every script may be run twice.
    pub(super) async fn ask(
        &self,
        way: Way,
        action: &'static str,
        question: Question<'_>,
    ) -> Result<Value, StoreError> {
        let deadline = Instant::now() + way.within();
        let mut answer = self.attempt(way, &question, deadline).await;
        if let Err(Trouble::Failed(error)) = &answer
            && is_doubtful(error)
            && !error.is_timeout()
        {
            if let Some((node, _)) = error.redirect_node() {
                self.dialer.follow(Some(node));
            }
            answer = self.attempt(way, &question, deadline).await;
        }
        match answer {
            Ok(value) => {
                self.health.answered(way == Way::Write);
                Ok(value)
            }
            Err(trouble) => {
                let error = told(action, way, trouble);
                self.health.failed(&error, matches!(way, Way::Write | Way::Lease));
                Err(error)
            }
        }
    }

    async fn attempt(
        &self,
        way: Way,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Value, Trouble> {
        match way {
            Way::Lease => self.attempt_own(question, deadline).await,
            Way::Read | Way::ReadAll | Way::Write => self.attempt_pooled(question, deadline).await,
        }
    }

    async fn attempt_pooled(
        &self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Value, Trouble> {
        let mut connection = match timeout_at(deadline, self.pool.get()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(PoolError::Backend(error))) => return Err(Trouble::Unconnected(error)),
            Ok(Err(PoolError::Timeout(
                TimeoutType::Wait | TimeoutType::Create | TimeoutType::Recycle,
            )))
            | Err(_) => return Err(Trouble::Slow),
            Ok(Err(error)) => {
                let detail = error.to_string();
                return Err(Trouble::Unconnected((ErrorKind::Client, "pool", detail).into()));
            }
        };
        let trouble = match timeout_at(deadline, question.put(&mut connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !is_doubtful(&error) => return Err(Trouble::Failed(error)),
            Ok(Err(error)) => Trouble::Failed(error),
            Err(_) => Trouble::Slow,
        };
        // Its answer may still come, to the next one who asks; and the idle ones beside it
        // lead to the same place.
        drop(Object::take(connection));
        self.pool.retain(|_, _| false);
        Err(trouble)
    }

    async fn attempt_own(
        &self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Value, Trouble> {
        let (number, mut connection) = match timeout_at(deadline, self.own()).await {
            Ok(Ok(own)) => own,
            Ok(Err(error)) => return Err(Trouble::Unconnected(error)),
            Err(_) => return Err(Trouble::Slow),
        };
        let trouble = match timeout_at(deadline, question.put(&mut connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !is_doubtful(&error) => return Err(Trouble::Failed(error)),
            Ok(Err(error)) => Trouble::Failed(error),
            Err(_) => Trouble::Slow,
        };
        let mut own = self.lease.lock().await;
        if own.as_ref().is_some_and(|own| own.number == number) {
            *own = None;
        }
        Err(trouble)
    }

    async fn own(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut own = self.lease.lock().await;
        if let Some(own) = own.as_ref() {
            return Ok((own.number, own.connection.clone()));
        }
        let connection = self.dialer.connection(LEASE_WITHIN).await?;
        let number = self.dialer.dialled();
        *own = Some(Own { number, connection: connection.clone() });
        Ok((number, connection))
    }
}

/// Whether the connection must not be used again.
fn is_doubtful(error: &RedisError) -> bool {
    let garbled = matches!(error.kind(), ErrorKind::Parse | ErrorKind::Io);
    garbled
        || error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || code(error).is_some_and(|code| WRONG_SERVER.contains(&code))
}

/// The server's own word for what is wrong. Before version 7 a script's error hides it in
/// its text.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    let detail = error.detail().unwrap_or_default();
    // What a long request gets from a server that waits for a password.
    if detail.contains("unauthenticated") {
        return Some("NOAUTH");
    }
    if code != "ERR" || !detail.contains("unning script") {
        return Some(code);
    }
    let inner = detail.split(": -").nth(1).and_then(|rest| rest.split(' ').next());
    inner.or(Some(code))
}

fn told(action: &'static str, way: Way, trouble: Trouble) -> StoreError {
    let timeout_ms = u64::try_from(way.within().as_millis()).unwrap_or(u64::MAX);
    let error = match trouble {
        Trouble::Slow => return StoreError::Timeout { action, timeout_ms },
        Trouble::Unconnected(error) | Trouble::Failed(error) => error,
    };
    if error.is_timeout() {
        return StoreError::Timeout { action, timeout_ms };
    }
    let problem = problem(&error);
    match code(&error) {
        Some(code) if !NOT_READY.contains(&code) => StoreError::Refused { action, problem },
        _ => StoreError::Unavailable { action, problem },
    }
}

/// What went wrong, for people. The library's text never holds the password.
pub(super) fn problem(error: &RedisError) -> String {
    let code = code(error).unwrap_or_default();
    let hint = match code {
        "NOAUTH" => "it asks for a password; put it into REDIS_URL",
        "WRONGPASS" => "it does not accept this user and password",
        "NOPERM" => "this user may not run the command",
        "OOM" => "its memory is full (maxmemory)",
        "READONLY" => "it is a replica, or was made one",
        "MISCONF" => "it cannot write to its disk",
        "NOREPLICAS" => "too few of its replicas are connected",
        "LOADING" => "it is still loading its data",
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            "it does not accept this user and password"
        }
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(reply: &str) -> RedisError {
        redis::parse_redis_value(reply.as_bytes())
            .and_then(Value::extract_error)
            .expect_err("an error reply")
    }

    #[test]
    fn an_error_inside_a_script_is_known_in_every_version() {
        for (reply, expected) in [
            (
                "-OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user\r\n",
                "OOM",
            ),
            (
                "-ERR Error running script (call to f_1): @user_script:4: @user_script: 4: \
                 -READONLY You can't write against a read only replica.\r\n",
                "READONLY",
            ),
            ("-WRONGTYPE Operation against a key\r\n", "WRONGTYPE"),
            ("-ERR Protocol error: unauthenticated multibulk length\r\n", "NOAUTH"),
        ] {
            assert_eq!(code(&error_of(reply)), Some(expected), "{reply}");
        }
    }

    #[test]
    fn only_a_connection_in_doubt_is_dropped() {
        assert!(is_doubtful(&error_of("-READONLY You can't write\r\n")));
        assert!(is_doubtful(&error_of("-LOADING Redis is loading\r\n")));
        assert!(!is_doubtful(&error_of("-OOM command not allowed\r\n")));
        assert!(!is_doubtful(&error_of("-WRONGTYPE no\r\n")));
    }
}
