//! Values the properties are tried with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use runner_orchestrator::fleet::converge::{Agent, Stopping};
use runner_orchestrator::fleet::demand::WaitingJob;
use runner_orchestrator::fleet::host::{Assigned, Capacity};
use runner_orchestrator::fleet::id::{
    BootId, HostId, JobId, PoolName, RepoName, RunnerId, RunnerName,
};
use runner_orchestrator::fleet::pool::Labels;
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::{Failure, RunnerPhase, Seen};
use runner_orchestrator::fleet::time::Timestamp;
use uuid::Uuid;

pub(crate) fn base() -> Timestamp {
    Timestamp(1_800_000_000_000)
}

/// A reading of one of two repositories. Equal instants say the same, as one answer does.
pub(crate) fn reading() -> impl Strategy<Value = (RepoName, Timestamp, Vec<WaitingJob>)> {
    (0..2_u64, 0..60_u64, any::<u16>()).prop_map(|(repo, at, bits)| {
        let evidence = base() + Duration::from_secs(at);
        let name = RepoName(format!("acme/{repo}"));
        let bits = u64::from(bits).wrapping_mul(0x9e37_79b9 ^ at);
        let jobs = (0..8).filter(|n| bits >> n & 1 == 1).map(|n| WaitingJob {
            id: JobId(repo * 100 + n),
            repo: name.clone(),
            labels: Labels::from_iter(["a"]),
            queued_at: base(),
            name: String::new(),
            evidence,
        });
        let jobs = jobs.collect();
        (name, evidence, jobs)
    })
}

pub(crate) fn shuffled<T: Clone>(list: &[T], seed: u64) -> Vec<T> {
    let mut left = list.to_vec();
    let mut shuffled = Vec::new();
    let mut state = seed;
    while !left.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let index = usize::try_from(state >> 33).unwrap_or(0) % left.len();
        shuffled.push(left.swap_remove(index));
    }
    shuffled
}

pub(crate) fn sight() -> impl Strategy<Value = Seen> {
    let lost = || Reason::NeverStarted;
    prop_oneof![
        Just(Seen::Accepted),
        Just(Seen::Created),
        Just(Seen::Started),
        Just(Seen::Handed),
        Just(Seen::ListeningLine),
        Just(Seen::JobLine),
        Just(Seen::Exited { code: 0, oom: false }),
        Just(Seen::Failed(Failure::Start { message: String::new() })),
        Just(Seen::Removed(lost())),
        Just(Seen::Lost(lost())),
    ]
}

pub(crate) fn rank(phase: &RunnerPhase) -> u8 {
    match phase {
        RunnerPhase::Assigned { .. } => 0,
        RunnerPhase::Accepted { .. } => 1,
        RunnerPhase::Created { .. } => 2,
        RunnerPhase::Started { .. } => 3,
        RunnerPhase::Handed { .. } | RunnerPhase::Unknown { .. } => 4,
        RunnerPhase::Listening { .. } => 5,
        RunnerPhase::Running { .. } => 6,
        RunnerPhase::Ended { .. }
        | RunnerPhase::Failed { .. }
        | RunnerPhase::Retired { .. }
        | RunnerPhase::Lost { .. } => 7,
    }
}

pub(crate) fn agent(room: u32, stopping: u8, spent: &BTreeSet<u128>) -> Agent {
    Agent {
        host: HostId(Uuid::from_u128(1)),
        boot: BootId(Uuid::from_u128(1)),
        max_runners: room,
        pools: BTreeMap::from([(PoolName::from("a"), "image".to_owned())]),
        images: BTreeSet::from(["image".to_owned()]),
        docker_up: true,
        capacity: Capacity::default(),
        stopping: [Stopping::No, Stopping::Drain, Stopping::Detach][usize::from(stopping)],
        local: BTreeMap::new(),
        refused: BTreeMap::new(),
        spent: spent.iter().map(|id| RunnerId(Uuid::from_u128(*id))).collect(),
        discarding: BTreeMap::new(),
    }
}

pub(crate) fn assigned(id: u128, boot: BootId, at: Timestamp) -> Assigned {
    Assigned {
        id: RunnerId(Uuid::from_u128(id)),
        name: RunnerName(format!("orchestrated-abcdef-00000001-{id:012x}")),
        pool: "a".into(),
        boot,
        revision: String::new(),
        at,
        reason: Reason::BelowMinimum { have: 0, min: 1 },
        correlation: String::new(),
    }
}
