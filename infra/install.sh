#!/usr/bin/env bash
# Installs what extras of pyproject.toml bring, from infra/requirements.txt: those versions, and nothing whose hash it does not name.
#   infra/install.sh PYTHON [--editable] EXTRA...    into the environment of PYTHON; --editable: and this project
#   itself; no extra: nothing but uv
#
# TORCH_INDEX=URL takes torch and torchvision from another package index (its CPU build: 0.2 GB instead of 5.5 GB). Another
# build has other hashes and its own libraries of CUDA, so of these the version is checked and the hash is not. TORCH_SPEC and
# TORCHVISION_SPEC name another version, for a machine that has its own.
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
editable=no
[ "${1:-}" != --editable ] || { editable=yes && shift; }
cd "$(dirname "$0")/.."
lock=infra/requirements.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1

pins() { # pins NAMES: what the lock says of the distributions that this regular expression names, hashes included
  awk -v names="^($1)==" '/^[^ ]/ {keep = $0 ~ names} keep' "$lock"
}
others() { # others NAMES: what the lock says of all the rest
  awk -v names="^($1)==" '/^[^ ]/ {keep = $0 !~ names} keep' "$lock"
}

uv=$(command -v "$(dirname "$python")/uv" uv/bin/uv uv | head -n 1 || true)
if [ -z "$uv" ]; then
  pins uv >"$work/uv"
  "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$work/uv"
  uv=$(dirname "$python")/uv
fi
[ $# -gt 0 ] || exit 0
install() { "$uv" pip install --quiet --python "$python" --build-constraints "$lock" "$@"; }

arguments=(--require-hashes --constraints "$lock" --requirements pyproject.toml)
for extra in "$@"; do arguments+=(--extra "$extra"); done
if [ -n "${TORCH_INDEX:-}${TORCH_SPEC:-}" ]; then
  family='torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+'
  mapfile -t chosen < <("$python" - "$@" <<'PYTHON'
import os, re, sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
wanted = {re.split("[=>]", line)[0] for extra in sys.argv[1:] for line in extras[extra]} & {"torch", "torchvision"}
locked = dict(re.findall(r"^(torch|torchvision)==([^ ]+)", open("infra/requirements.txt").read(), re.MULTILINE))
for name in sorted(wanted):
    print(os.environ.get(f"{name.upper()}_SPEC") or f"{name}=={locked[name]}")
PYTHON
  )
  if ((${#chosen[@]})); then
    # best-match: such an index also keeps old copies of what torch needs
    others "$family" >"$work/others"
    install --constraints "$work/others" --index-strategy unsafe-best-match ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "${chosen[@]}"
  fi
  pins "$family" | sed -n 's/==.*//p' >"$work/not-again"
  arguments+=(--excludes "$work/not-again")
fi
install "${arguments[@]}"
[ $editable = no ] || install --no-deps --editable .
