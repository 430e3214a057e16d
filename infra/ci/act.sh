#!/usr/bin/env bash
# Runs the real workflow files with act: job order, conditions, outputs, expressions and every run line. Third-party actions are
# stand-ins; `make` and `aidetect` record the call after checking that the target or flag exists (infra/ci/rehearse_workflows.py).
cd "$(dirname "$0")/../.."
. infra/ci/tools.sh
python3 infra/ci/rehearse_workflows.py "$@"
printf 'workflows: %d s\n' "$SECONDS"
