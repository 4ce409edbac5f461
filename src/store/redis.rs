//! The store that replicas share: a Redis. Every step is one script, so it happens wholly
//! or not at all; every leader's or agent's write is fenced in its script; every call ends
//! within its limit, the longest, a first reading of everything, within five seconds. It is
//! a meeting place and a cache, never the only copy of anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, ScriptInvocation, Value, cmd};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Commit, HOSTS_FOR, INTENTS_MAX, Lease, LeaseKey, OUTCOMES_FOR, OUTCOMES_KEPT, PUT_BY_FOR,
    SHARES_FOR, Snapshot, Store, StoreError, StoreHealth, TERMS_FOR, Topic,
};
use crate::election::{Agency, Leadership};
use crate::fleet::budget::BudgetShare;
use crate::fleet::digest::Digest;
use crate::fleet::host::{Assignment, HostRecord};
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Operator, Outcome};
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;

pub mod address;
mod codec;
mod connect;
mod digest;
pub mod examine;
pub mod forget;
mod health;
mod hints;
pub mod keys;
mod known;
mod lease;
mod link;
mod script;

use address::Address;
use codec::{bytes, decode, decode_versioned, encode, items, numbered, pairs, text};
use connect::Dialer;
pub use connect::Tls;
use health::Health;
use hints::{Listener, Topics};
use keys::Keys;
use known::Known;
use lease::Fence;
use link::{Link, Question, Way};
use script::Scripts;

/// Snapshots of one process are taken one after the other.
const TURN_WITHIN: Duration = Duration::from_secs(1);

/// Which Redis, and whose part of it.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    pub address: Address,
    pub tls: Tls,
    /// The cluster's name: replicas of other clusters are not seen.
    pub cluster: String,
}

/// Shared state in a Redis.
#[derive(Debug)]
pub struct RedisStore {
    keys: Keys,
    scripts: Scripts,
    dialer: Arc<Dialer>,
    link: Arc<Link>,
    topics: Arc<Topics>,
    known: Mutex<Known>,
    /// Writes sent so far, each with its number.
    writes: AtomicU64,
    /// The listener; it ends with the store.
    _listening: JoinSet<()>,
}

impl RedisStore {
    /// Starts to listen, and comes back at once: the server need not be there yet.
    pub fn start(settings: RedisSettings) -> Result<Self, StoreError> {
        let keys = Keys::new(&settings.cluster);
        let dialer = Arc::new(Dialer::new(settings.address, settings.tls));
        let link = Arc::new(Link::new(dialer.clone(), Health::new())?);
        let topics = Arc::new(Topics::new(Uuid::new_v4().simple().to_string()));
        let mut listening = JoinSet::new();
        let listener = Listener {
            dialer: dialer.clone(),
            link: link.clone(),
            topics: topics.clone(),
            channel: keys.channel(),
        };
        listening.spawn(listener.run());
        Ok(Self {
            keys,
            scripts: Scripts::new(),
            dialer,
            link,
            topics,
            known: Mutex::new(Known::default()),
            writes: AtomicU64::new(0),
            _listening: listening,
        })
    }

