#!/usr/bin/env bash
# Sourced by the container checks: a Docker Engine to talk to, and how images are built on it.
#
# A machine with a reachable engine uses it, with the real base image. A machine without one starts its own through
# ../shared/tools/engine.sh where that lies beside the checkout; that one reaches no image registry, so its base image is a
# stand-in and torch comes as a CPU wheel from a local folder. No engine at all is an error, never a skip.
set -euo pipefail

ENGINE_DIR=${ENGINE_DIR:-/tmp/aidetect-engine} # outside the checkout; keeps images and pip's cache between runs
DOCKER=$([ -x /usr/bin/docker ] && echo /usr/bin/docker || echo docker) # Debian's client has BuildKit in itself
TOOLS=../shared/tools
STAND_INS=no
ENGINE_STARTED=no
BUILD_ARGS=()
# shellcheck disable=SC2034 # read by the scripts that source this file
STARTED_AT=$SECONDS

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}
image() { printf 'ai-product-photo-detector/%s:dev' "$1"; }

engine_up() {
  export DOCKER_BUILDKIT=1
  if ! "$DOCKER" info >/dev/null 2>&1; then
    [ -f "$TOOLS/engine.sh" ] || fail "no Docker Engine answers: start one, or point DOCKER_HOST at one"
    local exports
    exports=$(bash "$TOOLS/engine.sh" up "$ENGINE_DIR") || fail "the Docker Engine did not start"
    eval "$exports"
    DOCKER=/usr/bin/docker ENGINE_STARTED=yes
  fi
  # an imported base image has no digest in any registry: that is the stand-in
  if [ "$("$DOCKER" image inspect --format '{{len .RepoDigests}}' python:3.11-slim 2>/dev/null || echo 1)" = 0 ]; then
    STAND_INS=yes
    local wheels # where that base image's pip finds the CPU wheel
    wheels=$("$DOCKER" run --rm --network none python:3.11-slim pip config list | sed -n "s/^global.find-links='\(.*\)'$/\1/p")
    BUILD_ARGS=(--build-arg PYTHON_IMAGE=python:3.11-slim --build-arg "UV_FIND_LINKS=$wheels"
      --build-arg TORCH_SPEC=torch==2.13.0+cpu --build-arg TORCHVISION_SPEC=torchvision==0.28.0)
  elif [ -n "${TORCH_INDEX:-}" ]; then
    BUILD_ARGS=(--build-arg "TORCH_INDEX=$TORCH_INDEX")
  fi
  say "engine $("$DOCKER" version --format '{{.Server.Version}}'), stand-in base image: $STAND_INS"
}

engine_down() { # only the engine that this script started
  [ "$ENGINE_STARTED" = no ] || bash "$TOOLS/engine.sh" down "$ENGINE_DIR"
}

build() { # build TARGET: the image TARGET:dev; the build's log is shown only when it fails
  local target=$1 began=$SECONDS log
  log=$(mktemp)
  if ! "$DOCKER" build --network host --progress plain --file infra/docker/Dockerfile --target "$target" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" "${BUILD_ARGS[@]}" \
    --tag "$(image "$target")" . >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    fail "building the image $target"
  fi
  rm -f "$log"
  case $STAND_INS-$target in yes-train | yes-local) declare_torchvision_operators "$target" ;; esac
  say "built $target in $((SECONDS - began)) s"
}

build_all() { # build_all TARGET...: all at once, what they share is built once
  local target pid pids=()
  for target in "$@"; do
    build "$target" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || fail "an image was not built"; done
}

# In the stand-in run torch and torchvision come from two builds, and torchvision's import asks for two operators. The image
# from the Dockerfile stays as it is; its test tag gets one more layer, which no released image has.
declare_torchvision_operators() {
  local context
  context=$(mktemp -d)
  cp "$TOOLS/torchvision_cpu_shim.py" "$context/sitecustomize.py"
  printf 'FROM %s\nCOPY sitecustomize.py /opt/venv/lib/python3.11/site-packages/\n' "$(image "$1")" >"$context/Dockerfile"
  chmod 644 "$context/sitecustomize.py"
  "$DOCKER" build --quiet --tag "$(image "$1")" "$context" >/dev/null || fail "the test layer of $1"
  rm -rf "$context"
}
