#!/bin/sh
# Becomes a user without rights who may use the Docker socket. Its group differs from
# host to host and is read off the socket itself, so nobody has to configure it.
# Needs CAP_SETUID and CAP_SETGID, and nothing else.
set -eu

program=/usr/local/bin/runner-orchestrator
user=65532

# Started as somebody by --user: their choice stands, with the groups they gave.
if [ "$(id -u)" -ne 0 ]; then
  exec "$program" "$@"
fi

# The spelling with the prefix wins, as in the program.
host=${ORCHESTRATOR_DOCKER_HOST:-${DOCKER_HOST:-unix:///var/run/docker.sock}}
socket=${host#unix://}
groups=$user
if [ -S "$socket" ]; then
  # A socket of group root gives that group and no more: root's other rights are gone.
  groups=$user,$(stat -L -c %g "$socket")
fi
exec setpriv --reuid "$user" --regid "$user" --groups "$groups" \
  --inh-caps=-all --no-new-privs "$program" "$@"
