//! What goes wrong: every kind of fault by its name, and how a seed draws one.

use std::time::Duration;

use runner_orchestrator::sim::docker::{Fault as DockerFault, Operation};
use runner_orchestrator::sim::github::Fault as GitHubFault;
use runner_orchestrator::sim::random::Random;

use super::gate::{Moment, Point};
use super::plan::{Layout, one_of};
use super::store::Trouble;

const MINT: &str = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
/// A wall clock that is set wrong is off by so much.
const CLOCK_OFF_MS: i64 = 3_600_000;

/// Whom a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Leader,
    Replica(usize),
    Everybody,
}

/// One thing that goes wrong, from its beginning to its end.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Fault {
    Kill(Who),
    /// Dies in the middle of its next such step.
    DieAt(Who, Point, Moment),
    Pause(Who),
    /// Stopped right before its next such step, and goes on with it long after.
    PauseAt(Who, Point),
    Stop(Who),
    Store(Who, Trouble),
    Flush,
    /// At its end the store is again as it was at its beginning.
    RollBack,
    /// A machine's wall clock is off by so many milliseconds.
    Clock {
        who: Who,
        off_ms: i64,
        reboots: bool,
    },
    Docker(usize, Operation, DockerFault),
    DaemonAway(usize),
    /// A daemon that was away comes back without an idle runner's container.
    Vanish(usize),
    /// A host without network, its runners included.
    HostLost(usize),
    GitHub(GitHubFault),
}

impl Fault {
    /// The name the whole run must have met.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Kill(_) => "fault: a process was killed",
            Self::DieAt(..) => "fault: a process was to die at a chosen step",
            Self::Pause(_) => "fault: a process was stopped past its lease",
            Self::PauseAt(..) => "fault: a process was to be stopped at a chosen step",
            Self::Stop(_) => "fault: a process was told to stop",
            Self::Store(Who::Everybody, _) => "fault: the store was away for everybody",
            Self::Store(_, Trouble::Unreachable) => "fault: store unreachable",
            Self::Store(_, Trouble::BlackHole) => "fault: store requests lost",
            Self::Store(_, Trouble::OneWay) => "fault: store answers lost",
            Self::Store(_, Trouble::Flaky) => "fault: store flaky",
            Self::Store(_, Trouble::Slow) => "fault: store slow",
            Self::Store(_, Trouble::ReadOnly) => "fault: store read-only",
            Self::Flush => "fault: the store was emptied",
            Self::RollBack => "fault: the store went back",
            Self::Clock { reboots: true, .. } => "fault: a machine came up with a wrong clock",
            Self::Clock { off_ms: 0.., .. } => "fault: a clock jumped forwards",
            Self::Clock { .. } => "fault: a clock jumped back",
            Self::Docker(_, _, DockerFault::Refuse { .. }) => "fault: docker refused",
            Self::Docker(_, _, DockerFault::Unreachable) => "fault: docker unreachable",
            Self::Docker(_, _, DockerFault::DropAnswer) => "fault: docker answers lost",
            Self::Docker(_, _, DockerFault::Hang) => "fault: docker hung",
            Self::Vanish(_) => "fault: a container vanished with its daemon away",
            Self::DaemonAway(_) => "fault: a daemon was away",
            Self::HostLost(_) => "fault: a host was lost",
            Self::GitHub(fault) if fault.drop_response => "fault: github answers lost",
            Self::GitHub(fault) if fault.truncate => "fault: github answers cut short",
            Self::GitHub(fault) if fault.stale_seconds.is_some() => "fault: github lists stale",
            Self::GitHub(fault) if fault.latency_ms.is_some() => "fault: github slow",
            Self::GitHub(fault) if fault.status == Some(429) => "fault: github limits",
            Self::GitHub(_) => "fault: github fails",
        }
    }

    /// Every name, for the list of what a whole run must have met.
    pub(super) const NAMES: [&'static str; 30] = [
        "fault: a process was killed",
        "fault: a process was to die at a chosen step",
        "fault: a process was stopped past its lease",
        "fault: a process was to be stopped at a chosen step",
        "fault: a process was told to stop",
        "fault: the store was away for everybody",
        "fault: store unreachable",
        "fault: store requests lost",
        "fault: store answers lost",
        "fault: store flaky",
        "fault: store slow",
        "fault: store read-only",
        "fault: the store was emptied",
        "fault: the store went back",
        "fault: a machine came up with a wrong clock",
        "fault: a clock jumped forwards",
        "fault: a clock jumped back",
        "fault: docker refused",
        "fault: docker unreachable",
        "fault: docker answers lost",
        "fault: docker hung",
        "fault: a daemon was away",
        "fault: a container vanished with its daemon away",
        "fault: a host was lost",
        "fault: github answers lost",
        "fault: github answers cut short",
        "fault: github lists stale",
        "fault: github slow",
        "fault: github limits",
        "fault: github fails",
    ];

    /// A fault of this fleet and how long it lasts.
    pub(super) fn drawn(layout: &Layout, random: &mut Random) -> (Self, Duration) {
        let who = if random.chance(0.5) {
            Who::Leader
        } else {
            Who::Replica(random.below(layout.replicas))
        };
        let daemon = random.below(layout.daemons);
        let mut seconds = |least: u64, most: u64| {
            let span = usize::try_from((most - least) * 1_000).unwrap();
            Duration::from_millis(least * 1_000 + random.below(span) as u64)
        };
        let (short, lease, long) = (seconds(1, 25), seconds(5, 20), seconds(50, 90));
        let lasts = if random.chance(0.2) { long } else { short };
        match random.below(17) {
            0 => (Self::Kill(who), lasts),
            1 | 2 => (Self::DieAt(who, point(random), moment(random)), short),
            3 => (Self::Pause(who), lease),
            4 => (Self::Stop(who), Duration::from_secs(35)),
            5 | 6 => (Self::Store(who, trouble(random)), lasts),
            7 => (Self::Store(Who::Everybody, Trouble::Unreachable), lasts),
            8 => (Self::Flush, Duration::ZERO),
            9 => (Self::RollBack, short),
            10 => {
                let off_ms = one_of(random, &[CLOCK_OFF_MS, -CLOCK_OFF_MS]);
                (Self::Clock { who, off_ms, reboots: random.chance(0.5) }, lasts)
            }
            11 => {
                let (operation, fault) = docker_fault(random);
                (Self::Docker(daemon, operation, fault), Duration::from_secs(20))
            }
            12 => (Self::DaemonAway(daemon), lasts),
            13 => (Self::HostLost(daemon), lasts),
            14 => (Self::Vanish(daemon), short),
            15 => (Self::PauseAt(who, host_step(random)), lease + short),
            _ => (Self::GitHub(github_fault(random)), short),
        }
    }
}

