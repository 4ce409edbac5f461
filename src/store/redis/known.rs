//! What this process has read of the store already. A snapshot asks only for what has a
//! newer version and parses only that: a fleet at rest costs five commands, not megabytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Script, ScriptInvocation, Value};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::codec::{self, Versioned, decode, decode_versioned, items, numbered, pairs, text};
use super::keys::Keys;
use crate::fleet::digest::Digest;
use crate::fleet::host::{Assignment, HostRecord};
use crate::fleet::id::{HostId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Operator};
use crate::fleet::registration::Listing;
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;
use crate::fleet::view::Withheld;
use crate::store::{Snapshot, StoreError, Unreadable};

/// Everything is read anew this often, whatever the versions say.
const ALL_EVERY: Duration = Duration::from_secs(60);

/// Where the operator state is.
const OPERATOR: &str = "state operator";

/// The records read so far, and as of which versions.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Connections made before the reading. A store that was rolled back was restarted,
    /// so the next reading goes over a new connection.
    dialled: u64,
    since: Option<Instant>,
    versions: Versions,
    hosts: Part<HostRecord>,
    assignments: Part<Assignment>,
    intents: Vec<Intent>,
    bad_intents: BTreeMap<String, String>,
    digest: Option<Arc<Digest>>,
    bad_digest: Option<String>,
    listing: Arc<Listing>,
    operator: Option<(Vec<u8>, Operator)>,
}

#[derive(Clone, Debug, Default)]
struct Versions {
    incarnation: String,
    hosts: String,
    assignments: String,
    intents: String,
    digest: String,
    listing: String,
}

/// Records by host.
#[derive(Debug)]
struct Part<T> {
    records: BTreeMap<HostId, Arc<T>>,
    bad: BTreeMap<String, String>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { records: BTreeMap::new(), bad: BTreeMap::new() }
    }
}

impl<T: DeserializeOwned + Versioned> Part<T> {
    /// Takes in how many there are and those that changed. `false`: some are missing or
    /// too many here, so all must be read.
    fn take(&mut self, answer: &Value) -> bool {
        let Some((count, changed)) = items(answer).split_first() else { return true };
        for pair in changed.chunks_exact(2) {
            let Some(name) = text(&pair[0]) else { continue };
            let read = codec::bytes(&pair[1])
                .ok_or_else(|| "its record is missing".to_owned())
                .and_then(decode_versioned::<T>)
                .and_then(|record| {
                    Ok((name.parse::<HostId>().map_err(|e| e.to_string())?, record))
                });
            match read {
                Ok((host, record)) => {
                    self.bad.remove(&name);
                    self.records.insert(host, Arc::new(record));
                }
                Err(problem) => {
                    if let Ok(host) = name.parse() {
                        self.records.remove(&host);
                    }
                    self.bad.insert(name, problem);
                }
            }
        }
        let here = self.records.len() + self.bad.len();
        text(count).is_some_and(|count| count == here.to_string())
    }
}

impl Known {
    /// Before a reading: forgets everything when what is known may be wrong.
    pub(super) fn prepare(&mut self, dialled: u64) {
        let old = self.since.is_none_or(|since| since.elapsed() > ALL_EVERY);
        if self.dialled != dialled || old {
            self.forget();
        }
        self.dialled = dialled;
    }

    /// Whether the next reading is of everything.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Everything was read when so many connections had been made: all that is known from
    /// now on is of the server's life they lead to.
    pub(super) fn read_over(&mut self, dialled: u64) {
        self.dialled = dialled;
    }

    pub(super) fn forget(&mut self) {
        let operator = self.operator.take();
        *self = Self { dialled: self.dialled, operator, ..Self::default() };
    }

