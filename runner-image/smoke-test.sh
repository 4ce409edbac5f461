#!/bin/bash
# Run at the end of the image's build, as the runner's user: an image that lacks something
# must not come into being. Prints what is in it.
set -euo pipefail

fail() {
  printf 'smoke test: %s\n' "$*" >&2
  exit 1
}
root=${RUNNER_ROOT:-/home/runner}

[ "$(id -un)" = runner ] || fail "not run as the runner's user"
sudo -n true || fail "sudo asks for a password"
for tool in curl git jq tar tini unzip zip zstd ssh setpriv; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done

version=$("$root/bin/Runner.Listener" --version) || fail "the listener does not run"
[ -z "${RUNNER_VERSION:-}" ] || [ "$version" = "$RUNNER_VERSION" ] ||
  fail "the listener is version $version, not $RUNNER_VERSION"
echo "runner $version"
nodes=0
for node in "$root"/externals/node[0-9][0-9]/bin/node; do
  [ -x "$node" ] || continue
  echo "$(basename "$(dirname "$(dirname "$node")")") $("$node" --version)"
  nodes=$((nodes + 1))
done
# Actions in JavaScript are run by them; a release has gone out without one.
[ "$nodes" -gt 0 ] || fail "no node in externals"

docker --version
docker buildx version
docker compose version
dockerd --version
rootlesskit --version
slirp4netns --version | head -n 1
getcap /usr/bin/newuidmap | grep -q cap_setuid || fail "newuidmap has lost its file capability"
getcap /usr/bin/newgidmap | grep -q cap_setgid || fail "newgidmap has lost its file capability"
grep -q '^runner:[0-9]*:65536$' /etc/subuid || fail "no range of user ids for nested containers"
grep -q '^runner:[0-9]*:65536$' /etc/subgid || fail "no range of group ids for nested containers"
jq -e . /etc/docker/daemon.json >/dev/null || fail "daemon.json does not parse"

privileged=$(sudo find / -xdev -type f -perm /6000 | sort | tr '\n' ' ')
[ "$privileged" = "/usr/bin/sudo " ] || fail "set-user-id files beside sudo: $privileged"
