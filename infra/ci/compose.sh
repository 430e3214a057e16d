#!/usr/bin/env bash
# Brings the compose stack up from nothing, as a fresh clone would, asks it what it promises, and takes it down without a trace.
cd "$(dirname "$0")/../.."
. infra/ci/engine.sh
. infra/ci/tools.sh
# the targets `up` and `down` are what is checked: they find their project by name, and compose as a plugin of the client
export COMPOSE_PROJECT_NAME=aidetect-check-$$ DOCKER_CONFIG
DOCKER_CONFIG=$(mktemp -d)
mkdir "$DOCKER_CONFIG/cli-plugins"
ln -s "$(command -v docker-compose)" "$DOCKER_CONFIG/cli-plugins/docker-compose"
project=$COMPOSE_PROJECT_NAME
compose() { docker-compose "$@"; }
finish() {
  local code=$?
  if ((code != 0)); then
    compose ps --all >&2 || true
    compose logs --tail 25 >&2 || true
  fi
  compose down --volumes --timeout 20 >/dev/null 2>&1 || true
  rm -rf "$DOCKER_CONFIG"
  engine_down
  exit "$code"
}
trap finish EXIT

# The machinery is what is checked here, and a model of a few seconds has to get through the gate: `make run` trains the real one.
# BOOTSTRAP_ARGS= in the environment trains it here, too.
export BOOTSTRAP_ARGS=${BOOTSTRAP_ARGS---set verify_data.limit=400 --set train.input_px=64 --set train.epochs=1 --set train.low_res_epochs=0 \
  --set evaluate.robustness_images=0 --set evaluate.bootstrap_draws=200 --set gate.min_accuracy=0.05 --set gate.min_f1=0.05 --set gate.min_test_images=100}

