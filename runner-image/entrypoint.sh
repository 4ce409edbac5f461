#!/bin/bash
# What a runner's container runs: brings up the job's own Docker, takes the runner's
# configuration, runs GitHub's listener for one job, and says by its exit code what became
# of it.
#
# The just-in-time configuration comes as one line on standard input, so that it stands in no
# argument, variable or description of the container. With RUNNER_TOKEN and REPO_URL the
# runner registers itself instead, for images that were made for that.
#
#   RUNNER_DOCKER          none (default), rootless, dind, or socket (somebody else's, mounted at
#                          /var/run/docker.sock)
#   RUNNER_INPUT_SECONDS   how long the configuration is waited for (300)
#   RUNNER_DOCKER_SECONDS  how long the inner Docker may take to be usable (60)
set -uo pipefail

readonly RAN_A_JOB=0 TOO_OLD=7 NO_JOB=64 NO_CONFIG=65 BAD_CONFIG=66 NO_DOCKER=67
readonly ROOT=${RUNNER_ROOT:-/home/runner}
readonly DOCKER_LOG=/tmp/inner-docker.log
readonly SOCKET=/var/run/docker.sock
readonly MODE=${RUNNER_DOCKER:-none}
# Between two attempts of a listener that could not reach GitHub.
readonly RETRY_SECONDS=5
readonly DOCKER_STOP_SECONDS=5

driver='' docker_pid='' listener_pid='' stopping=''

say() { printf 'entrypoint: %s\n' "$*" >&2; }
# Not `kill -0`, which root's processes refuse.
alive() { [ -e "/proc/$1" ]; }

# Started as root where an inner Docker needs it; the job never is.
as_runner=()
if [ "$(id -u)" -eq 0 ]; then
  as_runner=(setpriv --reuid runner --regid runner --init-groups)
fi

# A Docker of one's own needs a view of /proc that nothing covers, and there the root of this
# container could set the host's kernel parameters. So a job beside it gets a user namespace
# without root: no set-user-id program, sudo first of all, has any effect in it.
without_root=()
if [ "$MODE" = rootless ]; then
  without_root=(unshare --user --map-user 1001 --map-group 1001)
fi

# --- the job's own Docker ----------------------------------------------------------------

# The best driver that works where the data lie. Docker's own choice falls back to one that
# says it is ready and then fails every container.
storage_driver() { # data directory, further mount options, how to become root there
  local data=$1 options=$2 probe found=vfs
  shift 2
  probe=$("$@" mktemp -d "$data/probe.XXXXXX") || return 1
  # shellcheck disable=SC2016 # expanded by the inner shell
  if "$@" sh -c 'cd "$1" && mkdir lower upper work merged &&
      mount -t overlay -o "lowerdir=lower,upperdir=upper,workdir=work$2" overlay merged &&
      touch merged/x && umount merged' sh "$probe" "$options" 2>/dev/null; then
    found=overlay2
  elif "${as_runner[@]}" [ -w /dev/fuse ] && command -v fuse-overlayfs >/dev/null; then
    found=fuse-overlayfs
  fi
  "$@" rm -rf "$probe"
  printf '%s\n' "$found"
}

start_rootless() {
  local data=$HOME/.local/share/docker
  export XDG_RUNTIME_DIR=/run/user/1001 DOCKER_HOST=unix:///run/user/1001/docker.sock
  # On many hosts only root may open it. And tools that know no variable look for the socket
  # in its usual place.
  if [ "$(id -u)" -eq 0 ]; then
    chmod 0666 /dev/net/tun || return 1
    [ -e "$SOCKET" ] || ln -s /run/user/1001/docker.sock "$SOCKET"
    # Nor is there a way to root for a process of the job's user outside that namespace, such
    # as one that somebody starts to look into a running job.
    chmod u-s /usr/bin/sudo || return 1
  fi
  driver=$(storage_driver "$data" ,userxattr \
    "${as_runner[@]}" unshare --user --map-root-user --mount) || return 1
  # The listener mounts /var/run/docker.sock into every job container, by that name: the
  # daemon answers there too, in its own copy of /run.
  "${as_runner[@]}" rootlesskit --net=slirp4netns --mtu=65520 --disable-host-loopback \
    --port-driver=builtin --copy-up=/etc --copy-up=/run --propagation=rslave \
    dockerd --config-file /etc/docker/daemon.json --storage-driver "$driver" \
    --host unix:///run/user/1001/docker.sock --host "unix://$SOCKET" \
    >"$DOCKER_LOG" 2>&1 </dev/null &
  docker_pid=$!
}

