#!/usr/bin/env bash
# Python 3.12: every pin resolves, lint passes, and the tests that need no torch run. Needs Python 3.12 and .venv, whose torch
# mypy reads. torch is resolved by its metadata and not downloaded: 3 GB, and `make PYTHON=python3.12 test` is there for it.
cd "$(dirname "$0")/../.."
set -euo pipefail
CI_TOOLS=${CI_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/aidetect-ci}
HERE=infra/ci/python312
RESOLVER=$CI_TOOLS/python312-pip
ENVIRONMENT=$CI_TOOLS/python312
# a test that comes to need torch leaves without a failure: fewer than this is one
AT_LEAST=900
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MPLBACKEND=Agg PIP_DISABLE_PIP_VERSION_CHECK=1
: "${EXTRAS:?the extras that the tests need, as in the Makefile}"

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}
is_312() { "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; }

find_python() {
  local candidate version
  if [ -n "${PYTHON312:-}" ]; then
    is_312 "$PYTHON312" || fail "PYTHON312=$PYTHON312 is no Python 3.12 that makes environments"
    echo "$PYTHON312"
    return
  fi
  # pyenv puts a python3.12 on PATH that starts nothing unless a 3.12 is chosen
  version=$(pyenv versions --bare 2>/dev/null | grep -xE '3\.12\.[0-9]+' | sort -V | tail -n 1 || true)
  for candidate in python3.12 "${version:+$(pyenv prefix "$version")/bin/python3.12}"; do
    if [ -n "$candidate" ] && is_312 "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.12 here: install one (Debian: python3.12-venv; or: pyenv install 3.12), or say where it is: PYTHON312=/path/to/python3.12"
}

changed() { [ "$(cat "$1/.installed" 2>/dev/null)" != "$2" ]; }

python=$(find_python)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "$("$python" --version)"

want=$("$python" -VV | cat - "$HERE/pip.txt" | cksum)
if changed "$RESOLVER" "$want"; then
  rm -rf "$RESOLVER"
  "$python" -m venv "$RESOLVER"
  "$RESOLVER/bin/python" -m pip install -qq --requirement "$HERE/pip.txt"
  printf '%s\n' "$want" >"$RESOLVER/.installed"
fi
pip=$RESOLVER/bin/pip

extras=$("$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep=",")')
say "resolving [$extras]"
# fast-deps reads a wheel's metadata out of it where the index does not serve it apart
"$pip" install --dry-run --ignore-installed --use-feature=fast-deps --progress-bar off -c infra/constraints.txt \
  --report "$work/report.json" --editable ".[$extras]" >"$work/log" 2>&1 || {
  tail -n 30 "$work/log" >&2
  fail "the pins do not resolve under Python 3.12"
}
"$RESOLVER/bin/python" "$HERE/resolved.py" "$work" "$EXTRAS" || fail "infra/constraints.txt does not hold all that resolves"

want=$("$python" -VV | cat - "$work/install.txt" | cksum)
if changed "$ENVIRONMENT" "$want"; then
  say "installing $(wc -l <"$work/install.txt") of them, which need no torch, into $ENVIRONMENT"
  rm -rf "$ENVIRONMENT"
  "$python" -m venv --without-pip "$ENVIRONMENT"
  "$pip" --python "$ENVIRONMENT" install -qq --no-deps --requirement "$work/install.txt"
  printf '%s\n' "$want" >"$ENVIRONMENT/.installed"
fi
# each time: the last run may have been another checkout's
"$pip" --python "$ENVIRONMENT" install -qq --no-deps --editable .
"$pip" --python "$ENVIRONMENT" check
site=$("$ENVIRONMENT/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp "$HERE/torch_watch.py" "$site/"
printf 'import torch_watch; torch_watch.start("%s", "%s")\n' "$(cat "$work/missing.txt")" "$work" >"$site/torch_watch.pth"

bin=$ENVIRONMENT/bin
say "ruff, mypy and lint-imports of 3.12; mypy reads the libraries of ${VENV:-.venv}, where torch is"
"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy" --python-version 3.12 --python-executable "${VENV:-.venv}/bin/python" --cache-dir "$CI_TOOLS/python312-mypy"
"$bin/lint-imports"

say "the tests that need no torch"
PYTHONPATH=$HERE "$bin/python" -m pytest -p torch_free -rfE -p no:cacheprovider -n 2 --dist worksteal \
  -m "not system and not engine and not slow" --at-least "$AT_LEAST" || fail "the tests under Python 3.12"
