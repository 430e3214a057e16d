#!/usr/bin/env bash
# The cloud run without a cloud: `aidetect run --on vertex` against stand-ins on loopback that execute the submitted spec in
# containers of the submitted images (tests/rehearsal); then `--on docker` beside `--on local`. Needs .venv and a Docker Engine.
# First the first day on Google Cloud, account by account, against who may do what (tests/cloud).
cd "$(dirname "$0")/../.."
. infra/ci/engine.sh
. infra/ci/tools.sh
"${VENV:-.venv}/bin/python" -m tests.cloud.first_day
trap engine_down EXIT
tools_venv emulators infra/ci/emulators.txt
engine_up
for target in pipeline train local serving mlflow; do build "$target"; done
export GCS_EMULATOR=$CI_TOOLS/emulators/bin/gcp-storage-emulator OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"${VENV:-.venv}/bin/python" -m pytest -s -q -p no:cacheprovider -m engine tests/rehearsal "$@"
say "rehearsed: the whole way to a promoted service, a refusal, a rollback ($((SECONDS - STARTED_AT)) s)"
