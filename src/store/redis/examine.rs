//! What a look at a Redis shows without writing anything: for `doctor`. The store itself
//! would leave a trace with its first reading.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};
use tokio::time::timeout;

use super::RedisSettings;
use super::codec::{items, text};
use super::connect::Dialer;
pub use super::health::Setting;
use super::health::{field, shortcomings};
use super::keys::Keys;
use super::known::replicas_of;
use super::link::problem;
use crate::clock::Clock;
use crate::fleet::id::ReplicaId;
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;
use crate::store::Unreadable;

/// One answer; a look is not in a hurry, and must end.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Connecting, with a Sentinel before and TLS on the way.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// What was seen.
#[derive(Clone, Debug)]
pub struct Look {
    /// What the server tells of itself; `None` when this user may not ask.
    pub server: Option<Server>,
    /// This machine's clock when the store was asked for its time.
    pub wall: Timestamp,
    /// The store's answer.
    pub time: Timestamp,
    /// Replicas of this cluster that have announced themselves.
    pub replicas: BTreeMap<ReplicaId, ReplicaRecord>,
    /// Announcements that this version cannot read.
    pub unreadable: Vec<Unreadable>,
}

/// Settings of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    pub version: String,
    pub maxmemory_policy: String,
    /// Whether every write is kept on disk (`appendonly`).
    pub appendonly: bool,
    /// What is wrong, each as `problem; what to do`: the words of `/readyz`.
    pub shortcomings: Vec<(Setting, String)>,
}

/// Why nothing could be seen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unseen {
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(String),
    /// It asks for another user or password.
    #[error("{0}")]
    Refused(String),
}

/// Looks at the server and at what replicas of the cluster have left there.
///
/// # Errors
/// When it cannot be reached, or lets nobody in.
pub async fn look(settings: RedisSettings, clock: &dyn Clock) -> Result<Look, Unseen> {
    let keys = Keys::new(&settings.cluster);
    let dialer = Dialer::new(settings.address, settings.tls);
    let mut connection = connect(&dialer).await?;
    let wall = clock.wall();
    let time = time_of(&ask(&mut connection, &cmd("TIME")).await.map_err(|error| of(&error))?);
    let server = match ask(&mut connection, &cmd("INFO")).await {
        Ok(info) => text(&info).map(|info| Server {
            version: field(&info, "redis_version").unwrap_or_default(),
            maxmemory_policy: field(&info, "maxmemory_policy").unwrap_or_default(),
            appendonly: field(&info, "aof_enabled").as_deref() == Some("1"),
            shortcomings: shortcomings(&info),
        }),
        Err(error) if error.code() == Some("NOPERM") => None,
        Err(error) => return Err(of(&error)),
    };
    let announced = cmd("HGETALL").arg(keys.named("replicas")).clone();
    let mut answer = ask(&mut connection, &announced).await;
    if let Err(error) = &answer
        && let Some((node, _)) = error.redirect_node()
    {
        dialer.follow(Some(node));
        connection = connect(&dialer).await?;
        answer = ask(&mut connection, &announced).await;
    }
    let answer = answer.map_err(|error| of(&error))?;
    let mut unreadable = Vec::new();
    let replicas = replicas_of(&keys, &answer, time, &mut unreadable);
    Ok(Look { server, wall, time, replicas, unreadable })
}

async fn connect(dialer: &Dialer) -> Result<MultiplexedConnection, Unseen> {
    match timeout(CONNECT_WITHIN, dialer.connection(ANSWER_WITHIN)).await {
        Ok(made) => made.map_err(|error| of(&error)),
        Err(_) => {
            Err(Unseen::Unreachable(format!("no connection within {} s", CONNECT_WITHIN.as_secs())))
        }
    }
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    command.query_async(connection).await
}

fn of(error: &RedisError) -> Unseen {
    let denied = error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    if denied { Unseen::Refused(problem(error)) } else { Unseen::Unreachable(problem(error)) }
}

fn time_of(answer: &Value) -> Timestamp {
    let part = |index: usize| items(answer).get(index).and_then(text)?.parse::<u64>().ok();
    Timestamp(part(0).unwrap_or(0) * 1_000 + part(1).unwrap_or(0) / 1_000)
}
