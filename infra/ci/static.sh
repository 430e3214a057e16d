#!/usr/bin/env bash
# Reads everything that is not Python: Dockerfile, workflows, shell, YAML, Terraform, and the history for secrets.
cd "$(dirname "$0")/../.."
. infra/ci/tools.sh
tools_venv checkov infra/ci/checkov.txt

failed=()
check() { # check NAME COMMAND...: runs on to the end, so that one run shows everything
  local name=$1 began=$SECONDS
  shift
  if "$@"; then
    printf 'ok      %-12s %3d s\n' "$name" $((SECONDS - began))
  else
    printf 'FAILED  %-12s %3d s\n' "$name" $((SECONDS - began))
    failed+=("$name")
  fi
}
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
((${#scripts[@]})) || { echo "FAILED: git lists no shell script here" >&2 && exit 1; }

secrets() { # of the whole history, and of what is not committed yet
  gitleaks git --no-banner --log-level error --redact . && gitleaks git --pre-commit --no-banner --log-level error --redact .
}
policy() { # checkov once ran into an error of its own and reported nothing at all: no count is no pass
  local report passed failed_checks
  report=$(mktemp)
  "$CI_TOOLS/checkov/bin/checkov" --config-file infra/ci/checkov.yml --output json >"$report" || true
  read -r passed failed_checks < <(python3 - "$report" <<'PYTHON'
import json, sys
text, found = open(sys.argv[1]).read().strip(), []
while text:  # one document for each folder, each a list of frameworks or a single one
    document, end = json.JSONDecoder().raw_decode(text)
    found += document if isinstance(document, list) else [document]
    text = text[end:].strip()
found = [kind for kind in found if "results" in kind]
for kind in found:
    for item in kind["results"]["failed_checks"]:
        where = f'{item["file_path"]}:{item["file_line_range"][0]}'
        print(item["check_id"], item["resource"], where, item["check_name"], file=sys.stderr)
    assert not kind["summary"]["parsing_errors"], f'{kind["check_type"]}: a file could not be read'
print(sum(k["summary"]["passed"] for k in found), sum(k["summary"]["failed"] for k in found))
PYTHON
  )
  rm -f "$report"
  printf '        checkov: %s checks passed, %s failed\n' "${passed:?checkov gave no result}" "$failed_checks"
  ((passed >= 50 && failed_checks == 0))
}

check hadolint hadolint --config infra/docker/hadolint.yaml infra/docker/Dockerfile infra/ci/stand-ins/Dockerfile
check actionlint actionlint
check zizmor zizmor --offline --quiet .github
check shellcheck shellcheck --external-sources "${scripts[@]}"
check yamllint yamllint --strict --config-file infra/ci/yamllint.yaml .github infra pipeline_config.yaml
check gitleaks secrets
check checkov policy
printf 'static checks: %d s\n' "$SECONDS"
((${#failed[@]} == 0)) || { echo "FAILED: ${failed[*]}" >&2 && exit 1; }
