//! What untrusted code may try on the default settings, from a job and from a container in
//! it. Most of these work where the runner's container is privileged, or a job its root; what
//! they would set on the host, they set to what it was.

use runner_orchestrator::fleet::pool::InnerDocker;

use super::made::script;
use super::runner::{Runner, job};
use crate::it::deploy::program::ending;

/// `held: …` is said only when the attack failed; with root's rights, where a job gets them.
const TRIED: &str = r#"
as_root() { sudo "$@" || unshare --user --map-root-user "$@" || "$@"; }
tried() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "BROKEN: $what"; else echo "held: $what"; fi
}
dir=$(mktemp -d)
"#;

/// Beside a Docker of its own, a job is not even its container's root.
const WITHOUT_ROOT: &str = r#"
tried "becoming root" sh -c '[ "$(sudo id -u || su -c "id -u" root </dev/null)" = 0 ]'
tried "reading the first process" as_root sh -c 'cat /proc/1/environ && ls /proc/1/root/'
tried "stopping what cares for the runner" as_root kill -KILL 1
"#;

const FROM_THE_JOB: &str = r#"
tried "naming a program for the host's kernel" as_root sh -c '
  old=$(cat /proc/sys/kernel/core_pattern) && echo "$old" >/proc/sys/kernel/core_pattern'
tried "setting a kernel parameter" as_root sh -c '
  old=$(cat /proc/sys/kernel/panic) && echo "$old" >/proc/sys/kernel/panic'
tried "asking the kernel for a crash" as_root sh -c 'echo h >/proc/sysrq-trigger'
tried "mounting a cgroup hierarchy" as_root mount -t cgroup -o memory cgroup "$dir"
tried "mounting the unified hierarchy" as_root mount -t cgroup2 cgroup2 "$dir"
tried "a release agent" as_root sh -c 'echo /x >/sys/fs/cgroup/memory/release_agent'
tried "the host's disk" as_root sh -c "mknod $dir/disk b 254 0 && head -c 1 $dir/disk"
tried "the kernel's memory" as_root sh -c "mknod $dir/mem c 1 1 && head -c 1 $dir/mem"
tried "mounting the disk" as_root mount -t ext4 /dev/vda "$dir"
tried "loading a module" as_root sh -c 'modprobe dummy || insmod /dev/null'
tried "changing the clock" as_root date -s 2001-01-01
tried "changing the container's name" as_root hostname owned
tried "changing the firewall" as_root iptables -I OUTPUT -j ACCEPT
tried "entering the first process" as_root nsenter --target 1 --mount --pid true
tried "the host's Docker" as_root ls /var/lib/docker/containers
"#;

/// In a user namespace of its own the kernel gives it every right; none of them is the host's.
const FROM_A_NAMESPACE: &str = r#"
tried "a release agent from a namespace" unshare --user --map-root-user --mount --cgroup sh -c "
  mount -t cgroup -o memory cgroup $dir && echo /x >$dir/release_agent"
tried "a parameter from a namespace" unshare --user --map-root-user --mount --pid --fork sh -c '
  mount -t proc proc /proc && old=$(cat /proc/sys/kernel/panic) &&
    echo "$old" >/proc/sys/kernel/panic'
"#;

const FROM_A_CONTAINER: &str = r#"
tried "a privileged container" docker run --rm --privileged tiny true
tried "the host's devices" docker run --rm --device /dev/vda tiny true
tried "a container's cgroup" docker run --rm --cap-add SYS_ADMIN tiny bash -c '
  mount -t cgroup -o memory cgroup /tmp && echo /x >/tmp/release_agent'
tried "a container's disk" docker run --rm --cap-add MKNOD tiny bash -c '
  mknod /tmp/disk b 254 0 && cat /tmp/disk'
tried "all of the runner's files" docker run --rm --pid host --volume /:/host tiny bash -c '
  old=$(cat /host/proc/sys/kernel/panic) && echo "$old" >/host/proc/sys/kernel/panic'
tried "a set-user-id program of the runner's root" docker run --rm --volume /:/host tiny bash -c '
  [ "$(/host/usr/bin/sudo id -u)" = 0 ]'
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_breaks_out_neither_by_itself_nor_by_a_container() {
    let attacks = [WITHOUT_ROOT, FROM_THE_JOB, FROM_A_NAMESPACE, FROM_A_CONTAINER].concat();
    let all = [&script("inside.sh"), TRIED, &attacks, "\necho all tried"].concat();
    let said = job(InnerDocker::Rootless, &all).await;
    assert!(!said.contains("BROKEN") && said.contains("all tried"), "{said}");
    assert_eq!(said.matches("held: ").count(), attacks.matches("\ntried ").count(), "{said}");
}

/// Nor does one that somebody starts beside the job, to look into it: it is outside the job's
/// namespace, and runs what the job has left in its home.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_into_a_running_job_gives_it_no_root() {
    let mut runner = Runner::start(InnerDocker::Rootless, "echo at work; sleep 20").await;
    runner.says("at work").await;
    let look = |what: &[&str]| {
        let exec = ["exec", "--user", "runner", runner.id.as_str()];
        ending(&mut runner.image.client().command(&[&exec[..], what].concat()))
    };
    assert_eq!(look(&["id", "-u"]), (Some(0), "1001\n".to_owned()));
    let (code, said) = look(&["/usr/bin/sudo", "-n", "id", "-u"]);
    assert_ne!(code, Some(0), "{said}");
    runner.end().await;
}

/// Beside no Docker a job may become root of its container: one that sees of the kernel what
/// every container does.
#[tokio::test(flavor = "multi_thread")]
async fn root_without_docker_is_root_of_its_container_only() {
    let attacks = [TRIED, FROM_THE_JOB, FROM_A_NAMESPACE, "\nsudo id"].concat();
    let said = job(InnerDocker::None, &attacks).await;
    assert!(!said.contains("BROKEN") && said.contains("uid=0(root)"), "{said}");
}

/// The same attacks where the host's operator has allowed a Docker with root: they are real.
#[tokio::test(flavor = "multi_thread")]
async fn the_attacks_work_where_they_are_not_held_off() {
    let said = job(InnerDocker::Dind, &[TRIED, WITHOUT_ROOT, FROM_THE_JOB].concat()).await;
    for what in ["becoming root", "mounting a cgroup hierarchy", "changing the firewall"] {
        assert!(said.contains(&format!("BROKEN: {what}")), "{said}");
    }
}
