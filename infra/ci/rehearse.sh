#!/usr/bin/env bash
# The cloud run without a cloud: `aidetect run --on vertex` against stand-ins on loopback that execute the submitted spec in
# containers of the submitted images (tests/rehearsal); then `--on docker` beside `--on local`. Needs .venv and a Docker Engine.
# First the first day on Google Cloud, account by account, against who may do what (tests/cloud).
#   rehearse.sh [PYTEST OPTIONS]
cd "$(dirname "$0")/../.."
. infra/ci/engine.sh
. infra/ci/tools.sh
PYTHON=${VENV:-.venv}/bin/python
"$PYTHON" -m tests.cloud.first_day
trap engine_down EXIT
tools_venv emulators infra/ci/emulators.txt
engine_up
build_all pipeline train local serving mlflow
export GCS_EMULATOR=$CI_TOOLS/emulators/bin/gcp-storage-emulator OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

lane() { # lane FILE [PYTEST OPTIONS]: its tests, their words line by line with the file's name before them
  local file=$1 status=0
  shift
  "$PYTHON" -m pytest -s -q -p no:cacheprovider -m engine "tests/rehearsal/test_$file.py" "$@" 2>&1 |
    (trap '' INT && exec sed -u "s/^/$file | /") || status=$?
  # options may leave nothing to do here
  [ "$status" = 0 ] || { [ "$status" = 5 ] && [ $# -gt 0 ]; }
}

# The two files have nothing in common but the engine, and wait more than they work. Each in a process group of its own, so
# that an interrupt ends both, and each takes its containers away.
set -m
lane docker "$@" &
docker=$!
lane rehearsal "$@" &
rehearsal=$!
set +m
trap 'kill -INT -- "-$docker" "-$rehearsal" 2>/dev/null && wait; engine_down' EXIT
status=0
wait "$docker" || status=1
wait "$rehearsal" || status=1
trap engine_down EXIT
[ "$status" = 0 ] || fail "the rehearsal"
say "rehearsed: the whole way to a promoted service, a refusal, a rollback ($((SECONDS - STARTED_AT)) s)"
