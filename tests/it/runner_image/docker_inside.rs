//! A job's own Docker: what workflows do with it.

use std::time::Duration;

use futures_util::TryStreamExt;
use runner_orchestrator::docker::{Attached, ContainerState, Docker, RunnerContainer, Swept};
use runner_orchestrator::fleet::id::{PoolName, RepoName};
use runner_orchestrator::fleet::pool::{InnerDocker, Resources, Scope};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::made::{Mode, configuration, image, job, script};
use crate::it::support::engine::{Engine, Names};

/// The workflow takes half a minute on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

/// Each line is said only when what it names has worked.
const WORKFLOW: &str = r#"
docker run --rm tiny bash -c 'echo run works'
mkdir build
printf 'FROM tiny\nRUN ["bash","-c","echo yes > /built"]\nCMD ["cat","/built"]\n' >build/Dockerfile
DOCKER_BUILDKIT=0 docker build --quiet --tag classic build >/dev/null
[ "$(docker run --rm classic)" = yes ] && echo classic build works
DOCKER_BUILDKIT=1 docker build --quiet --tag buildkit build >/dev/null
[ "$(docker run --rm buildkit)" = yes ] && echo BuildKit works
docker network create services >/dev/null
docker run --detach --name database --network services --publish 127.0.0.1:5432:5432 tiny \
  sleep 60 >/dev/null
docker run --rm --network services tiny getent hosts database >/dev/null && echo service works
# The runner mounts it into every job container, by that name.
docker run --rm --volume /var/run/docker.sock:/var/run/docker.sock tiny \
  bash -c '[ -S /var/run/docker.sock ]' && echo socket works
[ -S /var/run/docker.sock ] && echo socket is where tools look
cat >compose.yml <<'END'
services:
  web:
    image: tiny
    command: ["bash", "-c", "getent hosts db >/dev/null && echo compose works"]
    depends_on: [db]
  db:
    image: tiny
    command: ["sleep", "60"]
    stop_grace_period: 0s
END
docker compose --progress quiet up --abort-on-container-exit --exit-code-from web
# What containers leave in the work directory, the runner must be able to remove.
docker run --rm --volume "$PWD:/work" tiny touch /work/left &&
  { rm -f left 2>/dev/null || sudo rm left; } && echo work works
"#;

/// Runs it in a container that is asked for, fed and followed as the orchestrator does it.
async fn workflow_works(docker: InnerDocker) {
    let image = tokio::task::spawn_blocking(image).await.unwrap();
    let engine = Engine::new().await;
    let names = Names::random(&engine.mark);
    let spec = RunnerContainer {
        runner: names.runner,
        name: names.name,
        pool: PoolName::from("default"),
        cluster: engine.mark.clone(),
        host: names.host,
        boot: names.boot,
        term: 1,
        image: image.name.clone(),
        command: None,
        network: "bridge".to_owned(),
        resources: Resources { cpus: Some(2.0), memory_bytes: Some(2 << 30), pids: Some(2048) },
        docker,
        scope: Scope::Repo(RepoName::from("acme/demo")),
        revision: "r1".to_owned(),
        created_at: names.at,
        correlation: "c-1".to_owned(),
    };
    let script = format!("{}{WORKFLOW}", script("inside.sh"));
    let line = configuration(&json!({ "job": script }));
    let id = engine.docker.create(&spec).await.unwrap();
    let Attached { mut stdin, lines } = engine.docker.attach(&id).await.unwrap();
    engine.docker.start(&id).await.unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    stdin.shutdown().await.unwrap();
    let lines = tokio::time::timeout(PATIENCE, lines.try_collect::<Vec<_>>()).await;
    let lines = lines.expect("the job did not end").unwrap();
    let said: Vec<String> = lines.into_iter().map(|line| line.text).collect();
    for what in [
        "run works",
        "classic build works",
        "BuildKit works",
        "service works",
        "socket works",
        "socket is where tools look",
        "compose works",
        "work works",
        "completed with result: Succeeded",
    ] {
        assert!(said.iter().any(|line| line.contains(what)), "{docker:?}: {what:?} in {said:#?}");
    }
    let state = engine.docker.state(&id).await.unwrap();
    assert_eq!(state, Some(ContainerState::Exited { code: 0, oom: false }), "{said:#?}");
    engine.docker.remove(&id).await.unwrap();
    // Its volume, and all that was mounted in it, went with the container.
    assert_eq!(engine.docker.sweep(&engine.mark, &[]).await.unwrap(), Swept::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_containers_services_and_compose_work_without_root() {
    workflow_works(InnerDocker::Rootless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_containers_services_and_compose_work_with_root() {
    workflow_works(InnerDocker::Dind).await;
}

/// It holds no Docker back that it does not need.
#[test]
fn without_an_inner_docker_a_job_runs_all_the_same() {
    let image = image();
    let (code, said) = job(&image, Mode::None, "docker info || echo no docker here");
    assert!(code == Some(0) && said.contains("no docker here"), "{said}");
}

/// One job's files, images and volumes are not there for the next one.
#[test]
fn two_jobs_in_a_row_share_nothing() {
    let image = image();
    let leave = "docker volume create left >/dev/null; touch ~/left /tmp/left; docker import \
                 - left:left </dev/null >/dev/null 2>&1 || true; echo left behind";
    let look = "echo volumes: $(docker volume ls -q | wc -l), images: $(docker images -q | wc -l), \
                files: $(ls ~/left /tmp/left 2>/dev/null | wc -l)";
    assert!(job(&image, Mode::Rootless, leave).1.contains("left behind"));
    let (_, said) = job(&image, Mode::Rootless, look);
    assert!(said.contains("volumes: 0, images: 0, files: 0"), "{said}");
}
