#!/usr/bin/env bash
# Installs and starts what the demo (`demo`) or the tests (`test`) need and this machine
# lacks. As root on Debian it does it; otherwise it says which command does.
set -euo pipefail

what=${1:-demo}
missing=()
need() { # program, Debian package
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2")
}

need cc gcc
need docker docker.io
need dockerd docker.io
if [ "$what" = test ]; then
  need busybox busybox-static
  need promtool prometheus
  need debootstrap debootstrap
fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing: ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    # A server that a package would start by itself is not wanted: only its tools are.
    policy=/usr/sbin/policy-rc.d
    made_policy=
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made_policy=1
    fi
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || failed=1
    [ -z "$made_policy" ] || rm -f "$policy"
    [ -z "${failed:-}" ] || { echo "could not install: ${missing[*]}" >&2; exit 1; }
  else
    echo "missing on this machine; as root run: apt-get install ${missing[*]}" >&2
    # The demo falls back to its modelled engine and says so.
    [ "$what" = demo ] || exit 1
  fi
fi

if ! docker version >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null 2>&1 && [ -z "${DOCKER_HOST:-}" ]; then
    echo "starting dockerd" >&2
    systemctl start docker >/dev/null 2>&1 ||
      dockerd >/var/log/dockerd-runner-orchestrator.log 2>&1 </dev/null &
    for _ in $(seq 60); do
      docker version >/dev/null 2>&1 && break
      sleep 0.5
    done
  fi
  docker version >/dev/null 2>&1 || {
    echo "no Docker engine answers; start it (systemctl start docker) or set DOCKER_HOST" >&2
    [ "$what" = demo ] || exit 1
  }
fi
