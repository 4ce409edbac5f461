#!/bin/sh
# Becomes a user without rights who may use the Docker socket: its group differs from
# host to host and is read off the socket itself, so nobody has to configure it.
set -eu

program=/usr/local/bin/runner-orchestrator
user=65532

if [ "$(id -u)" != 0 ]; then
  exec "$program" "$@"
fi

socket=${DOCKER_HOST:-${ORCHESTRATOR_DOCKER_HOST:-unix:///var/run/docker.sock}}
socket=${socket#unix://}
groups=$user
if [ -S "$socket" ]; then
  # A socket of group root gives that group and no more: root's own rights stay dropped.
  groups=$user,$(stat -c %g "$socket")
fi
exec setpriv --reuid "$user" --regid "$user" --groups "$groups" --no-new-privs \
  "$program" "$@"