    pub(super) fn question<'a>(&self, keys: &Keys, script: &'a Script) -> ScriptInvocation<'a> {
        let mut question = script.key(keys.named("state"));
        for name in [
            "lease:leader",
            "replicas",
            "hosts",
            "hosts:versions",
            "assignments",
            "assignments:versions",
            "intents",
            "digest",
            "registrations",
        ] {
            question.key(keys.named(name));
        }
        let known = &self.versions;
        question
            .arg(Uuid::new_v4().as_u128().to_string())
            .arg(&known.incarnation)
            .arg(&known.hosts)
            .arg(&known.assignments)
            .arg(&known.intents)
            .arg(&known.digest)
            .arg(&known.listing);
        question
    }

    /// Takes an answer in. `None`: what is known does not add up; forget it and ask again.
    pub(super) fn take(
        &mut self,
        keys: &Keys,
        answer: &Value,
    ) -> Result<Option<Snapshot>, StoreError> {
        let [at, versions, lease, operator, replicas, parts @ ..] = items(answer) else {
            return Err(other_shape(keys));
        };
        let [hosts, assignments, intents, digest, listing] = parts else {
            return Err(other_shape(keys));
        };
        let was = self.versions.clone();
        self.versions = versions_of(versions);
        if was.incarnation != self.versions.incarnation {
            self.hosts = Part::default();
            self.assignments = Part::default();
            self.operator = None;
        }
        let whole = self.hosts.take(hosts) && self.assignments.take(assignments);
        if let Value::Array(waiting) = intents {
            self.take_intents(waiting);
        }
        let anew = was.incarnation != self.versions.incarnation;
        if anew || was.listing != self.versions.listing {
            self.take_listing(listing);
        }
        if anew || was.digest != self.versions.digest {
            self.take_digest(digest);
        }
        self.since.get_or_insert_with(Instant::now);
        let mut unreadable = self.unreadable(keys);
        let operator = self.take_operator(keys, operator, &mut unreadable)?;
        let at = Timestamp(text(at).and_then(|at| at.parse().ok()).unwrap_or_default());
        let snapshot = Snapshot {
            incarnation: self.versions.incarnation.parse().unwrap_or_default(),
            at,
            leader: holder(lease),
            replicas: replicas_of(keys, replicas, at, &mut unreadable),
            hosts: self.hosts.records.clone(),
            assignments: self.assignments.records.clone(),
            operator,
            intents: self.intents.clone(),
            digest: self.digest.clone(),
            withheld: self.withheld(keys, &unreadable),
            unreadable,
        };
        Ok(whole.then_some(snapshot))
    }

    fn take_intents(&mut self, waiting: &[Value]) {
        self.bad_intents.clear();
        let mut placed = Vec::new();
        for (name, record) in pairs(waiting) {
            let read = numbered(record)
                .ok_or_else(|| "without a place in the queue".to_owned())
                .and_then(|(place, record)| Ok((place, decode::<Intent>(record)?)));
            match read {
                Ok(intent) => placed.push(intent),
                Err(problem) => {
                    self.bad_intents.insert(name, problem);
                }
            }
        }
        placed.sort_by_key(|(place, intent)| (*place, intent.id));
        self.intents = placed.into_iter().map(|(_, intent)| intent).collect();
    }

    /// The version under which the store has this very listing, as far as is known here.
    pub(super) fn version_of(&self, listing: &Arc<Listing>) -> Option<String> {
        let has_it = !self.versions.listing.is_empty() && Arc::ptr_eq(&self.listing, listing);
        has_it.then(|| self.versions.listing.clone())
    }

    /// This process has written a digest itself: the next reading need not send it back.
    pub(super) fn told(&mut self, answer: &Value, digest: Digest) {
        let mut versions = items(answer).iter().skip(1).filter_map(text);
        if let (Some(version), Some(listing), true) =
            (versions.next(), versions.next(), self.since.is_some())
        {
            (self.versions.digest, self.versions.listing) = (version, listing);
            self.listing = digest.ledger.registrations.listing().clone();
            (self.digest, self.bad_digest) = (Some(Arc::new(digest)), None);
        }
    }

    /// One that cannot be read is told with the digest it belongs to.
    fn take_listing(&mut self, listing: &Value) {
        let read = codec::bytes(listing).map(decode::<Listing>).transpose();
        self.listing = match read {
            Ok(listing) => Arc::new(listing.unwrap_or_default()),
            Err(problem) => {
                warn!(problem, "the listing of registrations cannot be read");
                Arc::default()
            }
        };
    }

    fn take_digest(&mut self, digest: &Value) {
        let read = codec::bytes(digest).map(decode_versioned::<Digest>).transpose();
        let read = read.map(|read| {
            read.map(|mut digest| {
                // One of the version before this brings its own.
                if digest.ledger.registrations.listed().is_empty() {
                    let ledger = Arc::make_mut(&mut digest.ledger);
                    ledger.registrations.set_listing(self.listing.clone());
                }
                digest
            })
        });
        (self.digest, self.bad_digest) = match read {
            Ok(digest) => (digest.map(Arc::new), None),
            Err(problem) => (None, Some(problem)),
        };
    }

    /// The operator state decides whether the fleet is frozen, so an unreadable one is not
    /// taken for an empty one: the last that was read holds, or the reading fails.
    fn take_operator(
        &mut self,
        keys: &Keys,
        stored: &Value,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<Operator, StoreError> {
        let Some(stored) = codec::bytes(stored) else {
            self.operator = None;
            return Ok(Operator::default());
        };
        if let Some((text, operator)) = &self.operator
            && text == stored
        {
            return Ok(operator.clone());
        }
        match (decode::<Operator>(stored), &self.operator) {
            (Ok(operator), _) => {
                self.operator = Some((stored.to_vec(), operator.clone()));
                Ok(operator)
            }
            (Err(problem), Some((_, operator))) => {
                unreadable.push(Unreadable { key: keys.named(OPERATOR), problem });
                Ok(operator.clone())
            }
            (Err(problem), None) => {
                Err(StoreError::Unreadable { key: keys.named(OPERATOR), problem })
            }
        }
    }

    fn withheld(&self, keys: &Keys, unreadable: &[Unreadable]) -> Withheld {
        let names = self.hosts.bad.keys().chain(self.assignments.bad.keys());
        let operator = keys.named(OPERATOR);
        Withheld {
            hosts: names.filter_map(|name| name.parse().ok()).collect(),
            operator: unreadable.iter().any(|record| record.key == operator),
        }
    }

    fn unreadable(&self, keys: &Keys) -> Vec<Unreadable> {
        let of = |part: &'static str, bad: &BTreeMap<String, String>| {
            let told = bad.iter().map(|(name, problem)| Unreadable {
                key: keys.named(&format!("{part} {name}")),
                problem: problem.clone(),
            });
            told.collect::<Vec<_>>()
        };
        let mut found = of("hosts", &self.hosts.bad);
        found.extend(of("assignments", &self.assignments.bad));
        found.extend(of("intents", &self.bad_intents));
        if let Some(problem) = &self.bad_digest {
            found.push(Unreadable { key: keys.named("digest"), problem: problem.clone() });
        }
        found
    }
}

