//! What only a real engine can show: limits the kernel keeps, packets that do not pass,
//! and that nothing of others is touched.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, NetworkCreateRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, InspectNetworkOptions, RemoveVolumeOptions,
};
use futures_util::StreamExt;
use runner_orchestrator::docker::{
    ContainerEventKind, ContainerState, Docker, Network, Probe, ProbeSpec, RunnerContainer, label,
};
use runner_orchestrator::fleet::id::ContainerId;
use runner_orchestrator::fleet::pool::Resources;
use runner_orchestrator::sim::image::reach::{self, Place, Reach};
use runner_orchestrator::sim::image::{self, ImageSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::conformance::{all_lines, blob, first_line};
use super::on_engine;
use super::programs::Program;
use crate::it::support::engine::Engine;

/// The library itself, to plant and inspect what our edge has no word for.
fn raw() -> bollard::Docker {
    bollard::Docker::connect_with_defaults().unwrap()
}

fn script(text: &str) -> Vec<String> {
    ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn the_blob_is_in_no_inspect_output() {
    let engine = Engine::new().await;
    let subject = on_engine(&engine);
    let (id, mut attached) = subject.started(Program::Keep).await;
    let secret = blob(4_000);
    attached.stdin.write_all(format!("{secret}\n").as_bytes()).await.unwrap();
    assert_eq!(first_line(&mut attached).await, "kept 4001");
    for path in ["json", "top", "changes", "logs?stdout=1&stderr=1"] {
        let shown = get(&format!("/containers/{id}/{path}")).await;
        assert!(shown.starts_with("HTTP/1.0 200"), "{path}: {shown}");
        assert!(!shown.contains(&secret[..32]), "{path}");
    }
}

/// A plain request, so that no field is dropped by anybody's model of the answer.
async fn get(path: &str) -> String {
    let host = std::env::var_os("DOCKER_HOST").map(|host| host.into_string().unwrap());
    let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    let socket = host.strip_prefix("unix://").expect("these tests need the engine's socket");
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_kernel_keeps_the_memory_limit() {
    let engine = Engine::new().await;
    let subject = on_engine(&engine);
    let spec = RunnerContainer {
        command: Some(script("tail /dev/zero; echo survived")),
        resources: Resources { memory_bytes: Some(16 << 20), cpus: Some(0.5), pids: Some(32) },
        ..subject.spec(Program::Drain, "none")
    };
    let mut events = engine.docker.events(&engine.mark).await.unwrap();
    let id = engine.docker.create(&spec).await.unwrap();
    let attached = engine.docker.attach(&id).await.unwrap();
    engine.docker.start(&id).await.unwrap();
    let said = all_lines(attached).await;
    let ContainerState::Exited { oom, .. } = subject.ended(&id).await else { unreachable!() };
    assert!(oom, "{said:?}");
    let mut kinds = Vec::new();
    while !kinds.contains(&ContainerEventKind::Died) {
        kinds.push(events.next().await.unwrap().unwrap().kind);
    }
    assert!(kinds.contains(&ContainerEventKind::OutOfMemory), "{kinds:?}");

    let inspected =
        raw().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let limits = inspected.host_config.unwrap();
    assert_eq!((limits.memory, limits.memory_swap), (Some(16 << 20), Some(16 << 20)));
    assert_eq!((limits.nano_cpus, limits.pids_limit), (Some(500_000_000), Some(32)));
}

#[tokio::test]
async fn anonymous_volumes_go_with_their_container() {
    let engine = Engine::new().await;
    let anonymous = Mount {
        typ: Some(MountType::VOLUME),
        target: Some("/data".to_owned()),
        ..Mount::default()
    };
    let planted = plant_container(&engine, HashMap::new(), Some(anonymous)).await;
    let inspected = raw().inspect_container(&planted, None::<InspectContainerOptions>).await;
    let volume = inspected.unwrap().mounts.unwrap().remove(0).name.unwrap();
    raw().inspect_volume(&volume).await.expect("it is there");
    engine.docker.remove(&ContainerId(planted)).await.unwrap();
    assert!(raw().inspect_volume(&volume).await.is_err(), "{volume} is left");
}

#[tokio::test]
async fn neighbours_on_a_pools_network_cannot_talk() {
    let engine = Engine::new().await;
    let subject = on_engine(&engine);
    let network = engine.docker.ensure_network(&subject.network("default")).await.unwrap();
    let address = serve_in_container(&engine, &network).await;
    // The server is up: the host itself reaches it.
    assert!(tokio::net::TcpStream::connect((address.as_str(), 8080)).await.is_ok());

    let ask = |target: String| {
        let place = place(&engine, &network);
        let docker = engine.docker.clone();
        let connect = "timeout 2 /bin/bash -c \"exec 3<>$0\" && exit; echo \"code $?\"; exit 1";
        let command = ["/bin/sh", "-c", connect];
        async move { reach::probe(&docker, &place, &command, &target).await.unwrap() }
    };
    // Packets are dropped, not refused: the attempt runs into its own limit.
    let neighbour = ask(format!("/dev/tcp/{address}/8080")).await;
    let Reach::Closed(why) = neighbour else { panic!("a neighbour answered") };
    assert!(why.contains("code 143"), "{why}");

    let gateway = network.gateway.clone().unwrap();
    let listener = tokio::net::TcpListener::bind((gateway.as_str(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = axum::serve(listener, axum::Router::new().fallback(|| async { "hello" }));
    tokio::select! {
        answer = ask(format!("/dev/tcp/{gateway}/{port}")) => assert_eq!(answer, Reach::Open),
        ended = served.into_future() => panic!("the server ended: {ended:?}"),
    }
}

async fn serve_in_container(engine: &Engine, network: &Network) -> String {
    let subject = on_engine(engine);
    let spec = RunnerContainer {
        command: Some(script(
            "mkdir /www; echo ready; echo hello >/www/index.html; httpd -f -p 8080 -h /www",
        )),
        ..subject.spec(Program::Drain, &network.name)
    };
    let id = engine.docker.create(&spec).await.unwrap();
    let mut attached = engine.docker.attach(&id).await.unwrap();
    engine.docker.start(&id).await.unwrap();
    assert_eq!(first_line(&mut attached).await, "ready");
    let inspected =
        raw().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    let address = networks[&network.name].ip_address.clone().unwrap();
    for _ in 0..100 {
        if tokio::net::TcpStream::connect((address.as_str(), 8080)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    address
}

fn place(engine: &Engine, network: &Network) -> Place {
    Place {
        cluster: engine.mark.clone(),
        image: engine.image.reference.clone(),
        network: network.name.clone(),
    }
}

#[tokio::test]
async fn a_probe_tells_how_it_ended_and_leaves_nothing() {
    let engine = Engine::new().await;
    let probe = |text: &str, limit: Duration| {
        let spec = ProbeSpec {
            cluster: engine.mark.clone(),
            image: engine.image.reference.clone(),
            command: script(text),
            network: "none".to_owned(),
            limit,
        };
        let docker = engine.docker.clone();
        async move { docker.probe(&spec).await.unwrap() }
    };
    let limit = Duration::from_secs(20);
    assert_eq!(probe("true", limit).await, Probe::Passed);
    let output = "no way".to_owned();
    assert_eq!(probe("echo no way >&2; exit 4", limit).await, Probe::Failed { code: 4, output });
    assert_eq!(probe("sleep 60", Duration::ZERO).await, Probe::Unfinished);
    let swept = engine.docker.forget_cluster(&engine.mark).await.unwrap();
    assert_eq!(swept.containers, 0, "probes are gone already");
}

#[tokio::test]
async fn a_probe_left_by_a_crash_is_swept() {
    let engine = Engine::new().await;
    let mut labels = our_labels(&engine);
    labels.insert(label::ROLE.to_owned(), "probe".to_owned());
    let planted = plant_container(&engine, labels, None).await;
    // Not yet run: perhaps somebody is about to.
    assert_eq!(engine.docker.sweep(&engine.mark, &[]).await.unwrap().containers, 0);
    raw().start_container(&planted, None).await.unwrap();
    on_engine(&engine).ended(&ContainerId(planted)).await;
    assert_eq!(engine.docker.sweep(&engine.mark, &[]).await.unwrap().containers, 1);
}

fn our_labels(engine: &Engine) -> HashMap<String, String> {
    HashMap::from([
        (label::MANAGED_BY.to_owned(), label::MANAGED_BY_VALUE.to_owned()),
        (label::CLUSTER.to_owned(), engine.mark.to_string()),
    ])
}

async fn plant_container(
    engine: &Engine,
    labels: HashMap<String, String>,
    mount: Option<Mount>,
) -> String {
    let body = ContainerCreateBody {
        image: Some(engine.image.reference.clone()),
        cmd: Some(script("true")),
        labels: Some(labels),
        host_config: Some(HostConfig { mounts: mount.map(|m| vec![m]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    raw().create_container(None::<CreateContainerOptions>, body).await.unwrap().id
}

/// Everything that a sweep, or even forgetting the cluster, must leave alone: things with
/// no label, with only one of the two that count, and of another cluster.
#[tokio::test]
async fn what_is_not_ours_is_never_touched() {
    let engine = Engine::new().await;
    let only = |key: &str| {
        let mut labels = our_labels(&engine);
        labels.retain(|label, _| label == key);
        labels
    };
    let mut others = our_labels(&engine);
    others.insert(label::CLUSTER.to_owned(), "ffffff".to_owned());
    let foreign = [HashMap::new(), only(label::MANAGED_BY), only(label::CLUSTER), others];

    let (mut containers, mut volumes, mut networks) = (Vec::new(), Vec::new(), Vec::new());
    for (n, labels) in foreign.into_iter().enumerate() {
        let name = format!("foreign-{}-{n}", engine.mark);
        containers.push(plant_container(&engine, labels.clone(), None).await);
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        volumes.push(raw().create_volume(volume).await.unwrap().name);
        let network =
            NetworkCreateRequest { name, labels: Some(labels), ..NetworkCreateRequest::default() };
        networks.push(raw().create_network(network).await.unwrap().id);
    }
    let own = VolumeCreateRequest {
        name: Some(format!("own-{}", engine.mark)),
        labels: Some(our_labels(&engine)),
        ..Default::default()
    };
    raw().create_volume(own).await.unwrap();

    assert_eq!(engine.docker.containers(&engine.mark).await.unwrap(), []);
    let swept = engine.docker.sweep(&engine.mark, &[]).await.unwrap();
    let forgotten = engine.docker.forget_cluster(&engine.mark).await.unwrap();

    // Taken away first and judged afterwards, so that a failure leaves nothing either.
    let mut survived = BTreeSet::new();
    for (n, id) in containers.iter().enumerate() {
        survived.extend(raw().remove_container(id, None).await.is_ok().then_some(("container", n)));
    }
    for (n, name) in volumes.iter().enumerate() {
        let removed = raw().remove_volume(name, None::<RemoveVolumeOptions>).await;
        survived.extend(removed.is_ok().then_some(("volume", n)));
    }
    for (n, id) in networks.iter().enumerate() {
        survived.extend(raw().remove_network(id).await.is_ok().then_some(("network", n)));
    }
    assert_eq!(survived.len(), 12, "{survived:?}");
    assert_eq!((swept.containers, swept.volumes, swept.networks), (0, 1, 0), "only our own");
    assert_eq!((forgotten.containers, forgotten.volumes, forgotten.networks), (0, 0, 0));
}

/// Two installations that were given the same private range do not fight for it.
#[tokio::test]
async fn a_taken_subnet_is_passed_over() {
    let engine = Engine::new().await;
    let subject = on_engine(&engine);
    let first = engine.docker.ensure_network(&subject.network("default")).await.unwrap();
    let inspected = raw().inspect_network(&first.id, None::<InspectNetworkOptions>).await.unwrap();
    let taken = inspected.ipam.clone().unwrap();
    engine.docker.forget_cluster(&engine.mark).await.unwrap();
    let squatter = NetworkCreateRequest {
        name: format!("squatter-{}", engine.mark),
        labels: Some(our_labels(&engine)),
        ipam: Some(taken),
        ..NetworkCreateRequest::default()
    };
    raw().create_network(squatter).await.unwrap();
    let second = engine.docker.ensure_network(&subject.network("default")).await.unwrap();
    assert_ne!(second.gateway, first.gateway);
    assert_eq!(second.bridge, first.bridge, "the device's name does not depend on the subnet");
}

#[tokio::test]
async fn the_demos_image_runs_our_own_executable() {
    let engine = Engine::new().await;
    let binary = Path::new(env!("CARGO_BIN_EXE_runner-orchestrator"));
    let spec = ImageSpec {
        repository: format!("{}-test-{}", image::REPOSITORY, std::process::id()),
        ..ImageSpec::demo(Some(binary))
    };
    let reference = image::ensure(&engine.docker, &spec).await.unwrap();
    let first = engine.docker.image(&reference).await.unwrap();
    assert_eq!(image::ensure(&engine.docker, &spec).await.unwrap(), reference);
    assert_eq!(engine.docker.image(&reference).await.unwrap(), first, "made once");
    let help = ProbeSpec {
        cluster: engine.mark.clone(),
        image: reference.clone(),
        command: [image::EXECUTABLE, "--help"].map(str::to_owned).to_vec(),
        network: "none".to_owned(),
        limit: Duration::from_secs(20),
    };
    let outcome = engine.docker.probe(&help).await;
    image::remove(&engine.docker, &reference).await.unwrap();
    image::remove(&engine.docker, &reference).await.unwrap();
    assert_eq!(engine.docker.image(&reference).await.unwrap(), None);
    assert_eq!(outcome.unwrap(), Probe::Passed);
}

#[tokio::test]
async fn a_pull_that_fails_says_so() {
    let engine = Engine::new().await;
    let steps = engine.docker.pull("127.0.0.1:1/absent:none").await.unwrap();
    let last = steps.collect::<Vec<_>>().await.pop().unwrap();
    assert!(last.unwrap_err().is_transient());
}

#[tokio::test]
async fn the_daemon_tells_of_itself() {
    let daemon = Engine::new().await.docker.daemon().await.unwrap();
    assert!(daemon.api_version.starts_with("1."), "{daemon:?}");
    assert!(daemon.cpus > 0 && daemon.memory_bytes > 0, "{daemon:?}");
    assert!(!daemon.version.is_empty() && !daemon.storage_driver.is_empty(), "{daemon:?}");
    assert!(["1", "2"].contains(&daemon.cgroup_version.as_str()), "{daemon:?}");
}
