//! When the store was emptied or rolled back: how a replica notices, what it writes back,
//! and which hosts must report again before anything is decided.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::host::{Assignments, HostRecord, HostRecords};
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
    /// The revision of its assignment, as read last or written since; 0 = it has none.
    assigned: u64,
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
    pub assignments: &'a Assignments,
    /// Hosts of which not everything could be read.
    pub withheld: &'a BTreeSet<HostId>,
    pub operator: &'a Operator,
    /// A leader's first look at a store in which no leader has left any trace.
    pub untouched: bool,
    pub now: Timestamp,
}

impl Look<'_> {
    /// The revision of a host's assignment; `None` if it could not be read.
    fn assigned(&self, host: &HostId) -> Option<u64> {
        let revision = || self.assignments.get(host).map_or(0, |assignment| assignment.revision);
        (!self.withheld.contains(host)).then(revision)
    }

    /// Whether less is here of a host than was seen or written before.
    fn has_lost_of(&self, host: &HostId, known: &Known) -> bool {
        self.hosts.get(host).is_some_and(|record| {
            known.is_ahead_of(record)
                || self.assigned(host).is_some_and(|revision| revision < known.assigned)
        })
    }
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
            || self.hosts.iter().any(|(host, known)| look.has_lost_of(host, known));
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

    /// The leader has written these revisions of hosts' assignments, and this operator state.
    /// A store that goes back over them before anybody has read them has nothing else to show
    /// for it: what they placed was placed once more.
    pub fn wrote(&mut self, revisions: &BTreeMap<HostId, u64>, operator: Option<&Operator>) {
        if let Some(operator) = operator.filter(|it| it.revision > self.operator.revision) {
            self.operator = operator.clone();
        }
        for (host, revision) in revisions {
            if let Some(known) = self.hosts.get_mut(host) {
                known.assigned = known.assigned.max(*revision);
            }
        }
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
                assigned: 0,
            });
            known.note(record, look.now);
            known.assigned = look.assigned(host).unwrap_or(known.assigned);
        }
        self.hosts.retain(|host, known| {
            let is_there = look.hosts.contains_key(host);
            if !is_there {
                // The store forgets a host's assignment after the host.
                known.assigned = 0;
            }
            is_there || look.now.since(known.at) < policy.host_memory
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::fleet::host::Assignment;

    const HOST: HostId = HostId(uuid::Uuid::from_u128(1));

    fn records() -> HostRecords {
        let id = HOST.0;
        let record = json!({
            "version": 1, "host": id, "boot": id, "replica": id, "seq": 7, "at": 0,
            "hostname": "h1", "docker_version": null, "docker_up": true, "stopping": false,
            "max_runners": 5, "images": [], "runners": {}, "refused": {},
        });
        [(HOST, Arc::new(serde_json::from_value(record).unwrap()))].into()
    }

    /// Whether a store in which the host's assignment has this revision has gone back.
    fn looks(memory: &mut StoreMemory, hosts: &HostRecords, revision: u64, withheld: bool) -> bool {
        let assignment = Assignment { revision, ..Assignment::default() };
        let mut assignments = Assignments::from([(HOST, Arc::new(assignment))]);
        let withheld = withheld.then_some(HOST).into_iter().collect::<BTreeSet<_>>();
        assignments.retain(|host, _| revision > 0 && !withheld.contains(host));
        let look = Look {
            incarnation: 1,
            hosts,
            assignments: &assignments,
            withheld: &withheld,
            operator: &Operator::default(),
            untouched: false,
            now: Timestamp(0),
        };
        memory.look(look, &Policy::default())
    }

    /// Regression (seed 684): a store that went back over a plan before its leader had read
    /// what hosts made of it showed nothing else of that, and as many were placed once more.
    #[test]
    fn a_store_that_goes_back_over_a_plan_just_written_is_noticed() {
        let (mut memory, hosts) = (StoreMemory::default(), records());
        assert!(!looks(&mut memory, &hosts, 3, false));
        memory.wrote(&[(HOST, 4)].into(), None);
        assert!(looks(&mut memory, &hosts, 3, false));
        assert!(!looks(&mut memory, &hosts, 3, false), "it is told once");
        memory.wrote(&[(HOST, 4)].into(), None);
        assert!(!looks(&mut memory, &hosts, 4, false));
    }

    #[test]
    fn an_operator_state_just_written_is_written_back() {
        let (mut memory, hosts) = (StoreMemory::default(), records());
        assert!(!looks(&mut memory, &hosts, 3, false));
        let written = Operator { revision: 1, ..Operator::default() };
        memory.wrote(&BTreeMap::new(), Some(&written));
        assert_eq!(memory.owed(&Operator::default()), Some(&written));
        assert_eq!(memory.owed(&written), None);
        assert!(looks(&mut memory, &hosts, 3, false));
    }

    #[test]
    fn an_assignment_that_cannot_be_read_or_went_with_its_host_is_no_setback() {
        let (mut memory, hosts) = (StoreMemory::default(), records());
        assert!(!looks(&mut memory, &hosts, 3, false));
        assert!(!looks(&mut memory, &hosts, 3, true));
        assert!(looks(&mut memory, &hosts, 2, false));
        let mut both = hosts.clone();
        both.insert(HostId(uuid::Uuid::from_u128(2)), hosts[&HOST].clone());
        assert!(!looks(&mut memory, &both, 2, false));
        let gone = both.remove(&HOST);
        assert!(!looks(&mut memory, &both, 0, false));
        both.extend(gone.map(|record| (HOST, record)));
        assert!(!looks(&mut memory, &both, 0, false), "it returns, and nothing was assigned");
    }
}
