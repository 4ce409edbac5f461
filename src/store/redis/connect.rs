//! Connections: one way to make them for every use, with a limit on each step. A client
//! library's own reconnecting is not relied on: it does not notice a connection on which
//! nothing comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleResult};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, cmd,
};
use secrecy::{ExposeSecret, SecretString};

use super::address::{Address, Place};

/// Long enough for a handshake with TLS between sites.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// One answer of a Sentinel, or of a server to the question for its role. Sentinels are
/// asked one after the other, so each gets little.
const SENTINEL_WITHIN: Duration = Duration::from_millis(250);
/// What was sent and is not acknowledged for so long is given up by the kernel.
const UNACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is tried with a PING before it is used. Not every
/// time: that would double the commands of a fleet at rest.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// What `rediss://` needs beside the address. `None` = the system's authorities, and no
/// certificate of our own.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub ca_pem: Option<String>,
    /// Certificate and key of this client.
    pub identity_pem: Option<(String, SecretString)>,
}

impl Tls {
    fn certificates(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: self.identity_pem.as_ref().map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.clone().into_bytes(),
                client_key: key.expose_secret().as_bytes().to_vec(),
            }),
            root_cert: self.ca_pem.as_ref().map(|pem| pem.clone().into_bytes()),
        }
    }
}

/// Makes connections to one Redis.
#[derive(Debug)]
pub(super) struct Dialer {
    address: Address,
    tls: Tls,
    dialled: AtomicU64,
    /// Which node of a Redis Cluster keeps our keys, as the one we were told of said. One
    /// is enough: all keys of a cluster of ours lie together.
    moved_to: Mutex<Option<(String, u16)>>,
}

impl Dialer {
    pub(super) fn new(address: Address, tls: Tls) -> Self {
        Self { address, tls, dialled: AtomicU64::new(0), moved_to: Mutex::new(None) }
    }

    /// How many connections were made so far. It moves after every restart of the server:
    /// no connection survives one.
    pub(super) fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::SeqCst)
    }

    pub(super) async fn connection(
        &self,
        answer_within: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let config = limits(CONNECT_WITHIN, answer_within);
        let client = self.client().await?;
        let made = client.get_multiplexed_async_connection_with_config(&config).await;
        if made.is_err() {
            self.follow(None);
        }
        let connection = made?;
        self.dialled.fetch_add(1, Ordering::SeqCst);
        Ok(connection)
    }

    /// Goes to another node from now on (`host:port`, or `:port` of the same host), or back
    /// to the one that was configured.
    pub(super) fn follow(&self, node: Option<&str>) {
        let Place::Server { host: known, .. } = &self.address.place else { return };
        let split = |node: &str| {
            let (host, port) = node.rsplit_once(':')?;
            let host = if host.is_empty() { known } else { host };
            Some((host.to_owned(), port.parse().ok()?))
        };
        *self.moved_to.lock().unwrap_or_else(PoisonError::into_inner) = node.and_then(split);
    }

    /// The caller limits how long this may take: the library does not.
    pub(super) async fn pubsub(&self) -> RedisResult<PubSub> {
        self.client().await?.get_async_pubsub().await
    }

    async fn client(&self) -> RedisResult<Client> {
        match &self.address.place {
            Place::Server { host, port } => {
                let moved = self.moved_to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let (host, port) = moved.unwrap_or_else(|| (host.clone(), *port));
                self.client_of(&host, port, &self.settings())
            }
            Place::Socket { path } => {
                let info = ConnectionAddr::Unix(path.into()).into_connection_info()?;
                Client::open(info.set_redis_settings(self.settings()))
            }
            Place::Sentinels { sentinels, master } => self.master(sentinels, master).await,
        }
    }

    fn settings(&self) -> RedisConnectionInfo {
        self.credentials().set_db(self.address.db)
    }

    fn credentials(&self) -> RedisConnectionInfo {
        let mut settings = plain();
        if let Some(user) = &self.address.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.address.password {
            settings = settings.set_password(password.expose_secret());
        }
        settings
    }

    fn client_of(
        &self,
        host: &str,
        port: u16,
        settings: &RedisConnectionInfo,
    ) -> RedisResult<Client> {
        let host = host.to_owned();
        let addr = if self.address.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let keepalive = TcpKeepalive::new().with_time(UNACKNOWLEDGED_WITHIN);
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(UNACKNOWLEDGED_WITHIN);
        let info =
            addr.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(settings.clone());
        if self.address.tls {
            Client::build_with_tls(info, self.tls.certificates())
        } else {
            Client::open(info)
        }
    }

    /// The first Sentinel that knows the master and whose master says that it is one. A
    /// Sentinel that was cut off may still name the one before.
    async fn master(&self, sentinels: &[(String, u16)], master: &str) -> RedisResult<Client> {
        let mut last = None;
        for (host, port) in sentinels {
            let found = self.ask_sentinel(host, *port, master).await;
            match found {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "no Sentinel is named").into()))
    }

    async fn ask_sentinel(&self, host: &str, port: u16, master: &str) -> RedisResult<Client> {
        let ask = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).to_owned();
        // Most Sentinels have no password; those that have one mostly have the server's.
        let open = self.client_of(host, port, &plain())?;
        let answer: RedisResult<Option<(String, u16)>> = one_answer(&open, &ask).await;
        let answer = match answer {
            Err(error) if error.code() == Some("NOAUTH") => {
                let closed = self.client_of(host, port, &self.credentials())?;
                one_answer(&closed, &ask).await
            }
            answer => answer,
        };
        let Some((host, port)) = answer? else {
            let kind = ErrorKind::MasterNameNotFoundBySentinel;
            return Err((kind, "the Sentinels know no master of this name").into());
        };
        let client = self.client_of(&host, port, &self.settings())?;
        let role: Vec<redis::Value> = one_answer(&client, &cmd("ROLE")).await?;
        let role = role.into_iter().next().map(redis::from_redis_value::<String>).transpose()?;
        if role.as_deref() == Some("master") {
            Ok(client)
        } else {
            let kind = ErrorKind::MasterNameNotFoundBySentinel;
            Err((kind, "the server the Sentinels name is no master").into())
        }
    }
}

/// Without a user, and in the older protocol: its subscriptions are the better tried ones.
fn plain() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name()
}

fn limits(connect: Duration, answer: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect))
        .set_response_timeout(Some(answer))
}

async fn one_answer<T: redis::FromRedisValue>(
    client: &Client,
    command: &redis::Cmd,
) -> RedisResult<T> {
    let config = limits(SENTINEL_WITHIN, SENTINEL_WITHIN);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    command.query_async(&mut connection).await
}

/// Keeps connections for the pool.
#[derive(Debug)]
pub(super) struct Manager {
    pub(super) dialer: Arc<Dialer>,
    pub(super) answer_within: Duration,
}

impl managed::Manager for Manager {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.dialer.connection(self.answer_within).await
    }

    async fn recycle(
        &self,
        connection: &mut MultiplexedConnection,
        metrics: &Metrics,
    ) -> RecycleResult<RedisError> {
        if metrics.last_used() > TRUSTED_FOR {
            cmd("PING").query_async::<()>(connection).await?;
        }
        Ok(())
    }
}
