#!/bin/sh
# Makes the secrets that the Compose files name, each once: what exists is kept. The
# directory keeps other users out; the files themselves are readable, because the
# programs in the containers run as users without rights.
set -eu
cd "$(dirname "$0")"

umask 077
mkdir -p secrets
umask 022

# 32 bytes as hexadecimal digits: they need no quoting in a URL or a header.
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

for name in redis_password cluster_secret api_token; do
  [ -s "secrets/$name" ] || random >"secrets/$name"
done
[ -s secrets/redis_url ] ||
  printf 'redis://:%s@redis:6379/0' "$(cat secrets/redis_password)" >secrets/redis_url
if [ ! -s secrets/github_token ]; then
  : >secrets/github_token
  echo "now put a GitHub token into $(pwd)/secrets/github_token" >&2
fi
