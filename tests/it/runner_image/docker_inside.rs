//! A job's own Docker: what workflows do with it.

use runner_orchestrator::fleet::pool::InnerDocker;

use super::made::script;
use super::runner::job;

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
docker run --rm --volume "$PWD:/files" tiny touch /files/left &&
  { rm -f left 2>/dev/null || sudo rm left; } && echo work works
"#;

async fn workflow_works(docker: InnerDocker) {
    let said = job(docker, &format!("{}{WORKFLOW}", script("inside.sh"))).await;
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
        assert!(said.contains(what), "{docker:?}: {what:?} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_containers_services_and_compose_work_without_root() {
    workflow_works(InnerDocker::Rootless).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_containers_services_and_compose_work_with_root() {
    workflow_works(InnerDocker::Dind).await;
}

/// The default, in which the image is told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_inner_docker_a_job_runs_all_the_same() {
    let said = job(InnerDocker::None, "docker info || echo no docker here; sudo id -u").await;
    assert!(said.lines().any(|line| line == "no docker here"), "{said}");
    assert!(said.lines().any(|line| line == "0"), "{said}");
}

/// One job's files, images and volumes are not there for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_in_a_row_share_nothing() {
    let count = "echo volumes: $(docker volume ls -q | wc -l), images: $(docker images -q | wc \
                 -l), files: $(ls ~/left /tmp/left 2>/dev/null | wc -l)";
    let leave = "docker volume create left >/dev/null; touch ~/left /tmp/left\n";
    let one = job(InnerDocker::Rootless, &[&script("inside.sh"), leave, count].concat()).await;
    assert!(one.contains("volumes: 1, images: 1, files: 2"), "{one}");
    let next = job(InnerDocker::Rootless, count).await;
    assert!(next.contains("volumes: 0, images: 0, files: 0"), "{next}");
}
