#!/usr/bin/env bash
# Terraform: format, init, validate and test of every module and both environments; then proves that a misspelt argument is caught.
# Where the provider's registry can be reached the real provider answers. Where it cannot, ../shared/tools/tf_check.sh serves a
# stand-in with the provider's schema (6.50.0): names, types and what is required are checked, values and API rules are not.
cd "$(dirname "$0")/../.."
set -euo pipefail
CACHE=${CI_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/aidetect-ci}/terraform
export TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
command -v terraform >/dev/null || { echo "FAILED: terraform is not installed (1.9 or newer)" >&2 && exit 1; }
mkdir -p "$CACHE"

native() { # native DIR: with the real provider
  terraform fmt -check -recursive -diff "$1"
  local root
  while read -r root; do
    echo "== ${root#"$1"/}"
    (
      cd "$root"
      terraform init -backend=false -input=false -no-color >/dev/null
      terraform validate -no-color
      if compgen -G '*.tftest.hcl' >/dev/null; then terraform test -no-color; fi
    )
  done < <(find "$1" -name versions.tf -not -path '*/.terraform/*' -printf '%h\n' | sort)
}
if [ -f ../shared/tools/tf_check.sh ]; then
  verify() { bash ../shared/tools/tf_check.sh "$1" "$CACHE"; }
else
  verify() { native "$1"; }
fi

verify infra/terraform

if [ -f "$CACHE/google.json" ]; then
  python3 infra/ci/terraform_plans.py
  git diff --exit-code --stat -- tests/fakes/plans || { echo "FAILED: the plans that the tests read are stale; commit these" >&2 && exit 1; }
  python3 infra/ci/terraform_plans.py again
fi

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
cp infra/terraform/modules/secrets/*.tf "$planted/"
sed -i 's/^  secret_id = /  secret_idd = /' "$planted/main.tf"
terraform fmt "$planted" >/dev/null
if verify "$planted" >"$planted/log" 2>&1; then
  echo "FAILED: a misspelt argument passed" >&2
  exit 1
fi
grep -q 'secret_idd' "$planted/log" || { echo "FAILED: the misspelt argument is not what was refused:" >&2 && cat "$planted/log" >&2 && exit 1; }
printf 'terraform: everything holds, a misspelt argument is refused (%d s)\n' "$SECONDS"
