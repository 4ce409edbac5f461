//! What is done to the cluster. Each fault ends what it began before it returns, so that
//! the last word is always a whole cluster; `Everything` is several at a time.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use runner_orchestrator::sim::random::Random;

use super::world::{REPLICAS, World};
use crate::it::support::stall_proxy::Direction;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    KillLeader,
    KillFollower,
    PauseLeader,
    PauseFollower,
    /// A rolling update: asked to end, and started again.
    RollLeader,
    KillDaemon,
    CutHost,
    /// It comes back with what it had written to its file.
    RestartRedis,
    /// It comes back empty, as one without a file does.
    LoseRedis,
    FlushRedis,
    PauseRedis,
    StallLeader,
    LoseAnswers,
    LoseRequests,
    GitHubFails,
    GitHubLimits,
    GitHubSlow,
    /// More jobs than all hosts have room for.
    FullHosts,
    Everything,
}

impl Fault {
    pub(super) const ALL: [Self; 19] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::PauseLeader,
        Self::PauseFollower,
        Self::RollLeader,
        Self::KillDaemon,
        Self::CutHost,
        Self::RestartRedis,
        Self::LoseRedis,
        Self::FlushRedis,
        Self::PauseRedis,
        Self::StallLeader,
        Self::LoseAnswers,
        Self::LoseRequests,
        Self::GitHubFails,
        Self::GitHubLimits,
        Self::GitHubSlow,
        Self::FullHosts,
        Self::Everything,
    ];

    pub(super) async fn strike(self, world: &mut World, random: &mut Random) {
        world.struck(self);
        match self {
            Self::KillLeader => kill_leader(world).await,
            Self::KillFollower => {
                let (_, other) = world.leader_and_other(random).await;
                world.kill(other).await;
                sleep(Duration::from_secs(2)).await;
                world.start(other).await;
            }
            Self::PauseLeader => {
                let leader = world.leader().await;
                pause(world, leader, true).await;
            }
            Self::PauseFollower => {
                let (_, other) = world.leader_and_other(random).await;
                pause(world, other, false).await;
            }
            Self::RollLeader => {
                let leader = world.leader().await;
                world.stop(leader).await;
                world.take_over(leader, "graceful").await;
                world.start(leader).await;
            }
            Self::KillDaemon => {
                let host = random.below(REPLICAS);
                world.hosts.with(move |hosts| hosts.kill_daemon(host)).await.unwrap();
                sleep(Duration::from_secs(1)).await;
                let revived = world.hosts.with(move |hosts| hosts.revive_daemon(host)).await;
                revived.unwrap().unwrap();
            }
            Self::CutHost => {
                let host = random.below(REPLICAS);
                world.hosts.with(move |hosts| hosts.cut(host)).await.unwrap().unwrap();
                sleep(Duration::from_secs(6)).await;
                world.hosts.with(move |hosts| hosts.mend(host)).await.unwrap().unwrap();
            }
            Self::RestartRedis | Self::LoseRedis | Self::FlushRedis | Self::PauseRedis => {
                redis(self, world).await;
            }
            Self::StallLeader | Self::LoseAnswers | Self::LoseRequests => {
                stall(self, world, random).await;
            }
            Self::GitHubFails | Self::GitHubLimits | Self::GitHubSlow => github(self, world).await,
            Self::FullHosts => {
                world.queue(&[3; 4 * REPLICAS]).await;
                sleep(Duration::from_secs(3)).await;
            }
            Self::Everything => everything(world, random).await,
        }
    }
}

async fn kill_leader(world: &mut World) {
    let leader = world.leader().await;
    world.kill(leader).await;
    world.take_over(leader, "kill -9").await;
    world.start(leader).await;
}

/// Longer than the lease holds: the leader wakes up deposed.
async fn pause(world: &mut World, replica: usize, leads: bool) {
    world.signal(replica, Signal::STOP);
    if leads {
        world.take_over(replica, "pause").await;
    } else {
        sleep(Duration::from_secs(4)).await;
    }
    world.signal(replica, Signal::CONT);
}

async fn redis(fault: Fault, world: &mut World) {
    match fault {
        Fault::RestartRedis | Fault::LoseRedis => {
            tokio::task::block_in_place(|| world.redis.kill());
            if fault == Fault::LoseRedis {
                world.redis.lose_data();
            }
            sleep(Duration::from_secs(2)).await;
            tokio::task::block_in_place(|| world.redis.launch()).unwrap();
        }
        Fault::FlushRedis => {
            tokio::task::block_in_place(|| world.redis.command(&["FLUSHALL"])).unwrap();
        }
        _ => {
            let pause = ["CLIENT", "PAUSE", "4000", "ALL"];
            tokio::task::block_in_place(|| world.redis.command(&pause)).unwrap();
            sleep(Duration::from_secs(4)).await;
        }
    }
    sleep(Duration::from_secs(2)).await;
}

async fn stall(fault: Fault, world: &mut World, random: &mut Random) {
    let (leader, other) = world.leader_and_other(random).await;
    let replica = if fault == Fault::LoseRequests { other } else { leader };
    let line = &world.lines[replica];
    match fault {
        Fault::StallLeader => line.stall_all(),
        // Redis gets what is asked and does it; nobody hears of it.
        Fault::LoseAnswers => line.stall(Direction::ToClient),
        _ => line.stall(Direction::ToServer),
    }
    if replica == leader {
        world.take_over(replica, "cut off").await;
    } else {
        sleep(Duration::from_secs(6)).await;
    }
    world.lines[replica].resume_all();
}

async fn github(fault: Fault, world: &mut World) {
    let body = match fault {
        Fault::GitHubFails => json!({"route": "*", "status": 502, "probability": 0.5}),
        Fault::GitHubLimits => {
            json!({"route": "POST *", "status": 429, "retry_after": 2, "count": 3})
        }
        _ => json!({"route": "*", "latency_ms": 1500, "probability": 0.5}),
    };
    world.github.post("faults", &body).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    world.github.clear_faults().await.unwrap();
}

/// A leader dies while its successor's Redis is emptied, another host is off the network,
/// a daemon is killed and GitHub fails every fourth call.
async fn everything(world: &mut World, random: &mut Random) {
    let fails = json!({"route": "*", "status": 503, "probability": 0.25});
    world.github.post("faults", &fails).await.unwrap();
    let (leader, other) = world.leader_and_other(random).await;
    world.hosts.with(move |hosts| hosts.cut(other)).await.unwrap().unwrap();
    world.kill(leader).await;
    world.hosts.with(move |hosts| hosts.kill_daemon(leader)).await.unwrap();
    tokio::task::block_in_place(|| world.redis.command(&["FLUSHALL"])).unwrap();
    sleep(Duration::from_secs(3)).await;
    world.hosts.with(move |hosts| hosts.mend(other)).await.unwrap().unwrap();
    let revived = world.hosts.with(move |hosts| hosts.revive_daemon(leader)).await;
    revived.unwrap().unwrap();
    world.start(leader).await;
    world.github.clear_faults().await.unwrap();
}
