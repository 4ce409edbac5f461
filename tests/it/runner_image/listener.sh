#!/bin/bash
# Stands in for GitHub's listener, whose tarball is not reachable where this is tested: says
# what it says, honours SIGINT as it does, and returns the codes it returns. Its one job is
# the `StandIn` of the configuration: {"job": a script, "exit": code without a job,
# "exits": codes of the first starts, "wait": seconds listened before}.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
[ "${1:-}" != --version ] || { echo 0.0.0; exit 0; }
if [ "${1:-}" != run ] || [ ! -r .runner ] || [ ! -r .credentials ]; then
  echo "Not configured."
  exit 1
fi
ask() { jq -r ".StandIn.$1 // empty" .runner; }
now() { date -u '+%Y-%m-%d %H:%M:%SZ'; }

job_pid=''
# shellcheck disable=SC2317 # the trap calls it
interrupted() {
  echo "Exiting..."
  [ -z "$job_pid" ] || kill -TERM -- "-$job_pid" 2>/dev/null
  [ -z "$job_pid" ] || echo "$(now): Job stand-in completed with result: Canceled"
  exit 0
}
trap interrupted INT
trap 'exit 143' TERM

starts=$(($(cat _diag/starts 2>/dev/null || echo 0) + 1))
mkdir -p _diag
echo "$starts" >_diag/starts
exits=$(ask "exits[$((starts - 1))]")
[ -z "$exits" ] || exit "$exits"

echo "√ Connected to GitHub"
echo
echo "Current runner version: '0.0.0'"
echo "$(now): Listening for Jobs"
wait=$(ask wait)
sleep "${wait:-0.1}" &
wait $!
job=$(ask job)
if [ -z "$job" ]; then
  code=$(ask exit)
  exit "${code:-0}"
fi
echo "$(now): Running job: stand-in"
echo started >"_diag/Worker_$(date -u +%Y%m%d-%H%M%S)-utc.log"
# In a group of its own, as a worker is.
set -m
bash -euo pipefail -c "$job" </dev/null 2>&1 &
job_pid=$!
set +m
result=Succeeded
wait "$job_pid" || result=Failed
echo "$(now): Job stand-in completed with result: $result"
rm -f .credentials .credentials_rsaparams .runner
exit 0
