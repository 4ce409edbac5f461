//! Announcing: every replica tells the others where its API is, which Docker host it
//! cares for or stands by for, and what it is configured with, as far as two replicas
//! must agree on it. Of secrets it tells a fingerprint and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::host::standing::Standing;
use crate::clock::Clock;
use crate::fleet::host::RECORD_VERSION;
use crate::fleet::id::{PoolName, ReplicaId};
use crate::fleet::pool::Pool;
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;
use crate::store::Store;

/// As often as a host's report; a change of the standing is announced at once.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
/// Three announcements may be lost before a replica counts as gone.
pub const ANNOUNCE_TTL: Duration = Duration::from_secs(15);
/// Who stops is forgotten at once, not after [`ANNOUNCE_TTL`].
const GOODBYE_TTL: Duration = Duration::from_millis(1);
/// Four bytes tell two secrets apart; they are far too few to find one by.
const SECRET_FINGERPRINT_BYTES: usize = 4;
const POOLS_FINGERPRINT_BYTES: usize = 8;

/// What this replica has in common with the others, and where they find it.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// `http://address:port` as the others reach it; `None`: they do not.
    pub advertise: Option<String>,
    /// Signs what is forwarded; `None`: nothing is.
    pub secret: Option<SecretString>,
}

/// What is announced from.
#[derive(Debug)]
pub struct Announce {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub replica: ReplicaId,
    pub hostname: String,
    pub peers: Peers,
    pub pools: BTreeMap<PoolName, Pool>,
    pub standing: watch::Receiver<Standing>,
}

impl Announce {
    /// Announces until cancelled, then takes its leave.
    pub async fn run(self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(ANNOUNCE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut record = self.record();
        let mut standing = self.standing.clone();
        loop {
            let due = tokio::select! { biased;
                () = cancel.cancelled() => break,
                _ = ticks.tick() => true,
                Ok(()) = standing.changed() => false,
            };
            let (host, is_agent) = {
                let now = standing.borrow_and_update();
                (now.host, now.is_agent())
            };
            // Only what the others see of it is news.
            if due || (host, is_agent) != (record.host, record.agent) {
                (record.host, record.agent) = (host, is_agent);
                self.tell(&mut record, ANNOUNCE_TTL).await;
            }
        }
        self.tell(&mut record, GOODBYE_TTL).await;
    }

    async fn tell(&self, record: &mut ReplicaRecord, ttl: Duration) {
        // The machine's own, not the store's: it is there to be compared with that.
        record.clock = self.clock.wall();
        match self.store.announce(record.clone(), ttl).await {
            Ok(()) => debug!(replica.id = %record.replica, agent = record.agent, "announced"),
            Err(error) => warn!(error = %error, "could not announce this replica"),
        }
    }

    fn record(&self) -> ReplicaRecord {
        let now = self.clock.now();
        ReplicaRecord {
            version: RECORD_VERSION,
            replica: self.replica,
            hostname: self.hostname.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            advertise: self.peers.advertise.clone(),
            host: None,
            agent: false,
            started_at: now,
            clock: self.clock.wall(),
            // The store stamps it.
            at: Timestamp::default(),
            secret_fingerprint: self.peers.secret.as_ref().and_then(secret_fingerprint),
            pools_fingerprint: pools_fingerprint(&self.pools),
        }
    }
}

/// Tells two secrets apart, and no more.
pub(crate) fn secret_fingerprint(secret: &SecretString) -> Option<String> {
    // HMAC takes keys of every length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(b"fingerprint");
    Some(hex(&mac.finalize().into_bytes()[..SECRET_FINGERPRINT_BYTES]))
}

/// Tells two configurations of pools apart, whatever order they were written in.
pub(crate) fn pools_fingerprint(pools: &BTreeMap<PoolName, Pool>) -> String {
    let text = serde_json::to_vec(pools).unwrap_or_default();
    hex(&Sha256::digest(text)[..POOLS_FINGERPRINT_BYTES])
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_secrets_apart_and_holds_none() {
        let of = |secret: &str| secret_fingerprint(&SecretString::from(secret)).unwrap();
        assert_eq!(of("one-secret-of-many").len(), 8);
        assert_eq!(of("one-secret-of-many"), of("one-secret-of-many"));
        assert_ne!(of("one-secret-of-many"), of("one-secret-of-manz"));
        assert_ne!(of(""), of(" "), "a short secret too");
    }
}
