//! Replicas: what each orchestrator process tells the others of itself, and on what two of
//! them differ that must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{HostId, ReplicaId};
use super::intent::Operator;
use super::time::Timestamp;

/// One process, as it last announced itself. The process is its only writer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// The record's version, as of [`super::host::RECORD_VERSION`].
    pub version: u32,
    pub replica: ReplicaId,
    /// The machine's name, for people.
    pub hostname: String,
    /// The program's version, for people.
    pub build: String,
    /// Where other replicas reach its API (`http://address:port`); `None`: nowhere, and
    /// nothing is forwarded to it.
    pub advertise: Option<String>,
    /// The Docker host it is the agent of, or stands by for.
    pub host: Option<HostId>,
    /// It is that host's agent; else another replica is, and it stands by.
    pub agent: bool,
    pub started_at: Timestamp,
    /// Its own wall clock when it announced, to compare with the others'.
    pub clock: Timestamp,
    /// When the store took it in, by the store's time.
    pub at: Timestamp,
    /// Tells two different cluster secrets apart and nothing else of them; `None` = none set.
    pub secret_fingerprint: Option<String>,
    /// Tells two different pool configurations apart.
    pub pools_fingerprint: String,
}

/// Two replicas whose clocks differ by more than this judge deadlines differently: it is
/// far above what announcing takes, and far below what a lease lasts.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// What replicas of one cluster must agree on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Common {
    ClusterSecret,
    Pools,
    /// With the difference in milliseconds, ahead of the other or behind it.
    Clock {
        ahead_ms: i64,
    },
}

impl Common {
    /// The stable names, for programs and for metric labels.
    pub const CODES: [&'static str; 3] = ["cluster_secret", "pools", "clock"];

    /// The stable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::ClusterSecret => Self::CODES[0],
            Self::Pools => Self::CODES[1],
            Self::Clock { .. } => Self::CODES[2],
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(self) -> &'static str {
        match self {
            Self::ClusterSecret => "set the same CLUSTER_SECRET on every replica",
            Self::Pools => "give every replica the same pool settings and POOLS_FILE",
            Self::Clock { .. } => "synchronise the clocks of all machines, with NTP or alike",
        }
    }
}

impl fmt::Display for Common {
    /// The middle of a sentence between the names of two replicas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterSecret => f.write_str("has another cluster secret than"),
            Self::Pools => f.write_str("has other pools than"),
            Self::Clock { ahead_ms } => {
                let side = if *ahead_ms < 0 { "behind" } else { "ahead of" };
                let tenths = (ahead_ms.unsigned_abs() + 50) / 100;
                write!(f, "has a clock {}.{} s {side} that of", tenths / 10, tenths % 10)
            }
        }
    }
}

/// Two replicas that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disagreement {
    pub replica: ReplicaId,
    /// The one the others are measured by.
    pub from: ReplicaId,
    pub what: Common,
}

/// On what replicas differ that must agree. All are measured by the leader, or by the
/// eldest while nobody leads.
#[must_use]
pub fn disagreements(
    replicas: &BTreeMap<ReplicaId, ReplicaRecord>,
    leader: Option<ReplicaId>,
) -> Vec<Disagreement> {
    let eldest = || replicas.values().min_by_key(|replica| (replica.started_at, replica.replica));
    let Some(measure) = leader.and_then(|id| replicas.get(&id)).or_else(eldest) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for replica in replicas.values().filter(|replica| replica.replica != measure.replica) {
        let mut differs = |what| {
            found.push(Disagreement { replica: replica.replica, from: measure.replica, what });
        };
        if replica.secret_fingerprint != measure.secret_fingerprint {
            differs(Common::ClusterSecret);
        }
        if replica.pools_fingerprint != measure.pools_fingerprint {
            differs(Common::Pools);
        }
        let ahead_ms = replica.clock_offset_ms().saturating_sub(measure.clock_offset_ms());
        if Duration::from_millis(ahead_ms.unsigned_abs()) > CLOCK_SKEW_MAX {
            differs(Common::Clock { ahead_ms });
        }
    }
    found
}

/// A drained replica leads after all when nobody has led for so long: any other would have
/// taken the free lease by then.
const STAND_IN_AFTER: Duration = Duration::from_millis(900);

/// Who leaves leading to the others, from one look at the store to the next.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    leaderless_since: Option<Timestamp>,
    /// Who was announced last before this did not lead when it should have: it may be dead.
    heard_from: Timestamp,
}

impl Succession {
    /// Takes in who leads, by a reading at the store's time `at`.
    pub fn look(&mut self, leader: Option<ReplicaId>, at: Timestamp) {
        // The store was replaced, and its time with it.
        self.heard_from = if at < self.heard_from { Timestamp::default() } else { self.heard_from };
        if leader.is_some() {
            self.leaderless_since = None;
            return;
        }
        let since = *self.leaderless_since.get_or_insert(at);
        if at.since(since) >= STAND_IN_AFTER {
            self.heard_from = since;
        }
    }

    /// The replicas that leave leading to others: those being drained, as long as another
    /// is there that could.
    #[must_use]
    pub fn not_to_lead(
        &self,
        replicas: &BTreeMap<ReplicaId, ReplicaRecord>,
        operator: &Operator,
    ) -> BTreeSet<ReplicaId> {
        let drained = &operator.draining_replicas;
        let could = |record: &ReplicaRecord| {
            !drained.contains(&record.replica) && record.at >= self.heard_from
        };
        if replicas.values().any(could) { drained.clone() } else { BTreeSet::new() }
    }
}

