#!/bin/bash
# Downloads a file that must have the given checksum: fetch ADDRESS SHA256 FILE
set -euo pipefail
curl --fail --silent --show-error --location --retry 3 --output "$3" "$1"
echo "$2  $3" | sha256sum --check --strict --quiet - || {
  echo "fetch: what $1 gave is not what was expected: it is not used" >&2
  rm -f "$3"
  exit 1
}