    async fn run(
        &self,
        way: Way,
        action: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<Value, StoreError> {
        self.link.ask(way, action, Question::Script(script)).await
    }

    async fn read(&self, action: &'static str, command: &Cmd) -> Result<Value, StoreError> {
        self.link.ask(Way::Read, action, Question::Command(command)).await
    }

    /// What was read so far. Who works with it does one thing at a time.
    async fn known(&self, action: &'static str) -> Result<MutexGuard<'_, Known>, StoreError> {
        let timed_out = StoreError::Timeout { action, timeout_ms: ms(TURN_WITHIN) };
        timeout(TURN_WITHIN, self.known.lock()).await.map_err(|_| timed_out)
    }

    fn unreadable(&self, name: &str, problem: impl Into<String>) -> StoreError {
        StoreError::Unreadable { key: self.keys.named(name), problem: problem.into() }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Store for RedisStore {
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let mut call = self.scripts.acquire.key(self.keys.lease(lease));
        call.key(self.keys.term(lease))
            .arg(replica.to_string())
            .arg(seen.0)
            .arg(ms(ttl))
            .arg(ms(TERMS_FOR))
            .arg(self.keys.channel())
            .arg(self.topics.hint(&[Topic::Leases]));
        let answer = self.lease_of(&self.run(Way::Lease, "asking for a lease", &call).await?)?;
        if matches!(answer, Lease::Ours { .. }) {
            self.topics.moved(&[Topic::Leases]);
        }
        Ok(answer)
    }

    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let mut call = self.scripts.renew.key(self.keys.lease(lease));
        call.arg(replica.to_string()).arg(term.0).arg(ms(ttl));
        self.lease_of(&self.run(Way::Lease, "renewing a lease", &call).await?)
    }

    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.release.key(self.keys.lease(lease));
        call.arg(replica.to_string())
            .arg(term.0)
            .arg(self.keys.channel())
            .arg(self.topics.hint(&[Topic::Leases]));
        self.run(Way::Lease, "giving a lease up", &call).await?;
        self.topics.moved(&[Topic::Leases]);
        Ok(())
    }

    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError> {
        const ACTION: &str = "writing what the leader decided";
        let fence = Fence::of_leader(leader);
        let mut topics = Vec::new();
        if !commit.assignments.is_empty() {
            topics.push(Topic::Assignments);
        }
        if !commit.outcomes.is_empty() {
            topics.push(Topic::Outcomes);
        }
        let keys = [
            "state",
            "assignments",
            "assignments:versions",
            "intents",
            "outcomes",
            "outcomes:times",
        ];
        let mut call = self.ordered(&self.scripts.commit, fence, "commit", &keys);
        call.arg(self.keys.channel()).arg(self.topics.hint(&topics));
        match &commit.operator {
            Some(operator) => call.arg(encode(operator, ACTION)?).arg(operator.revision),
            None => call.arg("").arg(0),
        };
        call.arg(OUTCOMES_KEPT).arg(ms(OUTCOMES_FOR)).arg(commit.assignments.len());
        for (host, assignment) in &commit.assignments {
            call.arg(host.to_string()).arg(encode(assignment, ACTION)?);
        }
        for outcome in &commit.outcomes {
            call.arg(outcome.intent.to_string()).arg(encode(outcome, ACTION)?);
        }
        self.write_fenced(ACTION, fence, &call).await?;
        self.topics.moved(&topics);
        Ok(())
    }

    async fn publish(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError> {
        self.show(leader, digest).await
    }

    async fn report(&self, agent: &Agency, record: HostRecord) -> Result<(), StoreError> {
        const ACTION: &str = "reporting a host";
        let fence = Fence::of_agent(agent);
        let keys = ["state", "hosts", "hosts:versions"];
        let mut call = self.ordered(&self.scripts.report, fence, "report", &keys);
        call.arg(record.host.to_string())
            .arg(encode(&record, ACTION)?)
            .arg(self.keys.channel())
            .arg(self.topics.hint(&[Topic::Hosts]));
        self.write_fenced(ACTION, fence, &call).await?;
        self.topics.moved(&[Topic::Hosts]);
        Ok(())
    }

    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        let command = cmd("HGET").arg(self.keys.named("assignments")).arg(host.to_string()).clone();
        let answer = self.read("reading an assignment", &command).await?;
        match bytes(&answer) {
            Some(stored) => decode_versioned(stored)
                .map_err(|problem| self.unreadable(&format!("assignments {host}"), problem)),
            None => Ok(Assignment::default()),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        const ACTION: &str = "reading what is shared";
        let mut known = self.known(ACTION).await?;
        known.prepare(self.dialer.dialled());
        // The second time everything is read: then the answer must add up. It does not when
        // a host was forgotten there.
        for _ in 0..2 {
            let all = known.is_empty();
            let way = if all { Way::ReadAll } else { Way::Read };
            let question = known.question(&self.keys, &self.scripts.snapshot);
            let answer = self.run(way, ACTION, &question).await?;
            if all {
                known.read_over(self.dialer.dialled());
            }
            if let Some(snapshot) = known.take(&self.keys, &answer)? {
                return Ok(snapshot);
            }
            known.forget();
        }
        Err(self.unreadable("hosts", "its versions and records do not agree"))
    }

    async fn record(&self, intent: Intent) -> Result<(), StoreError> {
        const ACTION: &str = "recording an intent";
        let mut call = self.scripts.record.key(self.keys.named("state"));
        call.key(self.keys.named("intents"))
            .key(self.keys.named("outcomes"))
            .arg(intent.id.to_string())
            .arg(encode(&intent, ACTION)?)
            .arg(INTENTS_MAX)
            .arg(self.keys.channel())
            .arg(self.topics.hint(&[Topic::Intents]));
        let answer = self.run(Way::Write, ACTION, &call).await?;
        if items(&answer).first().and_then(text).as_deref() == Some("FULL") {
            return Err(StoreError::IntentsFull { limit: INTENTS_MAX });
        }
        self.topics.moved(&[Topic::Intents]);
        Ok(())
    }

    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError> {
        let command = cmd("HGET").arg(self.keys.named("outcomes")).arg(intent.to_string()).clone();
        let answer = self.read("reading an outcome", &command).await?;
        bytes(&answer)
            .map(decode)
            .transpose()
            .map_err(|problem| self.unreadable(&format!("outcomes {intent}"), problem))
    }

    async fn announce(&self, replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        const ACTION: &str = "announcing this replica";
        let mut call = self.scripts.announce.key(self.keys.named("replicas"));
        for name in ["state", "hosts", "hosts:versions", "assignments", "assignments:versions"] {
            call.key(self.keys.named(name));
        }
        call.arg(replica.replica.to_string())
            .arg(encode(&replica, ACTION)?)
            .arg(ms(ttl))
            .arg(ms(HOSTS_FOR));
        self.run(Way::Write, ACTION, &call).await.map(drop)
    }

    async fn restore(&self, operator: &Operator) -> Result<(), StoreError> {
        const ACTION: &str = "writing the operator state back";
        let mut call = self.scripts.restore.key(self.keys.named("state"));
        call.arg(encode(operator, ACTION)?).arg(operator.revision);
        self.run(Way::Write, ACTION, &call).await.map(drop)
    }

    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError> {
        const ACTION: &str = "sharing the GitHub budget";
        let mut call = self.scripts.share.key(self.keys.named("shares"));
        call.arg(share.replica.to_string()).arg(encode(&share, ACTION)?).arg(ms(SHARES_FOR));
        let answer = self.run(Way::Write, ACTION, &call).await?;
        // A share of another program version that does not parse is spent all the same, but
        // nobody can say how much; it is left out, as one that came late would be.
        let read = |(_, stored)| decode::<BudgetShare>(numbered(stored)?.1).ok();
        Ok(pairs(items(&answer)).filter_map(read).collect())
    }

    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let command = cmd("HGETALL").arg(self.keys.kept(name)).clone();
        let answer = self.read("reading what was put by", &command).await?;
        let read = |(name, value)| Some((name, String::from_utf8(Vec::from(value)).ok()?));
        Ok(pairs(items(&answer)).filter_map(read).collect())
    }

    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        let fence = Fence::of_leader(leader);
        let mut call = self.fenced(&self.scripts.put_by, fence, &[]);
        call.key(self.keys.kept(name)).arg(ms(PUT_BY_FOR));
        for (key, value) in &entries {
            match value {
                Some(value) => call.arg("SET").arg(key).arg(value),
                None => call.arg("DEL").arg(key).arg(""),
            };
        }
        self.write_fenced("putting facts by", fence, &call).await.map(drop)
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.topics.watch(topic)
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.link.health.watch()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let answer = self.read("asking for its time", &cmd("TIME")).await?;
        let mut parts = items(&answer).iter().map(|part| text(part)?.parse::<u64>().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(seconds), Some(micros)) => Ok(Timestamp(seconds * 1_000 + micros / 1_000)),
            _ => Err(self.unreadable("state", "its time is no number")),
        }
    }
}