impl ReplicaRecord {
    /// How far its clock was ahead of the store's when it announced, the way of the
    /// announcement taken off.
    fn clock_offset_ms(&self) -> i64 {
        let ms = |at: Timestamp| i64::try_from(at.0).unwrap_or(i64::MAX);
        ms(self.clock).saturating_sub(ms(self.at))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn replica(n: u128) -> ReplicaRecord {
        ReplicaRecord {
            version: 1,
            replica: ReplicaId(Uuid::from_u128(n)),
            hostname: format!("box-{n}"),
            build: "1".to_owned(),
            advertise: None,
            host: None,
            agent: false,
            started_at: Timestamp(u64::try_from(n).unwrap()),
            clock: Timestamp(1_000_000),
            at: Timestamp(1_000_000),
            secret_fingerprint: Some("a".to_owned()),
            pools_fingerprint: "p".to_owned(),
        }
    }

    fn told(replicas: &[ReplicaRecord], leader: Option<u128>) -> Vec<String> {
        let by_id = replicas.iter().map(|it| (it.replica, it.clone())).collect();
        let leader = leader.map(|n| ReplicaId(Uuid::from_u128(n)));
        let number = |id: ReplicaId| id.0.as_u128();
        disagreements(&by_id, leader)
            .into_iter()
            .map(|it| format!("{} {} {}", number(it.replica), it.what, number(it.from)))
            .collect()
    }

    #[test]
    fn replicas_that_agree_have_no_problem() {
        assert_eq!(told(&[], None), [""; 0]);
        assert_eq!(told(&[replica(1)], None), [""; 0]);
        let mut slow = replica(2);
        slow.clock = Timestamp(1_000_000 - 2_000);
        assert_eq!(told(&[replica(1), slow], Some(1)), [""; 0]);
    }

    #[test]
    fn each_difference_is_told_with_both_names() {
        let mut other = replica(2);
        other.secret_fingerprint = None;
        other.pools_fingerprint = "q".to_owned();
        other.clock = Timestamp(1_000_000 - 3_460);
        let expected = [
            "2 has another cluster secret than 1",
            "2 has other pools than 1",
            "2 has a clock 3.5 s behind that of 1",
        ];
        assert_eq!(told(&[replica(1), other.clone()], None), expected);
        // The leader is the measure, whoever is right.
        let by_leader = told(&[replica(1), other], Some(2));
        assert_eq!(by_leader[2], "1 has a clock 3.5 s ahead of that of 2");
    }

    #[test]
    fn who_is_drained_leaves_leading_to_others_while_there_are_any() {
        let there: BTreeMap<_, _> = [1, 2].map(|n| (replica(n).replica, replica(n))).into();
        let drained = |which: &[u128]| {
            let draining_replicas = which.iter().map(|n| ReplicaId(Uuid::from_u128(*n))).collect();
            let operator = Operator { draining_replicas, ..Operator::default() };
            let leave = Succession::default().not_to_lead(&there, &operator);
            leave.into_iter().map(|id| id.0.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(drained(&[]), [0; 0]);
        assert_eq!(drained(&[2]), [2]);
        assert_eq!(drained(&[1, 2]), [0; 0], "somebody must lead");
        assert_eq!(drained(&[2, 3]), [2, 3]);
        let operator = Operator {
            draining_replicas: [ReplicaId(Uuid::from_u128(1))].into(),
            ..Operator::default()
        };
        let leave = Succession::default().not_to_lead(&BTreeMap::new(), &operator);
        assert!(leave.is_empty(), "nobody else is seen");
    }

    /// Announcements outlive their replica by up to 15 seconds.
    #[test]
    fn a_drained_replica_stands_in_for_others_that_do_not_lead() {
        let (drained, other) = (replica(1), replica(2));
        let operator =
            Operator { draining_replicas: [drained.replica].into(), ..Operator::default() };
        let mut there: BTreeMap<_, _> =
            [drained, other.clone()].map(|record| (record.replica, record)).into();
        let at = |ms: u64| Timestamp(1_000_000 + ms);
        let mut succession = Succession::default();
        let leaves = |it: &Succession, there: &_| !it.not_to_lead(there, &operator).is_empty();
        succession.look(Some(other.replica), at(10));
        assert!(leaves(&succession, &there));
        succession.look(None, at(1_000));
        assert!(leaves(&succession, &there), "the lease may be taken this very moment");
        succession.look(None, at(1_900));
        assert!(!leaves(&succession, &there), "nobody took it");
        succession.look(Some(replica(1).replica), at(2_000));
        assert!(!leaves(&succession, &there), "it leads on");
        there.get_mut(&other.replica).unwrap().at = at(2_100);
        assert!(leaves(&succession, &there), "the other is alive after all");
        // A store whose time begins anew.
        there.get_mut(&other.replica).unwrap().at = Timestamp(5);
        succession.look(Some(other.replica), Timestamp(6));
        assert!(leaves(&succession, &there));
    }

    /// Both announced late, on a store whose clock is a minute off.
    #[test]
    fn the_stores_own_clock_is_no_difference() {
        let (mut one, mut two) = (replica(1), replica(2));
        (one.at, two.at) = (Timestamp(1_060_000), Timestamp(1_065_000));
        two.clock = Timestamp(1_005_100);
        assert_eq!(told(&[one, two], None), [""; 0]);
    }
}
