//! What every Docker must do, real or modelled. Each function is one sentence about it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use runner_orchestrator::docker::{
    Attached, ContainerEventKind, ContainerState, Docker, DockerError, LINE_BYTES_MAX, LogLine,
    LogQuery, LogStream, Marker, NetworkSpec, RunnerContainer,
};
use runner_orchestrator::fleet::id::{
    BootId, ClusterMark, ContainerId, HostId, PoolName, RepoName, RunnerId, Term,
};
use runner_orchestrator::fleet::pool::{InnerDocker, Resources, Scope};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::programs::{self, Program};
use crate::it::support::engine::Names;

/// Long enough for the slowest step on a busy machine; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// One implementation under test, and a cluster of its own on it.
pub(crate) struct Subject {
    pub(crate) docker: Arc<dyn Docker>,
    pub(crate) mark: ClusterMark,
    pub(crate) image: String,
}

impl Subject {
    pub(super) fn spec(&self, program: Program, network: &str) -> RunnerContainer {
        let names = Names::random(&self.mark);
        RunnerContainer {
            runner: names.runner,
            name: names.name,
            pool: PoolName::from("default"),
            cluster: self.mark.clone(),
            host: names.host,
            boot: names.boot,
            term: 7,
            image: self.image.clone(),
            command: Some(programs::command(program)),
            network: network.to_owned(),
            resources: Resources::default(),
            docker: InnerDocker::None,
            scope: Scope::Repo(RepoName::from("acme/demo")),
            revision: "r1".to_owned(),
            created_at: names.at,
            correlation: "c-1".to_owned(),
        }
    }

    pub(super) fn network(&self, pool: &str) -> NetworkSpec {
        NetworkSpec::of_pool(self.mark.clone(), PoolName::from(pool), 4)
    }

    async fn create(&self, program: Program) -> ContainerId {
        self.docker.create(&self.spec(program, "none")).await.unwrap()
    }

    pub(super) async fn started(&self, program: Program) -> (ContainerId, Attached) {
        let id = self.create(program).await;
        let attached = self.docker.attach(&id).await.unwrap();
        self.docker.start(&id).await.unwrap();
        (id, attached)
    }

