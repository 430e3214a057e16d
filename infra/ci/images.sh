#!/usr/bin/env bash
# Builds every image and proves what they promise: size, user, read-only root, what is in them and what is not, one epoch.
#   images.sh [build]      `build` only builds and reports sizes
cd "$(dirname "$0")/../.."
. infra/ci/engine.sh
trap engine_down EXIT
only=${1:-prove}

# MB, upper bounds on CPU builds of torch
declare -A LIMIT=([pipeline]=1500 [train]=3000 [local]=3100 [serving]=1500 [ui]=900 [mlflow]=1300)
TARGETS=(serving pipeline train local ui mlflow)

engine_up
build_all "${TARGETS[@]}"

python_in() { # python_in TARGET CODE: as the image's own user, nothing writable but /tmp, no network, no capability
  "$DOCKER" run --rm --read-only --tmpfs /tmp --network none --cap-drop ALL --security-opt no-new-privileges \
    "$(image "$1")" python3 -c "$2"
}

torch_mb=$(python_in serving '
import pathlib, importlib.util as u
root = pathlib.Path(u.find_spec("torch").submodule_search_locations[0])
print(sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) // 2**20)')
printf '\n%-10s %8s %8s   %s\n' image MB bound user
for target in "${TARGETS[@]}"; do
  mb=$(($("$DOCKER" image inspect --format '{{.Size}}' "$(image "$target")") / 1000000))
  user=$("$DOCKER" image inspect --format '{{.Config.User}}' "$(image "$target")")
  printf '%-10s %8d %8d   %s\n' "$target" "$mb" "${LIMIT[$target]}" "$user"
  ((mb <= ${LIMIT[$target]})) || fail "$target is $mb MB, above its bound of ${LIMIT[$target]} MB (a CUDA torch in it? set TORCH_INDEX)"
  [ "$user" = 10001:10001 ] || fail "$target runs as '$user'"
  for label in title version revision licenses; do
    [ -n "$("$DOCKER" image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$label\"}}" "$(image "$target")")" ] ||
      fail "$target has no label org.opencontainers.image.$label"
  done
done
printf 'torch alone: %d MiB of serving\n\n' "$torch_mb"
[ "$only" = build ] && exit 0

absent='
import importlib.util, sys
found = [name for name in sys.argv[1].split() if importlib.util.find_spec(name)]
sys.exit(f"must not be importable here: {found}" if found else 0)'
lacks() { # lacks TARGET MODULES
  "$DOCKER" run --rm --read-only --tmpfs /tmp --network none "$(image "$1")" python3 -c "$absent" "$2" || fail "$1 carries what it must not"
  say "$1 carries none of: $2"
}
lacks serving "kfp timm torchvision torchmetrics onnx datasets sklearn sqlalchemy components pipelines serving.ui"
# fastapi and uvicorn come along with mlflow-skinny; nothing of ours imports them there
lacks pipeline "torch timm torchvision captum streamlit sqlalchemy sklearn"
lacks train "streamlit sqlalchemy sklearn"
lacks ui "torch kfp mlflow onnxruntime components pipelines serving.app"
lacks mlflow "torch kfp serving.app components.train pipelines"

python_in serving 'import serving.app, sys; assert "torch" not in sys.modules, "import serving.app loads torch"'
python_in serving 'from serving.app import create_app; from serving.settings import Settings; create_app(Settings())'
python_in serving 'import mlflow.tracking, torch, captum, onnxruntime; assert not torch.cuda.is_available()'
python_in mlflow 'import components.mlflow_server.app, google.cloud.storage, psycopg2; from importlib.metadata import entry_points as e; assert "aidetect" in e(group="mlflow.app").names'
python_in pipeline 'import kfp.dsl, mlflow, google.cloud.aiplatform, google.cloud.run_v2, components.quality_gate.component'
python_in ui 'from serving.ui import batch, case, detect, drift, history, model'
python_in train 'import timm, torchvision, kfp.dsl, components.train.component, components.evaluate.component'
"$DOCKER" run --rm --read-only --tmpfs /tmp --network none "$(image pipeline)" aidetect --help >/dev/null || fail "aidetect in the pipeline image"
say "imports pass on a read-only root, without network or capabilities"

# one epoch in containers, on the sample: the light image verifies and packs, the train image trains
work=$(mktemp -d)
trap 'rm -rf "$work"; engine_down' EXIT
chmod 777 "$work"
stage() { # stage TARGET ARGUMENTS...
  local target=$1
  shift
  "$DOCKER" run --rm --read-only --tmpfs /tmp --network none --volume "$PWD/data/sample:/data:ro" --volume "$work:/work" \
    "$(image "$target")" "$@" >"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    fail "$target: $*"
  }
}
began=$SECONDS
stage pipeline aidetect data import /data --output /work/dataset --set verify_data.limit=400
say "verify_data in the pipeline image: $((SECONDS - began)) s"
began=$SECONDS
stage train aidetect train --dataset /work/dataset --output /work/bundle --no-track \
  --set train.input_px=64 --set train.epochs=1 --set train.low_res_epochs=0 --set train.checkpoint_dir=
[ -s "$work/bundle/manifest.json" ] || fail "train left no bundle"
say "one epoch in the train image: $((SECONDS - began)) s"
say "images: everything holds ($((SECONDS - STARTED_AT)) s)"