engine_up
for target in serving ui mlflow local; do build "$target"; done
if [ "$STAND_INS" = yes ]; then
  while read -r image_name; do
    case $image_name in
    prom/prometheus:*) target=prometheus ;;
    prom/alertmanager:*) target=alertmanager ;;
    grafana/*) target=grafana ;;
    redis:*) target=redis ;;
    *) continue ;;
    esac
    "$DOCKER" build --quiet --network host --target "$target" --tag "$image_name" infra/ci/stand-ins >/dev/null || fail "the stand-in of $image_name"
    say "stand-in for $image_name"
  done < <(compose config --images)
fi

began=$SECONDS
log=$(make --no-print-directory up 2>&1 && compose up --detach --no-build --wait --wait-timeout 540 2>&1) || fail "make up: $(tail -n 5 <<<"$log")"
mapfile -t services < <(compose config --services | grep -v '^bootstrap$')
for service in "${services[@]}"; do
  id=$(compose ps --all --quiet "$service")
  [ -n "$id" ] || fail "$service has no container"
  state=$("$DOCKER" inspect --format '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}unchecked{{end}}' "$id")
  [ "$state" = "running healthy" ] || fail "$service is $state"
  uid=$("$DOCKER" top "$id" -o pid,uid | awk 'NR == 2 {print $2}')
  [ -n "$uid" ] && [ "$uid" != 0 ] && [ "$uid" != root ] || fail "$service runs as root"
  [ "$("$DOCKER" inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$id")" = true ] || fail "$service can write to its root file system"
done
say "up in $((SECONDS - began)) s; ${#services[@]} services healthy, none as root, all on a read-only root: ${services[*]}"
[ "$("$DOCKER" inspect --format '{{.State.ExitCode}}' "$(compose ps --all --quiet bootstrap)")" = 0 ] || fail "bootstrap did not end well"

photo=$(mktemp --suffix .jpg)
"$DOCKER" run --rm --network none "$(image local)" python3 -c '
import sys, pyarrow.parquet as pq
sys.stdout.buffer.write(pq.read_table("data/sample/test.parquet").to_pylist()[0]["image"]["bytes"])' >"$photo"
answer=$(curl --silent --show-error --fail --max-time 20 --form "file=@$photo" http://127.0.0.1:8080/predict)
rm -f "$photo"
python3 - "$answer" <<'PYTHON'
import json, sys
answer = json.loads(sys.argv[1])
assert answer["prediction"] in ("real", "ai_generated") and 0 <= answer["probability"] <= 1, answer
assert answer["model_version"] == "1", answer
PYTHON
say "/predict through the published port: $answer"

feedback=$(python3 -c 'import json, sys; print(json.dumps({"request_id": json.loads(sys.argv[1])["request_id"], "label": "real"}))' "$answer")
for attempt in $(seq 20); do # a judgement can be labelled once it is written down
  curl --silent --fail --max-time 10 --json "$feedback" --output /dev/null http://127.0.0.1:8080/feedback && break
  [ "$attempt" != 20 ] || fail "POST /feedback: $(curl --silent --json "$feedback" http://127.0.0.1:8080/feedback)"
  sleep 0.5
done
curl --silent --fail http://127.0.0.1:8080/metrics | grep '^aidetect_pipeline_last_run_timestamp_seconds [1-9]' >/dev/null || fail "/metrics knows nothing of the pipeline's runs"
say "POST /feedback keeps a label; /metrics tells of the pipeline's runs"

in_api() { compose exec --no-TTY api python3 -c "$1"; }
in_api 'import urllib.request as u; u.urlopen("http://mlflow:5000/api/2.0/mlflow/registered-models/get?name=ai-product-photo-detector", timeout=10)' ||
  fail "MLflow does not answer by its service name"
in_api 'from mlflow.tracking import MlflowClient as C; v = C("http://mlflow:5000").get_model_version_by_alias("ai-product-photo-detector", "champion"); assert v.version == "1", v' ||
  fail "the registry has no champion"
say "MLflow answers by service name, with the champion"

health=
for _ in $(seq 60); do
  health=$(curl --silent 'http://127.0.0.1:9090/api/v1/query?query=up\{instance=~"api.*"\}' | python3 -c '
import json, sys
found = json.load(sys.stdin)["data"]["result"]
print(found[0]["value"][1] if found else "")' || true)
  [ "$health" = 1 ] && break
  sleep 1
done
[ "$health" = 1 ] || fail "Prometheus does not scrape the api: $(curl --silent http://127.0.0.1:9090/api/v1/targets)"
curl --silent --fail --output /dev/null http://127.0.0.1:3000/api/health || fail "Grafana (or its stand-in) is not well provisioned"
curl --silent --fail --output /dev/null http://127.0.0.1:9093/-/ready || fail "Alertmanager is not ready"
say "Prometheus scrapes the api; Grafana and Alertmanager answer"

# the closed loop: an alert that asks for retraining wakes the decision, whoever has no token does not
in_api '
import urllib.error, urllib.request as u
try:
    u.urlopen(u.Request("http://retrain:9095/alerts", data=b"{}"), timeout=10)
except urllib.error.HTTPError as error:
    assert error.code == 401, error.code
else:
    raise SystemExit("taken without a token")' || fail "the receiver of alerts"
curl --silent --fail --max-time 10 --json '[{"labels": {"alertname": "DriftAlarm", "action": "retrain"}}]' http://127.0.0.1:9093/api/v2/alerts ||
  fail "Alertmanager takes no alert"
for _ in $(seq 60); do
  said=$(compose logs --no-log-prefix retrain 2>&1)
  grep -q "aidetect ended with" <<<"$said" && break
  sleep 1
done
grep -q "DriftAlarm: running aidetect retrain" <<<"$said" || fail "the alert did not reach the receiver"
grep -q "do not retrain: nothing calls for it" <<<"$said" || fail "a quiet server was retrained, or the decision failed: $said"
grep -q "aidetect ended with 0" <<<"$said" || fail "aidetect retrain: $said"
say "an alert reaches the receiver through Alertmanager; the decision asks the api and finds nothing to do"

make --no-print-directory down >/dev/null 2>&1 || fail "make down"
[ -z "$("$DOCKER" container ls --all --quiet --filter "label=com.docker.compose.project=$project")" ] || fail "make down left containers"
compose down --volumes --timeout 30 2>/dev/null
left() { "$DOCKER" "$@" --quiet --filter "label=com.docker.compose.project=$project"; }
behind=$(left container ls --all; left volume ls; left network ls)
[ -z "$behind" ] || fail "down left something behind: $behind"
say "compose: everything holds, nothing left ($((SECONDS - STARTED_AT)) s)"