    pub(super) async fn ended(&self, id: &ContainerId) -> ContainerState {
        let wait = async {
            loop {
                match self.docker.state(id).await.unwrap() {
                    Some(state @ ContainerState::Exited { .. }) => return state,
                    Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    None => panic!("{id} vanished"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container did not end")
    }
}

fn exited(code: i64) -> ContainerState {
    ContainerState::Exited { code, oom: false }
}

fn stdout(text: &str) -> LogLine {
    LogLine { stream: LogStream::Stdout, text: text.to_owned() }
}

pub(super) async fn all_lines(attached: Attached) -> Vec<LogLine> {
    // The writer is dropped here and the reader kept: the output must go on.
    let Attached { stdin, lines } = attached;
    drop(stdin);
    tokio::time::timeout(PATIENCE, lines.try_collect()).await.expect("no end").unwrap()
}

pub(super) async fn first_line(attached: &mut Attached) -> String {
    let line = tokio::time::timeout(PATIENCE, attached.lines.next()).await;
    line.expect("no line").expect("no output").unwrap().text
}

/// The whole way of one runner, with a usual and with an oversized blob.
pub(crate) async fn a_runner_is_fed_followed_and_removed(subject: &Subject) {
    for blob_bytes in [4_000, 200_000] {
        whole_way(subject, blob_bytes).await;
    }
}

async fn whole_way(subject: &Subject, blob_bytes: usize) {
    let docker = &subject.docker;
    let spec = subject.spec(Program::Hash, "none");
    let id = docker.create(&spec).await.unwrap();
    assert_eq!(docker.state(&id).await.unwrap(), Some(ContainerState::Created));

    let mut attached = docker.attach(&id).await.unwrap();
    docker.start(&id).await.unwrap();
    assert_eq!(docker.state(&id).await.unwrap(), Some(ContainerState::Running));
    let blob = blob(blob_bytes);
    attached.stdin.write_all(blob.as_bytes()).await.unwrap();
    attached.stdin.write_all(b"\n").await.unwrap();
    attached.stdin.flush().await.unwrap();

    let lines = all_lines(attached).await;
    let digest = Sha256::digest(format!("{blob}\n"));
    let expected = [
        stdout(&format!("{digest:x}  -")),
        LogLine { stream: LogStream::Stderr, text: "hashed".to_owned() },
    ];
    assert_eq!(lines, expected);
    assert_eq!(subject.ended(&id).await, exited(3));

    let listed = docker.containers(&subject.mark).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0].id, listed[0].state), (&id, exited(3)));
    let labels = &listed[0].labels;
    assert_eq!((labels.runner, &labels.name), (spec.runner, &spec.name));
    assert_eq!((&labels.pool, &labels.cluster), (&spec.pool, &spec.cluster));
    assert_eq!((labels.host, labels.boot, labels.term), (spec.host, spec.boot, spec.term));
    assert_eq!((&labels.revision, labels.created_at), (&spec.revision, spec.created_at));
    assert_eq!((&labels.correlation, &labels.scope), (&spec.correlation, &Some(spec.scope)));

    let logged = docker.logs(&id, &LogQuery::default()).await.unwrap();
    assert_eq!(logged.try_collect::<Vec<_>>().await.unwrap(), expected);
    docker.remove(&id).await.unwrap();
    assert_eq!(docker.state(&id).await.unwrap(), None);
    docker.remove(&id).await.unwrap();
    assert_eq!(docker.containers(&subject.mark).await.unwrap(), []);
}

/// A secret in the shape of the real one: one line of base64 letters.
pub(super) fn blob(bytes: usize) -> String {
    Uuid::new_v4().simple().to_string().chars().cycle().take(bytes).collect()
}

/// Stop lets the program end in its own way, kills it after the grace, and can be said twice.
pub(crate) async fn a_stop_is_graceful_bounded_and_repeatable(subject: &Subject) {
    let docker = &subject.docker;
    let (polite, mut attached) = subject.started(Program::EndOnStop).await;
    docker.start(&polite).await.expect("starting twice is no error");
    assert_eq!(first_line(&mut attached).await, "ready");
    docker.stop(&polite, Duration::from_secs(30)).await.unwrap();
    assert_eq!(subject.ended(&polite).await, exited(7));
    docker.stop(&polite, Duration::from_secs(30)).await.unwrap();

    let (stubborn, mut attached) = subject.started(Program::IgnoreStop).await;
    assert_eq!(first_line(&mut attached).await, "ready");
    docker.stop(&stubborn, Duration::from_secs(1)).await.unwrap();
    assert_eq!(subject.ended(&stubborn).await, exited(137));

    let (running, mut attached) = subject.started(Program::IgnoreStop).await;
    assert_eq!(first_line(&mut attached).await, "ready");
    let removals = (0..3).map(|_| docker.remove(&running));
    futures_util::future::try_join_all(removals).await.expect("even running, even thrice");
    docker.stop(&running, Duration::ZERO).await.expect("stopping a removed one is no error");
    assert_eq!(docker.state(&running).await.unwrap(), None);
}

/// When nobody feeds a runner any more, it ends by itself.
pub(crate) async fn a_dropped_writer_ends_the_input(subject: &Subject) {
    let (id, attached) = subject.started(Program::Drain).await;
    assert_eq!(all_lines(attached).await, [stdout("drained")]);
    assert_eq!(subject.ended(&id).await, exited(0));
}

/// The first attach may come after the start.
pub(crate) async fn a_waiting_container_can_be_attached_late(subject: &Subject) {
    let id = subject.create(Program::Drain).await;
    subject.docker.start(&id).await.unwrap();
    let attached = subject.docker.attach(&id).await.unwrap();
    assert_eq!(all_lines(attached).await, [stdout("drained")]);
    assert_eq!(subject.ended(&id).await, exited(0));
}

/// Logs: the last lines, from the start, followed to the end.
pub(crate) async fn logs_are_tailed_and_followed(subject: &Subject) {
    let docker = &subject.docker;
    let (id, mut attached) = subject.started(Program::Talk).await;
    assert_eq!(first_line(&mut attached).await, "line 0");
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let followed = docker.logs(&id, &follow).await.unwrap();
    let followed: Vec<_> =
        tokio::time::timeout(PATIENCE, followed.try_collect()).await.expect("no end").unwrap();
    let expected: Vec<_> =
        (0..programs::TALK_LINES).map(|n| stdout(&format!("line {n}"))).collect();
    assert_eq!(followed, expected);
    subject.ended(&id).await;

    let tail = LogQuery { tail: Some(2), ..LogQuery::default() };
    let tail = docker.logs(&id, &tail).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(tail, expected[expected.len() - 2..]);
    let stamped = LogQuery { tail: Some(1), timestamps: true, ..LogQuery::default() };
    let stamped = docker.logs(&id, &stamped).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    let (time, rest) = stamped[0].text.split_once(' ').unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    assert_eq!(rest, expected[expected.len() - 1].text);
}

/// One endless line costs its bound and no more.
pub(crate) async fn a_flood_without_newline_is_cut(subject: &Subject) {
    let (_, attached) = subject.started(Program::Flood).await;
    let lines = all_lines(attached).await;
    let lengths: Vec<_> = lines.iter().map(|line| line.text.len()).collect();
    assert_eq!(lengths, [LINE_BYTES_MAX, 5]);
}

/// What does not exist is told apart from what fails.
pub(crate) async fn what_is_missing_is_told_by_kind(subject: &Subject) {
    let docker = &subject.docker;
    assert_eq!(docker.image("runner-orchestrator-absent:none").await.unwrap(), None);
    assert!(docker.image(&subject.image).await.unwrap().is_some());
    let absent = RunnerContainer {
        image: "runner-orchestrator-absent:none".to_owned(),
        ..subject.spec(Program::Drain, "none")
    };
    let error = docker.create(&absent).await.unwrap_err();
    assert!(matches!(&error, DockerError::ImageMissing { image } if *image == absent.image));
    assert_eq!(docker.containers(&subject.mark).await.unwrap(), []);

    let spec = subject.spec(Program::Drain, "none");
    docker.create(&spec).await.unwrap();
    let error = docker.create(&spec).await.unwrap_err();
    assert_eq!(error.status(), Some(409), "{error}");
    assert_eq!(docker.containers(&subject.mark).await.unwrap().len(), 1);

    let nobody = ContainerId::from("0123456789abcdef0123456789abcdef");
    assert!(docker.start(&nobody).await.unwrap_err().is_gone());
    assert!(docker.attach(&nobody).await.unwrap_err().is_gone());
    assert_eq!(docker.state(&nobody).await.unwrap(), None);

    let homeless = subject.spec(Program::Drain, "runner-orchestrator-absent");
    let id = docker.create(&homeless).await.unwrap();
    let error = docker.start(&id).await.unwrap_err();
    assert!(matches!(error, DockerError::NetworkMissing { .. }), "{error:?}");
    assert!(!error.is_gone());
}

/// Of many who claim a daemon at once, one gives it its identity and all learn it.
pub(crate) async fn one_identity_wins(subject: &Subject) {
    let docker = &subject.docker;
    let fresh: Vec<HostId> = (0..8).map(|_| HostId(Uuid::new_v4())).collect();
    let claims = fresh.iter().map(|fresh| docker.claim_identity(&subject.mark, *fresh));
    let won = futures_util::future::try_join_all(claims).await.unwrap();
    assert!(fresh.contains(&won[0]));
    assert!(won.iter().all(|host| *host == won[0]), "{won:?}");
    let late = docker.claim_identity(&subject.mark, HostId(Uuid::new_v4())).await.unwrap();
    assert_eq!(late, won[0]);

    let marker = Marker { host: won[0], boot: BootId(Uuid::new_v4()), term: Term(1), beat: 1 };
    docker.write_marker(&subject.mark, &marker).await.unwrap();
    docker.sweep(&subject.mark, &[]).await.unwrap();
    let still = docker.claim_identity(&subject.mark, HostId(Uuid::new_v4())).await.unwrap();
    assert_eq!(still, won[0], "a sweep spares the identity");
    // Identity and the newest marker, and nothing else.
    assert_eq!(docker.forget_cluster(&subject.mark).await.unwrap().volumes, 2);
    let other = HostId(Uuid::new_v4());
    assert_eq!(docker.claim_identity(&subject.mark, other).await.unwrap(), other);
}

/// The last agent that left its marker is the one that is read, under its newest term.
pub(crate) async fn the_newest_marker_stands_until_its_boot_takes_it_away(subject: &Subject) {
    let docker = &subject.docker;
    let (host, elsewhere) = (HostId(Uuid::new_v4()), HostId(Uuid::new_v4()));
    assert_eq!(docker.marker(&subject.mark, host).await.unwrap(), None);
    let boots: Vec<BootId> = (0..2).map(|_| BootId(Uuid::now_v7())).collect();
    // The second agent's term is lower: its store had lost what it knew.
    let markers = [(0, 7, 1), (0, 7, 1), (0, 7, 2), (0, 8, 2), (1, 2, 1)];
    for (boot, term, beat) in markers {
        let marker = Marker { host, boot: boots[boot], term: Term(term), beat };
        docker.write_marker(&subject.mark, &marker).await.unwrap();
        assert_eq!(docker.marker(&subject.mark, host).await.unwrap(), Some(marker));
    }
    assert_eq!(docker.marker(&subject.mark, elsewhere).await.unwrap(), None);
    docker.remove_marker(&subject.mark, boots[0]).await.unwrap();
    let stands = docker.marker(&subject.mark, host).await.unwrap();
    assert_eq!(stands.map(|marker| marker.boot), Some(boots[1]), "another boot's marker stays");
    for _ in 0..2 {
        docker.remove_marker(&subject.mark, boots[1]).await.unwrap();
        assert_eq!(docker.marker(&subject.mark, host).await.unwrap(), None);
    }
}

/// An identity is replaced once: who comes late with the old one learns the new one.
pub(crate) async fn an_identity_is_replaced_only_if_it_is_the_one_meant(subject: &Subject) {
    let docker = &subject.docker;
    let hosts: Vec<HostId> = (0..3).map(|_| HostId(Uuid::new_v4())).collect();
    let mark = &subject.mark;
    assert_eq!(docker.claim_identity(mark, hosts[0]).await.unwrap(), hosts[0]);
    assert_eq!(docker.replace_identity(mark, hosts[0], hosts[1]).await.unwrap(), hosts[1]);
    assert_eq!(docker.replace_identity(mark, hosts[0], hosts[2]).await.unwrap(), hosts[1]);
    assert_eq!(docker.claim_identity(mark, hosts[2]).await.unwrap(), hosts[1]);
    assert_eq!(docker.forget_cluster(mark).await.unwrap().volumes, 1);
    assert_eq!(docker.replace_identity(mark, hosts[1], hosts[2]).await.unwrap(), hosts[2]);
}

/// A pool has one network, whoever asks and how often.
pub(crate) async fn a_network_is_made_once(subject: &Subject) {
    let docker = &subject.docker;
    let spec = subject.network("default");
    let asked = (0..4).map(|_| docker.ensure_network(&spec));
    let networks = futures_util::future::try_join_all(asked).await.unwrap();
    assert!(networks.iter().all(|network| *network == networks[0]), "{networks:?}");
    assert_eq!(docker.ensure_network(&spec).await.unwrap(), networks[0]);
    assert_eq!(networks[0].name, spec.name);
    assert!(networks[0].gateway.is_some());
    assert!(networks[0].bridge.as_ref().is_some_and(|name| name.len() <= 15));

    let second = docker.ensure_network(&subject.network("second")).await.unwrap();
    assert_ne!((&second.id, &second.gateway), (&networks[0].id, &networks[0].gateway));

    // In use by a container that was never started, kept by name, and neither of both.
    docker.create(&subject.spec(Program::Drain, &second.name)).await.unwrap();
    let third = docker.ensure_network(&subject.network("third")).await.unwrap();
    let swept = docker.sweep(&subject.mark, std::slice::from_ref(&spec.name)).await.unwrap();
    assert_eq!((swept.networks, swept.containers), (1, 0), "{swept:?}");
    for kept in ["default", "second"] {
        let again = docker.ensure_network(&subject.network(kept)).await.unwrap();
        assert!([&networks[0], &second].contains(&&again), "{kept}");
    }
    assert_ne!(docker.ensure_network(&subject.network("third")).await.unwrap().id, third.id);
}

/// Starts, ends and removals are told as they happen, of this cluster only.
pub(crate) async fn events_arrive(subject: &Subject, elsewhere: &Subject) {
    let docker = &subject.docker;
    let mut events = docker.events(&subject.mark).await.unwrap();
    let (other, _) = elsewhere.started(Program::Drain).await;
    elsewhere.docker.remove(&other).await.unwrap();
    let spec = subject.spec(Program::Drain, "none");
    let id = docker.create(&spec).await.unwrap();
    let attached = docker.attach(&id).await.unwrap();
    docker.start(&id).await.unwrap();
    all_lines(attached).await;
    subject.ended(&id).await;
    docker.remove(&id).await.unwrap();

    let expected: [(ContainerEventKind, Option<RunnerId>); 3] = [
        (ContainerEventKind::Started, Some(spec.runner)),
        (ContainerEventKind::Died, Some(spec.runner)),
        (ContainerEventKind::Removed, Some(spec.runner)),
    ];
    for (kind, runner) in expected {
        let event = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = event.expect("no event").expect("the stream ended").unwrap();
        assert_eq!((event.kind, event.runner, &event.container), (kind, runner, &id));
        let code = (kind == ContainerEventKind::Died).then_some(0);
        assert_eq!(event.exit_code, code);
    }
}

/// What runs is found again by the next boot, its output readable from the start.
pub(crate) async fn a_running_container_is_adopted(subject: &Subject, next: &dyn Docker) {
    let spec = subject.spec(Program::EndOnStop, "none");
    let id = subject.docker.create(&spec).await.unwrap();
    let mut attached = subject.docker.attach(&id).await.unwrap();
    subject.docker.start(&id).await.unwrap();
    assert_eq!(first_line(&mut attached).await, "ready");
    drop(attached);

    let found = next.containers(&subject.mark).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].labels.runner, found[0].state), (spec.runner, ContainerState::Running));
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let mut log = next.logs(&found[0].id, &follow).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap().text, "ready");
    next.stop(&found[0].id, Duration::from_secs(30)).await.unwrap();
    let rest: Vec<_> = log.try_collect().await.unwrap();
    assert_eq!(rest, [stdout("stopping")]);
}

