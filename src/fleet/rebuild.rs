//! When the store was emptied or rolled back: how a replica notices, what it writes back,
//! and which hosts must report again before anything is decided.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::host::{HostRecord, HostRecords};
use super::id::{BootId, HostId};
use super::intent::Operator;
use super::policy::Policy;
use super::registration::RegistrationBook;
use super::time::Timestamp;

/// Earlier boots remembered of one host: to tell a record of the past from a new start.
const BOOTS_REMEMBERED: usize = 8;

/// What one replica remembers of the store for as long as it lives, leader or not.
#[derive(Clone, Debug, Default)]
pub struct StoreMemory {
    incarnation: Option<u128>,
    /// The newest operator state seen.
    operator: Operator,
    hosts: BTreeMap<HostId, Known>,
    /// Hosts that the last reading had a record of.
    present: BTreeSet<HostId>,
    rebuild: Option<Rebuild>,
}

/// The newest report seen of one host.
#[derive(Clone, Debug)]
struct Known {
    boot: BootId,
    seq: u64,
    earlier: Vec<BootId>,
    at: Timestamp,
}

impl Known {
    /// Whether a record tells more than the newest one seen.
    fn is_passed_by(&self, record: &HostRecord) -> bool {
        if record.boot == self.boot {
            record.seq > self.seq
        } else {
            !self.earlier.contains(&record.boot)
        }
    }

    /// Whether a record is of a past that was seen already.
    fn is_ahead_of(&self, record: &HostRecord) -> bool {
        if record.boot == self.boot {
            record.seq < self.seq
        } else {
            self.earlier.contains(&record.boot)
        }
    }

    fn note(&mut self, record: &HostRecord, now: Timestamp) {
        if (self.boot, self.seq) == (record.boot, record.seq) {
            return;
        }
        if let Some(at) = self.earlier.iter().position(|boot| *boot == record.boot) {
            // Rolled back: what came after it will come anew.
            self.earlier.truncate(at);
        } else if self.boot != record.boot {
            self.earlier.push(self.boot);
            if self.earlier.len() > BOOTS_REMEMBERED {
                self.earlier.remove(0);
            }
        }
        (self.boot, self.seq, self.at) = (record.boot, record.seq, now);
    }
}

/// A setback, and what hosts must still show since.
#[derive(Clone, Debug)]
struct Rebuild {
    since: Timestamp,
    /// Hosts known before, with the report that the store had of them then.
    awaited: BTreeMap<HostId, Option<(BootId, u64)>>,
}

/// The hosts a leader waits for, by the eight digits that runner names carry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rebuilding {
    pub since: Timestamp,
    pub hosts: BTreeSet<String>,
}

/// One reading of the store.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    pub incarnation: u128,
    pub hosts: &'a HostRecords,
    pub operator: &'a Operator,
    /// A leader's first look at a store in which no leader has left any trace.
    pub untouched: bool,
    pub now: Timestamp,
}

impl StoreMemory {
    /// The operator state to write back: the store has an older one than was seen before.
    #[must_use]
    pub fn owed(&self, stored: &Operator) -> Option<&Operator> {
        (stored.revision < self.operator.revision).then_some(&self.operator)
    }

    /// Takes a reading in. Whether the store has been emptied or rolled back since the last.
    pub fn look(&mut self, look: Look<'_>, policy: &Policy) -> bool {
        let emptied = self.incarnation.is_some_and(|known| known != look.incarnation);
        let rolled_back = self.operator.revision > look.operator.revision
            || self.hosts.iter().any(|(host, known)| {
                look.hosts.get(host).is_some_and(|record| known.is_ahead_of(record))
            });
        let all_gone = !self.present.is_empty()
            && self.present.iter().all(|host| !look.hosts.contains_key(host));
        let setback = emptied || rolled_back || all_gone;
        if setback || look.untouched {
            let silent = self.hosts.iter().filter(|(host, known)| {
                setback && look.hosts.get(*host).is_none_or(|record| !known.is_passed_by(record))
            });
            let awaited = silent.map(|(host, _)| {
                (*host, look.hosts.get(host).map(|record| (record.boot, record.seq)))
            });
            let mut awaited: BTreeMap<HostId, _> = awaited.collect();
            // What a setback made hosts owe, they owe a leader that begins after it too.
            if !setback && let Some(before) = self.rebuild.take() {
                awaited.extend(before.awaited);
            }
            self.rebuild = Some(Rebuild { since: look.now, awaited });
        }
        self.note(look, policy);
        setback
    }

    fn note(&mut self, look: Look<'_>, policy: &Policy) {
        self.incarnation = Some(look.incarnation);
        self.present = look.hosts.keys().copied().collect();
        if look.operator.revision >= self.operator.revision && *look.operator != self.operator {
            self.operator = look.operator.clone();
        }
        for (host, record) in look.hosts {
            let known = self.hosts.entry(*host).or_insert_with(|| Known {
                boot: record.boot,
                seq: record.seq,
                earlier: Vec::new(),
                at: look.now,
            });
            known.note(record, look.now);
        }
        self.hosts.retain(|host, known| {
            look.hosts.contains_key(host) || look.now.since(known.at) < policy.host_memory
        });
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.awaited.retain(|host, stood| {
                let stands = look.hosts.get(host).map(|record| (record.boot, record.seq));
                stands.is_none() || stands == *stood
            });
            if look.now.since(rebuild.since) >= policy.lost_after {
                self.rebuild = None;
            }
        }
    }

    /// The hosts without whose reports nothing may be decided yet: those known before the
    /// setback, and those whose runners GitHub lists.
    #[must_use]
    pub fn rebuilding(
        &self,
        hosts: &HostRecords,
        registrations: &RegistrationBook,
    ) -> Option<Rebuilding> {
        let rebuild = self.rebuild.as_ref()?;
        let reported: BTreeSet<String> = hosts
            .keys()
            .filter(|host| !rebuild.awaited.contains_key(*host))
            .map(HostId::short)
            .collect();
        let named = registrations.listed().keys().filter_map(|name| name.host_short());
        let known = rebuild.awaited.keys().map(HostId::short);
        let awaited: BTreeSet<String> =
            named.map(str::to_owned).chain(known).filter(|host| !reported.contains(host)).collect();
        (!awaited.is_empty()).then_some(Rebuilding { since: rebuild.since, hosts: awaited })
    }
}
