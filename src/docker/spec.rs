//! From a runner's description to the request that creates its container. Pure; whatever
//! stands here is shown by `docker inspect`, so nothing secret may.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountType, MountVolumeOptions, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::volume::ROLE_DATA;
use super::{RunnerContainer, labels};
use crate::fleet::pool::InnerDocker;

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
        env: environment(spec.docker),
        user: user(spec.docker),
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
    let with_rights = rights(spec);
    let memory = spec.resources.memory_bytes.map(|it| i64::try_from(it).unwrap_or(i64::MAX));
    HostConfig {
        memory,
        // Equal to the memory limit: no swap on top of it.
        memory_swap: memory,
        nano_cpus: spec.resources.cpus.map(nano_cpus),
        pids_limit: spec.resources.pids.map(i64::from),
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
        ..with_rights
    }
}

/// Tells the image of `runner-image/` what to bring up. Other images are told nothing.
fn environment(docker: InnerDocker) -> Option<Vec<String>> {
    (docker != InnerDocker::None).then(|| vec![format!("RUNNER_DOCKER={}", docker.name())])
}

/// The entrypoint prepares an inner Docker as root, and runs the job as somebody else.
fn user(docker: InnerDocker) -> Option<String> {
    (docker != InnerDocker::None).then(|| "root".to_owned())
}

/// What the inner Docker needs of the container. `tests/it/runner_image` runs its workflows and
/// attacks on exactly this.
fn rights(spec: &RunnerContainer) -> HostConfig {
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    // The default profiles refuse user namespaces and what is mounted in them.
    let security_opt = words(&["seccomp=unconfined", "apparmor=unconfined"]);
    match spec.docker {
        InnerDocker::None => HostConfig::default(),
        InnerDocker::Rootless => HostConfig {
            cap_drop: words(&["ALL"]),
            // The first two hand out the user ids of nested containers, the third lets the
            // entrypoint stop what it started as another user.
            cap_add: words(&["SETUID", "SETGID", "KILL"]),
            security_opt,
            // A nested container's /proc is refused where the outer one is covered in parts.
            // Empty is not the same as absent.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            // For its network in user space.
            devices: Some(vec![DeviceMapping {
                path_on_host: Some("/dev/net/tun".to_owned()),
                path_in_container: Some("/dev/net/tun".to_owned()),
                cgroup_permissions: Some("rwm".to_owned()),
            }]),
            mounts: Some(vec![data(spec, "/home/runner/.local/share/docker")]),
            ..HostConfig::default()
        },
        InnerDocker::Dind => HostConfig {
            cap_add: words(&["SYS_ADMIN", "NET_ADMIN"]),
            security_opt,
            // With the host's it could name a program for the host's kernel to run.
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            mounts: Some(vec![data(spec, "/var/lib/docker")]),
            ..HostConfig::default()
        },
    }
}

/// An anonymous volume for the inner Docker's data, removed with the container: the container's
/// own file system is an overlay, and no other overlay works on it.
fn data(spec: &RunnerContainer, target: &str) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            labels: Some(labels::of_role(&spec.cluster, ROLE_DATA)),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
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
    use crate::fleet::pool::{Resources, Scope};
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
        docker: InnerDocker::None,
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
    use crate::fleet::pool::Resources;

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

    /// Exactly what `tests/it/runner_image` runs its attacks and workflows on.
    #[test]
    fn an_inner_docker_is_asked_for_by_what_it_needs_and_no_more() {
        let body = |docker| {
            let spec = RunnerContainer { docker, ..sample() };
            let body = serde_json::to_value(create_body(&spec)).unwrap();
            let rights = |name: &&str| body["HostConfig"].get(*name).is_some();
            let names = ["CapDrop", "CapAdd", "SecurityOpt", "MaskedPaths", "ReadonlyPaths"];
            let more = ["Devices", "Mounts", "CgroupnsMode", "Privileged", "Binds"];
            let set: Vec<&str> = names.into_iter().chain(more).filter(rights).collect();
            (body.clone(), set)
        };
        let (none, set) = body(InnerDocker::None);
        assert_eq!((set.len(), none.get("User"), none.get("Env")), (0, None, None));

        let (rootless, set) = body(InnerDocker::Rootless);
        let host = &rootless["HostConfig"];
        assert_eq!(
            (&rootless["User"], &rootless["Env"]),
            (&json!("root"), &json!(["RUNNER_DOCKER=rootless"]))
        );
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["CapAdd"], json!(["SETUID", "SETGID", "KILL"]));
        assert_eq!((&host["MaskedPaths"], &host["ReadonlyPaths"]), (&json!([]), &json!([])));
        assert_eq!(host["Devices"][0]["PathOnHost"], "/dev/net/tun");
        let volume = &host["Mounts"][0];
        assert_eq!(volume["Target"], "/home/runner/.local/share/docker");
        assert_eq!((&volume["Type"], volume.get("Source")), (&json!("volume"), None));
        assert_eq!(
            set,
            [
                "CapDrop",
                "CapAdd",
                "SecurityOpt",
                "MaskedPaths",
                "ReadonlyPaths",
                "Devices",
                "Mounts"
            ]
        );

        let (dind, set) = body(InnerDocker::Dind);
        assert_eq!(dind["HostConfig"]["CapAdd"], json!(["SYS_ADMIN", "NET_ADMIN"]));
        assert_eq!(dind["HostConfig"]["CgroupnsMode"], "private");
        assert_eq!(set, ["CapAdd", "SecurityOpt", "Mounts", "CgroupnsMode"]);
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