start_dind() {
  driver=$(storage_driver /var/lib/docker '') || return 1
  writable_cgroups
  local mtu options=()
  mtu=$(cat /sys/class/net/eth0/mtu 2>/dev/null || echo 1500)
  # Since 24.0 the networks that a job makes follow, too.
  if dockerd --help | grep -q -- --default-network-opt; then
    options=(--default-network-opt "bridge=com.docker.network.driver.mtu=$mtu")
  fi
  dockerd --config-file /etc/docker/daemon.json --storage-driver "$driver" --mtu "$mtu" \
    --host "unix://$SOCKET" --group docker "${options[@]}" >"$DOCKER_LOG" 2>&1 </dev/null &
  docker_pid=$!
}

# Cgroups that an inner Docker may write to.
writable_cgroups() {
  local mounted pid
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -o remount,bind,rw /sys/fs/cgroup 2>/dev/null
    # Controllers are handed down only by a group that has no process of its own.
    mkdir -p /sys/fs/cgroup/init
    while read -r pid; do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs; done \
      </sys/fs/cgroup/cgroup.procs 2>/dev/null
    sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
    return
  fi
  # They come read-only; a plain remount is refused as busy.
  for mounted in /sys/fs/cgroup/*/; do
    ! mountpoint -q "$mounted" || mount -o remount,bind,rw "$mounted"
  done
}

start_docker() {
  case $MODE in
    none) ;;
    rootless) start_rootless ;;
    dind) start_dind ;;
    socket) export DOCKER_HOST=unix://$SOCKET ;;
    *)
      say "RUNNER_DOCKER is '$MODE'; known are none, rootless, dind and socket"
      return 1
      ;;
  esac
}

# Usable, not started: it answers, and with the driver it was given.
wait_for_docker() {
  [ "$MODE" != none ] || return 0
  local end=$((SECONDS + ${RUNNER_DOCKER_SECONDS:-60})) answer
  while answer=$("${as_runner[@]}" docker info --format '{{.Driver}}' 2>/dev/null) || answer=; do
    if [ -n "$answer" ] && [ "$answer" = "${driver:-$answer}" ]; then return 0; fi
    if [ -n "$docker_pid" ] && ! alive "$docker_pid"; then
      say "the inner Docker ended"
      return 1
    fi
    if [ "$SECONDS" -ge "$end" ]; then
      say "the inner Docker was not usable in ${RUNNER_DOCKER_SECONDS:-60} s"
      return 1
    fi
    sleep 0.05
  done
}

stop_docker() {
  [ -n "$docker_pid" ] || return 0
  local end=$((SECONDS + DOCKER_STOP_SECONDS))
  kill "$docker_pid" 2>/dev/null
  while alive "$docker_pid" && [ "$SECONDS" -lt "$end" ]; do sleep 0.05; done
}

# --- the runner's configuration ------------------------------------------------------------

read_config() {
  local line='' limit=${RUNNER_INPUT_SECONDS:-300}
  IFS= read -r -t "$limit" line
  # The listener and the job have no business with it.
  exec </dev/null
  if [ -z "$line" ]; then
    say "no configuration came on standard input within $limit s"
    return "$NO_CONFIG"
  fi
  if ! unpack_config "$line"; then
    say "what came on standard input is no just-in-time configuration"
    return "$BAD_CONFIG"
  fi
}

# Base64 of a JSON object: names of files in the runner's directory, and their content in
# base64. Nothing of it is ever printed.
unpack_config() {
  local files name content
  files=$(printf '%s' "$1" | base64 --decode 2>/dev/null |
    jq -er 'to_entries[] | "\(.key) \(.value)"' 2>/dev/null) || return 1
  while read -r name content; do
    [[ "$name" =~ ^\.[a-z_]+$ ]] || return 1
    # shellcheck disable=SC2016 # expanded by the inner shell
    printf '%s' "$content" |
      "${as_runner[@]}" sh -c 'umask 077 && base64 --decode >"$1"' sh "$ROOT/$name" 2>/dev/null ||
      return 1
  done < <(printf '%s\n' "$files")
  # shellcheck disable=SC2016 # expanded by the inner shell
  "${as_runner[@]}" sh -c '[ -s "$1/.runner" ] && [ -s "$1/.credentials" ]' sh "$ROOT"
}

register() {
  local token=$RUNNER_TOKEN options=()
  # The job inherits what is exported here.
  unset RUNNER_TOKEN
  [ "${NO_DEFAULT_LABELS:-}" != true ] || options+=(--no-default-labels)
  # A variable, not an argument: those stand in every list of processes.
  ACTIONS_RUNNER_INPUT_TOKEN=$token "${as_runner[@]}" "$ROOT/config.sh" --unattended --ephemeral --replace \
    --disableupdate --url "${REPO_URL:?}" --name "${RUNNER_NAME:-$(hostname)}" \
    --labels "${RUNNER_LABELS:-self-hosted}" --work "${RUNNER_WORKDIR:-_work}" \
    "${options[@]}" </dev/null || return "$BAD_CONFIG"
}

# --- the listener --------------------------------------------------------------------------

# A job had a worker, and each worker leaves its log.
ran_a_job() { compgen -G "$ROOT/_diag/Worker_*.log" >/dev/null; }

run_listener() {
  local code
  cd "$ROOT" || return "$NO_JOB"
  while [ -z "$stopping" ]; do
    # A shell starts what runs beside it deaf to SIGINT, and .NET keeps it so.
    "${as_runner[@]}" "${without_root[@]}" env --default-signal=INT,QUIT \
      "$ROOT/bin/Runner.Listener" run </dev/null &
    listener_pid=$!
    # A signal ends a wait early.
    while wait "$listener_pid"; code=$?; alive "$listener_pid"; do :; done
    listener_pid=
    if ran_a_job; then return "$RAN_A_JOB"; fi
    case $code in
      2) sleep "$RETRY_SECONDS" ;; # It could not reach GitHub and asks to be run again.
      # It wants to be another version than the image's.
      3 | 4 | 7)
        say "the runner in this image is too old for GitHub (exit code $code): build it anew"
        return "$TOO_OLD"
        ;;
      *)
        say "the listener ended without a job (exit code $code)"
        return "$NO_JOB"
        ;;
    esac
  done
  return "$NO_JOB"
}

# SIGINT is what the listener understands: it cancels its job, tells GitHub, and ends.
# shellcheck disable=SC2317 # the trap calls it
stop() {
  stopping=yes
  if [ -n "$listener_pid" ]; then
    kill -INT "$listener_pid" 2>/dev/null
  else
    finish "$NO_JOB"
  fi
}

finish() { # exit code
  trap '' TERM INT
  stop_docker
  exit "$1"
}

main() {
  trap stop TERM INT
  # Both take their time, and neither needs the other.
  if ! start_docker; then
    [ ! -s "$DOCKER_LOG" ] || tail -n 20 "$DOCKER_LOG" >&2
    finish "$NO_DOCKER"
  fi
  if [ -n "${RUNNER_TOKEN:-}" ]; then register; else read_config; fi || finish $?
  if ! wait_for_docker; then
    [ ! -s "$DOCKER_LOG" ] || tail -n 20 "$DOCKER_LOG" >&2
    finish "$NO_DOCKER"
  fi
  export ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1
  run_listener
  finish $?
}

# Somebody must bury what a job leaves behind, and pass signals on.
if [ $$ -eq 1 ]; then exec tini -- "$0" "$@"; fi
if [ $# -gt 0 ]; then exec "${as_runner[@]}" "${without_root[@]}" "$@"; fi
main