fn point(random: &mut Random) -> Point {
    use Point::{Acquire, Commit, Create, Deregister, Mint, Remove, Report, Start};
    // The leader's write is the step that matters most.
    one_of(random, &[Commit, Commit, Report, Acquire, Create, Start, Remove, Mint, Deregister])
}

/// A step after which another agent may have taken over.
fn host_step(random: &mut Random) -> Point {
    one_of(random, &[Point::Create, Point::Start, Point::Remove])
}

fn moment(random: &mut Random) -> Moment {
    one_of(random, &[Moment::Before, Moment::After])
}

fn trouble(random: &mut Random) -> Trouble {
    use Trouble::{BlackHole, Flaky, OneWay, ReadOnly, Slow, Unreachable};
    one_of(random, &[Unreachable, BlackHole, OneWay, Flaky, Flaky, Slow, ReadOnly])
}

fn docker_fault(random: &mut Random) -> (Operation, DockerFault) {
    use Operation::{Attach, Containers, Create, Events, Network, Remove, Start, State, Stop};
    let operation = one_of(
        random,
        &[Attach, Containers, Create, Create, Events, Network, Remove, Start, Start, State, Stop],
    );
    let refuse = DockerFault::Refuse { status: 500, message: "no".to_owned() };
    let faults = [
        refuse,
        DockerFault::Unreachable,
        DockerFault::DropAnswer,
        DockerFault::DropAnswer,
        DockerFault::Hang,
    ];
    (operation, one_of(random, &faults))
}

fn github_fault(random: &mut Random) -> GitHubFault {
    let any =
        || GitHubFault { route: "*".to_owned(), probability: Some(0.4), ..Default::default() };
    let route = one_of(random, &[MINT, "DELETE *", "GET *"]).to_owned();
    match random.below(6) {
        0 => GitHubFault { status: Some(502), ..any() },
        1 => GitHubFault { status: Some(429), retry_after: Some(8), count: Some(4), ..any() },
        2 => GitHubFault { latency_ms: Some(3_000), ..any() },
        3 => GitHubFault { route: "GET *".to_owned(), stale_seconds: Some(15), ..any() },
        4 => GitHubFault { route, drop_response: true, ..any() },
        _ => GitHubFault { route, truncate: true, ..any() },
    }
}
