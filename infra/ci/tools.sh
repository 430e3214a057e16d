#!/usr/bin/env bash
# Sourced: puts the checks' own tools first on PATH, installing them once into $CI_TOOLS (outside the project's environment).
set -euo pipefail
CI_TOOLS=${CI_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/aidetect-ci}

tools_venv() { # tools_venv NAME REQUIREMENTS: a virtual environment that holds exactly these
  local venv=$CI_TOOLS/$1 want
  want=$(cksum <"$2")
  if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$want" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
    printf '%s\n' "$want" >"$venv/.installed"
  fi
}
tools_venv tools infra/ci/tools.txt
export PATH=$CI_TOOLS/tools/bin:$PATH
