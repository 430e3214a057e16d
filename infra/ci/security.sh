#!/usr/bin/env bash
# Known vulnerabilities of every package in the lock, where their database can be reached.
cd "$(dirname "$0")/../.."
. infra/ci/tools.sh
tools_venv audit infra/ci/audit.txt
audit() { # --strict: a package that the database does not know is no pass
  "$CI_TOOLS/audit/bin/pip-audit" --requirement "$1" --require-hashes --disable-pip --strict --progress-spinner off
}
one=$(mktemp)
trap 'rm -f "$one"' EXIT
awk '/^[^ ]/ {keep = $0 ~ "^six=="} keep' infra/requirements.txt >"$one"
if ! audit "$one" >/dev/null 2>&1; then
  echo "NOT AUDITED: the database of known vulnerabilities cannot be reached from here; GitHub's nightly run asks it"
elif ! audit infra/requirements.txt; then
  echo 'FAILED: known vulnerabilities (make lock UPGRADE="NAME ..." takes a newer version)' >&2
  exit 1
fi
