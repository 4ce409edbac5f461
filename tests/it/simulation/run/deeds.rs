//! What happens in a run: work, an operator's requests, faults that begin and end.

use runner_orchestrator::docker::{ContainerState, RunnerContainer};
use runner_orchestrator::fleet::id::IntentId;
use runner_orchestrator::fleet::intent::{Intent, Wish};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::github::NewJobs;
use runner_orchestrator::store::Store;

use super::super::clock::EPOCH_MS;
use super::super::fault::{Fault, Who};
use super::super::plan::{Deed, Request};
use super::super::store::Trouble;
use super::super::world::{REPO, mark};
use super::Run;

/// How often one Docker call of a kind fails.
const DOCKER_TIMES: u32 = 3;

impl Run {
    pub(super) async fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Jobs(pool, durations) => self.post(pool, durations),
            Deed::Ask(request) => self.ask(request).await,
            Deed::Begin(index) => self.begin(index).await,
            Deed::End(index) => self.end(index).await,
        }
    }

    fn post(&self, pool: usize, durations: Vec<f64>) {
        let labels = self.world.layout.pools[pool].labels.iter().map(str::to_owned).collect();
        self.world.witness.note(format_args!("github: {} jobs", durations.len()));
        let jobs = NewJobs {
            count: durations.len(),
            labels,
            durations,
            repo: Some(REPO.to_owned()),
            ..NewJobs::default()
        };
        self.world.github.post_jobs(&jobs).unwrap();
    }

    async fn ask(&mut self, request: Request) {
        let name = |pool: usize| self.world.layout.pools[pool].name.clone();
        let host = |daemon: usize| self.world.witness.host_of(daemon);
        let process = |index: usize| self.world.process(index);
        let living = || {
            let daemons = 0..self.world.daemons.len();
            daemons.flat_map(|daemon| self.world.living(daemon)).map(|spec| spec.runner)
        };
        let wish = match request {
            Request::ScaleUp(pool, count) => Some(Wish::ScaleUp { pool: name(pool), count }),
            Request::ScaleDown(pool, count) => Some(Wish::ScaleDown { pool: name(pool), count }),
            Request::Pause(pool) => Some(Wish::Pause { pool: name(pool) }),
            Request::Resume(pool) => Some(Wish::Resume { pool: name(pool) }),
            Request::Drain(daemon) => host(daemon).map(|host| Wish::Drain { host }),
            Request::Undrain(daemon) => host(daemon).map(|host| Wish::Undrain { host }),
            Request::DrainReplica(index) => {
                if self.world.leader() == Some(index) {
                    self.world.witness.reached("the leader was drained");
                }
                process(index).map(|replica| Wish::DrainReplica { replica })
            }
            Request::UndrainReplica(index) => {
                process(index).map(|replica| Wish::UndrainReplica { replica })
            }
            Request::Freeze => Some(Wish::Freeze),
            Request::Unfreeze => Some(Wish::Unfreeze),
            Request::Delete(n, force) => {
                living().nth(n).map(|runner| Wish::Delete { runner, force })
            }
            Request::DeleteAgain => {
                self.deleted.take().map(|(runner, force)| Wish::Delete { runner, force })
            }
        };
        if let Some(Wish::Delete { runner, force }) = wish
            && request != Request::DeleteAgain
        {
            self.deleted = Some((runner, force));
        }
        if let Some(wish) = wish {
            self.world.witness.note(format_args!("operator: {wish:?}"));
            self.record(wish).await;
        }
    }

    async fn record(&mut self, wish: Wish) {
        self.asked += 1;
        let at = Timestamp(EPOCH_MS) + self.began.elapsed();
        let id = IntentId(uuid::Uuid::from_u128(0x0A5C_ED00 + self.asked));
        self.world.witness.asked(id, &wish);
        // A full list of intents is an answer like another: the operator asks again.
        let _ = self.world.store.record(Intent { id, at, wish }).await;
    }

    /// The operator takes back what still holds the fleet.
    pub(super) async fn undo_requests(&mut self) {
        let Ok(snapshot) = self.world.store.snapshot().await else { return };
        if !snapshot.intents.is_empty() {
            return;
        }
        let mut wishes: Vec<Wish> = Vec::new();
        wishes.extend(snapshot.operator.frozen_since.map(|_| Wish::Unfreeze));
        wishes.extend(snapshot.operator.paused.into_iter().map(|pool| Wish::Resume { pool }));
        wishes.extend(snapshot.operator.draining.into_iter().map(|host| Wish::Undrain { host }));
        let drained = snapshot.operator.draining_replicas.into_iter();
        wishes.extend(drained.map(|replica| Wish::UndrainReplica { replica }));
        for wish in wishes {
            self.record(wish).await;
        }
    }

    fn resolve(&self, who: Who) -> usize {
        match who {
            Who::Leader => self.world.leader().unwrap_or(0),
            Who::Replica(index) => index,
            Who::Everybody => 0,
        }
    }

    async fn begin(&mut self, index: usize) {
        let fault = self.script.faults[index].clone();
        let world = &mut self.world;
        world.witness.note(format_args!("world: {fault:?}"));
        world.witness.reached(fault.name());
        match fault {
            Fault::Kill(who)
            | Fault::DieAt(who, ..)
            | Fault::Pause(who)
            | Fault::PauseAt(who, _)
            | Fault::Stop(who) => {
                let replica = self.resolve(who);
                self.struck.insert(index, replica);
                if self.world.leader() == Some(replica) {
                    self.world.witness.reached("a process fault struck the leader");
                }
                self.strike(&fault, replica);
            }
            Fault::Store(Who::Everybody, trouble) => {
                world.witness.outage(true);
                for replica in &world.replicas {
                    replica.link.set(Some(trouble));
                }
            }
            Fault::Store(who, trouble) => {
                let replica = self.resolve(who);
                self.struck.insert(index, replica);
                self.world.replicas[replica].link.set(Some(trouble));
            }
            Fault::Flush => {
                world.store.flush();
                world.witness.emptied();
                self.invariants.emptied();
            }
            Fault::RollBack => {
                self.saved.insert(index, world.store.save());
            }
            Fault::Clock { who, off_ms, reboots } => {
                let replica = self.resolve(who);
                self.struck.insert(index, replica);
                self.world.set_clock(replica, off_ms);
                if reboots {
                    self.world.kill(replica);
                    self.world.start(replica);
                }
            }
            Fault::Docker(daemon, operation, fault) => {
                world.daemons[daemon].fail(operation, fault, DOCKER_TIMES);
                self.invariants.shown.daemon_fails(daemon, true);
            }
            Fault::DaemonAway(daemon) | Fault::Vanish(daemon) => {
                world.daemons[daemon].set_reachable(false);
                self.invariants.shown.daemon_fails(daemon, true);
                if matches!(fault, Fault::Vanish(_)) {
                    self.remove_by_hand(daemon).await;
                }
            }
            Fault::HostLost(daemon) => {
                world.uplinks[daemon].set(false);
                self.invariants.cut_off(&self.world, daemon);
                for replica in &self.world.replicas {
                    if replica.daemon == daemon {
                        replica.link.set(Some(Trouble::BlackHole));
                    }
                }
            }
            Fault::GitHub(fault) => world.github.add_fault(fault).unwrap(),
        }
    }

    async fn remove_by_hand(&self, daemon: usize) {
        let (docker, witness) = (&self.world.daemons[daemon], &self.world.witness);
        let idle = |spec: &RunnerContainer| !self.world.github.runs_job(spec.name.as_str());
        let mut idle = docker.inventory().into_iter().filter(|(_, spec, state)| {
            *state == ContainerState::Running && spec.cluster == *mark() && idle(spec)
        });
        if let Some((id, spec, _)) = idle.next() {
            // A job that reaches it in this very moment is lost by that hand.
            witness.ended_by_force(&spec.name, false);
            docker.lose(&id).await;
        }
    }

    /// Something befalls one process.
    fn strike(&mut self, fault: &Fault, replica: usize) {
        let life = self.world.replicas[replica].life.as_ref();
        match fault {
            Fault::Kill(_) => self.world.kill(replica),
            Fault::Stop(_) => self.world.stop(replica),
            Fault::Pause(_) => {
                if let Some(life) = life {
                    life.gate.stop();
                }
            }
            Fault::PauseAt(_, point) => {
                if let Some(life) = life {
                    life.gate.stop_at(*point);
                }
            }
            Fault::DieAt(_, point, moment) => {
                if let Some(life) = life {
                    life.gate.die_at(*point, *moment);
                }
            }
            _ => (),
        }
    }

    async fn end(&mut self, index: usize) {
        let fault = self.script.faults[index].clone();
        let struck = self.struck.get(&index).copied();
        self.world.witness.note(format_args!("world: over: {fault:?}"));
        let world = &mut self.world;
        match fault {
            Fault::Kill(_) | Fault::DieAt(..) | Fault::Stop(_) => {
                if let Some(replica) = struck {
                    world.start(replica);
                }
            }
            Fault::Pause(_) | Fault::PauseAt(..) => {
                if let Some(replica) = struck {
                    world.go_on(replica);
                    // It has slept through what its daemon told.
                    self.invariants.shown.daemon_fails(world.replicas[replica].daemon, false);
                }
            }
            Fault::Store(Who::Everybody, _) => {
                world.witness.outage(false);
                for replica in &world.replicas {
                    replica.link.set(None);
                }
            }
            Fault::Store(..) => {
                if let Some(replica) = struck {
                    world.replicas[replica].link.set(None);
                }
            }
            Fault::Flush => (),
            Fault::RollBack => {
                if let Some(saved) = self.saved.remove(&index) {
                    self.world.store.roll_back(saved);
                    self.world.witness.went_back(&self.world.store.snapshot().await.unwrap());
                    self.invariants.emptied();
                }
            }
            Fault::Clock { .. } => {
                if let Some(replica) = struck {
                    world.set_clock(replica, 0);
                }
            }
            Fault::Docker(daemon, ..) => {
                world.daemons[daemon].clear_faults();
                self.invariants.shown.daemon_fails(daemon, false);
            }
            Fault::DaemonAway(daemon) | Fault::Vanish(daemon) => {
                world.daemons[daemon].set_reachable(true);
                self.invariants.shown.daemon_fails(daemon, false);
            }
            Fault::HostLost(daemon) => {
                world.uplinks[daemon].set(true);
                for replica in world.replicas.iter().filter(|r| r.daemon == daemon) {
                    replica.link.set(None);
                }
            }
            Fault::GitHub(_) => world.github.clear_faults(),
        }
    }
}
