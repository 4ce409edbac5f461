//! Every key there is, in one table. All of a cluster's keys carry one hash tag, so that
//! a script may use any of them together on Redis Cluster too.

use crate::store::LeaseKey;

/// What is stored under a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyEntry {
    /// The name without the cluster's prefix; `<…>` stands for what varies.
    pub name: &'static str,
    pub kind: &'static str,
    pub writer: &'static str,
    pub lifetime: &'static str,
    pub content: &'static str,
}

const fn key(
    name: &'static str,
    kind: &'static str,
    writer: &'static str,
    lifetime: &'static str,
    content: &'static str,
) -> KeyEntry {
    KeyEntry { name, kind, writer, lifetime, content }
}

/// The table. A test compares it with what is found in a used store.
pub const KEYS: &[KeyEntry] = &[
    key(
        "lease:leader",
        "hash",
        "acquire, renew, release",
        "5 s",
        "replica and term of the leader, the numbers of its last writes",
    ),
    key("lease:agent:<host>", "hash", "acquire, renew, release", "5 s", "the same of an agent"),
    key("term:leader", "string", "acquire", "30 d", "the last term given out"),
    key("term:agent:<host>", "string", "acquire", "30 d", "the last term given out"),
    key("state", "hash", "all scripts", "no end", "incarnation, operator, versions of the parts"),
    key("hosts", "hash", "report (that host's agent)", "1 d of silence", "host: HostRecord"),
    key("hosts:versions", "zset", "report", "with hosts", "host: version of its record"),
    key("assignments", "hash", "commit (leader)", "with hosts", "host: Assignment"),
    key("assignments:versions", "zset", "commit", "with hosts", "host: version of its record"),
    key("intents", "hash", "record (anybody)", "until settled", "intent: place and Intent"),
    key("outcomes", "hash", "commit (leader)", "1 h, newest 1,000", "intent: Outcome"),
    key("outcomes:times", "zset", "commit", "with outcomes", "intent: when it was settled"),
    key("digest", "string", "publish (leader)", "no end", "the leader's last turn"),
    key("registrations", "string", "publish (leader)", "no end", "GitHub's list, for the digest"),
    key("replicas", "hash", "announce (each its own)", "by announcement", "replica: ReplicaRecord"),
    key("shares", "hash", "share (each its own)", "2 min", "replica: BudgetShare"),
    key("kept:<name>", "hash", "put_by (leader)", "7 d", "cached facts"),
];

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(cluster: &str) -> Self {
        Self { prefix: format!("{{ro:{cluster}}}:") }
    }

    /// A key of the table without a varying part.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn lease(&self, lease: LeaseKey) -> String {
        self.named(&format!("lease:{}", of(lease)))
    }

    pub(super) fn term(&self, lease: LeaseKey) -> String {
        self.named(&format!("term:{}", of(lease)))
    }

    pub(super) fn kept(&self, name: &str) -> String {
        self.named(&format!("kept:{name}"))
    }

    /// The channel of hints; no key, but named like one so that users of a Redis can be
    /// confined to one pattern.
    pub(super) fn channel(&self) -> String {
        self.named("hints")
    }
}

fn of(lease: LeaseKey) -> String {
    match lease {
        LeaseKey::Leader => "leader".to_owned(),
        LeaseKey::Agent(host) => format!("agent:{host}"),
    }
}
