//! From a runner's description to the request that creates its container. Pure; whatever
//! stands here is shown by `docker inspect`, so nothing secret may.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum,
};

use super::{RunnerContainer, labels};
use crate::fleet::pool::Resources;

/// The runner gets up to 30 s to cancel its job when told to stop; ten more to say so.
pub(super) const STOP_LIMIT_SECONDS: i64 = 40;

/// A job's output is kept by GitHub. Three files of 10 MB bound what a log flood can
/// take of the host's disk.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "3";

/// The body of the create request.
pub(super) fn create_body(spec: &RunnerContainer) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.command.clone(),
        labels: Some(labels::encode(spec)),
        // The JIT configuration comes over standard input: it is in no argument, variable
        // or file of the container's description. One writer, then the end of the file.
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        stop_timeout: Some(STOP_LIMIT_SECONDS),
        host_config: Some(host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &RunnerContainer) -> HostConfig {
    let limited = limits(&spec.resources);
    HostConfig {
        // An init process reaps what jobs leave behind and passes signals on.
        init: Some(true),
        // A runner takes one job: started again, it would only fail. And its exit code
        // and log are read before it is removed, so Docker must not remove it.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_FILE_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        network_mode: Some(spec.network.clone()),
        ..limited
    }
}

fn limits(resources: &Resources) -> HostConfig {
    let memory = resources.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    HostConfig {
        memory,
        // Equal to the memory limit: no swap on top of it.
        memory_swap: memory,
        nano_cpus: resources.cpus.map(nano_cpus),
        pids_limit: resources.pids.map(i64::from),
        ..HostConfig::default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates, and no host has 9e9 cpus"
)]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

/// A description with every field set, for tests of what is made from it.
#[cfg(test)]
pub(super) fn sample() -> RunnerContainer {
    use crate::fleet::id::{BootId, ClusterMark, HostId, PoolName, RepoName, RunnerId, RunnerName};
    use crate::fleet::pool::Scope;
    use crate::fleet::time::Timestamp;
    use uuid::Uuid;

    let cluster = ClusterMark::derive("sample");
    let host = HostId(Uuid::from_u128(0xabcd << 112));
    let runner = RunnerId(Uuid::from_u128(0x1234_5678));
    RunnerContainer {
        runner,
        name: RunnerName::compose(&cluster, &host, &runner),
        pool: PoolName::from("default"),
        cluster,
        host,
        boot: BootId(Uuid::from_u128(7)),
        term: 3,
        image: "apex-runner:local".to_owned(),
        command: None,
        network: "runners".to_owned(),
        resources: Resources {
            cpus: Some(1.5),
            memory_bytes: Some(512 * 1024 * 1024),
            pids: Some(256),
        },
        scope: Scope::Repo(RepoName::from("acme/demo")),
        revision: "r1".to_owned(),
        created_at: Timestamp(1_700_000_000_123),
        correlation: "c-1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_request_has_the_agreed_shape() {
        let mut body = serde_json::to_value(create_body(&sample())).unwrap();
        let labels = body.as_object_mut().unwrap().remove("Labels").unwrap();
        assert_eq!(labels, serde_json::to_value(labels::encode(&sample())).unwrap());
        assert_eq!(
            body,
            json!({
                "Image": "apex-runner:local",
                "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
                "OpenStdin": true, "StdinOnce": true, "Tty": false,
                "StopTimeout": 40,
                "HostConfig": {
                    "Memory": 536_870_912, "MemorySwap": 536_870_912,
                    "NanoCpus": 1_500_000_000, "PidsLimit": 256,
                    "Init": true, "AutoRemove": false,
                    "RestartPolicy": { "Name": "no" },
                    "LogConfig": {
                        "Type": "json-file",
                        "Config": { "max-size": "10m", "max-file": "3" },
                    },
                    "NetworkMode": "runners",
                },
            })
        );
    }

    #[test]
    fn what_is_not_limited_is_not_sent() {
        let spec = RunnerContainer {
            resources: Resources::default(),
            command: Some(vec!["./run.sh".to_owned()]),
            ..sample()
        };
        let body = serde_json::to_value(create_body(&spec)).unwrap();
        assert_eq!(body["Cmd"], json!(["./run.sh"]));
        for absent in ["Memory", "MemorySwap", "NanoCpus", "PidsLimit", "Privileged", "Binds"] {
            assert!(body["HostConfig"].get(absent).is_none(), "{absent}");
        }
        assert!(body.get("Env").is_none());
    }
}
