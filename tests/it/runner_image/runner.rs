//! A runner of the image, asked for, fed and followed as the orchestrator does it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use runner_orchestrator::docker::{
    Attached, ContainerState, Docker, DockerError, LogLine, RunnerContainer, Swept,
};
use runner_orchestrator::fleet::id::{ContainerId, PoolName, RepoName};
use runner_orchestrator::fleet::pool::{InnerDocker, Resources, Scope};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::made::{Image, configuration, image};
use crate::it::support::engine::{Engine, Names};

/// The longest job takes half a minute on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) struct Runner {
    pub(super) id: ContainerId,
    pub(super) image: Arc<Image>,
    engine: Engine,
    lines: BoxStream<'static, Result<LogLine, DockerError>>,
}

impl Runner {
    /// Starts one whose job is this script.
    pub(super) async fn start(docker: InnerDocker, job: &str) -> Self {
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
        let line = configuration(&json!({ "job": job }));
        let id = engine.docker.create(&spec).await.unwrap();
        let Attached { mut stdin, lines } = engine.docker.attach(&id).await.unwrap();
        engine.docker.start(&id).await.unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        Self { id, image, engine, lines }
    }

    /// Waits until it says this line.
    pub(super) async fn says(&mut self, line: &str) {
        let wait = async {
            while let Some(said) = self.lines.next().await {
                if said.unwrap().text == line {
                    return;
                }
            }
            panic!("it ended without {line:?}");
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it did not say it");
    }

    /// Waits for its end and removes it: all that it said. A job must have run, and nothing
    /// of it be left.
    pub(super) async fn end(self) -> String {
        let lines = tokio::time::timeout(PATIENCE, self.lines.try_collect::<Vec<_>>()).await;
        let lines = lines.expect("the job did not end").unwrap();
        let said: Vec<String> = lines.into_iter().map(|line| line.text).collect();
        let said = said.join("\n");
        let docker = &self.engine.docker;
        let state = docker.state(&self.id).await.unwrap();
        assert_eq!(state, Some(ContainerState::Exited { code: 0, oom: false }), "{said}");
        docker.remove(&self.id).await.unwrap();
        // Its volume, and all that was mounted in it, went with the container.
        assert_eq!(docker.sweep(&self.engine.mark, &[]).await.unwrap(), Swept::default());
        said
    }
}

/// Runs one job to its end: all that was said.
pub(super) async fn job(docker: InnerDocker, script: &str) -> String {
    Runner::start(docker, script).await.end().await
}
