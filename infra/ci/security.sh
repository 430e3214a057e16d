#!/usr/bin/env bash
# Known vulnerabilities of every package in the lock, where their database can be reached; then a hostile client against a server.
#   URL=http://127.0.0.1:8080 infra/ci/security.sh    attacks that server, which lets an honest client ask 150 times a minute
cd "$(dirname "$0")/../.."
. infra/ci/tools.sh
tools_venv audit infra/ci/audit.txt
audit() { # --strict: a package that the database does not know is no pass
  "$CI_TOOLS/audit/bin/pip-audit" --requirement "$1" --require-hashes --disable-pip --strict --progress-spinner off
}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
one=$work/one
awk '/^[^ ]/ {keep = $0 ~ "^six=="} keep' infra/requirements.txt >"$one"
if ! audit "$one" >/dev/null 2>&1; then
  echo "NOT AUDITED: the database of known vulnerabilities cannot be reached from here; GitHub's nightly run asks it"
elif ! audit infra/requirements.txt; then
  echo 'FAILED: known vulnerabilities; docs/CONTRIBUTING.md says how the lock takes newer versions' >&2
  exit 1
fi

python=${VENV:-.venv}/bin/python
if [ -z "${URL:-}" ]; then
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  URL=http://127.0.0.1:$port
  "$python" -c 'import pathlib, sys; from tests.bundles import make_bundle; make_bundle(pathlib.Path(sys.argv[1]))' "$work/bundle"
  MODEL_URI=$work/bundle HOST=127.0.0.1 PORT=$port RATE_LIMIT_PREDICT=150/minute LOG_LEVEL=ERROR "$python" -m serving >"$work/log" 2>&1 &
  server=$!
  curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused --output /dev/null "$URL/readyz" || {
    tail -n 20 "$work/log" >&2
    exit 1
  }
fi
"$python" -m tests.hostile --url "$URL" --seconds "${SECONDS_HOSTILE:-60}"