/// Forgetting takes all of one cluster and nothing of another.
pub(crate) async fn forgetting_is_complete_and_narrow(subject: &Subject, elsewhere: &Subject) {
    let mut left = Vec::new();
    for side in [subject, elsewhere] {
        let host = HostId(Uuid::new_v4());
        side.docker.claim_identity(&side.mark, host).await.unwrap();
        let network = side.docker.ensure_network(&side.network("default")).await.unwrap();
        let id = side.docker.create(&side.spec(Program::IgnoreStop, &network.name)).await.unwrap();
        side.docker.start(&id).await.unwrap();
        left.push((host, network, id));
    }
    let swept = subject.docker.forget_cluster(&subject.mark).await.unwrap();
    assert_eq!((swept.containers, swept.volumes, swept.networks), (1, 1, 1), "{swept:?}");
    assert_eq!(subject.docker.containers(&subject.mark).await.unwrap(), []);
    let again = subject.docker.forget_cluster(&subject.mark).await.unwrap();
    assert_eq!((again.containers, again.volumes, again.networks), (0, 0, 0));

    let (host, network, id) = left.pop().unwrap();
    assert_eq!(elsewhere.docker.state(&id).await.unwrap(), Some(ContainerState::Running));
    let same = elsewhere.docker.ensure_network(&elsewhere.network("default")).await.unwrap();
    assert_eq!(same, network);
    let fresh = HostId(Uuid::new_v4());
    assert_eq!(elsewhere.docker.claim_identity(&elsewhere.mark, fresh).await.unwrap(), host);
    elsewhere.docker.forget_cluster(&elsewhere.mark).await.unwrap();
}