/// Whether a digest was not written because the store has another listing.
pub(super) fn is_stale(answer: &Value) -> bool {
    items(answer).first().and_then(text).as_deref() == Some("STALE")
}

fn other_shape(keys: &Keys) -> StoreError {
    let problem = "the answer has another shape".to_owned();
    StoreError::Unreadable { key: keys.named("state"), problem }
}

fn versions_of(answer: &Value) -> Versions {
    let mut texts = items(answer).iter().map(|item| text(item).unwrap_or_default());
    let mut next = || texts.next().unwrap_or_default();
    Versions {
        incarnation: next(),
        hosts: next(),
        assignments: next(),
        intents: next(),
        digest: next(),
        listing: next(),
    }
}

fn holder(lease: &Value) -> Option<(ReplicaId, Term)> {
    let [replica, term] = items(lease) else { return None };
    Some((text(replica)?.parse().ok()?, Term(text(term)?.parse().ok()?)))
}

/// Each as `<taken in at>:<ends at>:<record>`.
pub(super) fn replicas_of(
    keys: &Keys,
    answer: &Value,
    now: Timestamp,
    unreadable: &mut Vec<Unreadable>,
) -> BTreeMap<ReplicaId, ReplicaRecord> {
    let mut found = BTreeMap::new();
    for (name, stored) in pairs(items(answer)) {
        let read = numbered(stored)
            .and_then(|(at, rest)| Some((at, numbered(rest)?)))
            .ok_or_else(|| "without its times".to_owned())
            .and_then(|(at, (ends, record))| {
                Ok((at, ends, decode_versioned::<ReplicaRecord>(record)?))
            });
        match read {
            // What has ended is taken away when somebody announces the next time.
            Ok((_, ends, _)) if ends <= now.0 => (),
            Ok((at, _, mut record)) => {
                record.at = Timestamp(at);
                found.insert(record.replica, record);
            }
            Err(problem) => {
                unreadable
                    .push(Unreadable { key: keys.named(&format!("replicas {name}")), problem });
            }
        }
    }
    found
}
