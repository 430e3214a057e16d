"""Runs every workflow with act in the situations of workflow_scenarios.yaml and asserts what ran, in what order.

What is real: the workflow files, composite actions and reusable workflows, conditions, outputs, `run` lines. What
stands in: the third-party actions (each one of ours that checks its inputs and gives fixed outputs), `gh`, and the
commands `make` and `aidetect`, which write down how they were called. A target that the Makefile lacks, or a flag that
`aidetect VERB --help` does not list, fails there. Not rehearsed: OIDC, environments, protection, the real actions.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = Path(__file__).with_name("workflow_scenarios.yaml")
DIGEST = "sha256:" + "ab" * 32
USES = re.compile(r"uses:\s+([\w.-]+/[\w.-]+(?:/[\w./-]+)?)@([0-9a-f]{40})\s")
OUTPUTS = {
    "docker/build-push-action": {"digest": DIGEST},
    "google-github-actions/auth": {"access_token": "no-access-token"},
}
REQUIRED_INPUTS = {
    "docker/build-push-action": ["context", "file", "target", "push", "tags"],
    "google-github-actions/auth": ["workload_identity_provider", "service_account"],
    "docker/login-action": ["registry", "username", "password"],
    "anchore/sbom-action": ["image", "output-file"],
    "actions/attest-build-provenance": ["subject-name", "subject-digest"],
    "actions/attest-sbom": ["subject-name", "subject-digest", "sbom-path"],
    "actions/upload-artifact": ["name", "path"],
}
VARS = {
    "GCP_PROJECT": "project",
    "GCP_REGION": "europe-west1",
    "GCP_WORKLOAD_IDENTITY_PROVIDER": "provider",
    "GCP_BUILD_SERVICE_ACCOUNT": "build@project",
    "GCP_DEPLOY_SERVICE_ACCOUNT": "deploy@project",
    "GCP_TRAIN_SERVICE_ACCOUNT": "train@project",
    "GCP_PREVIEW_SERVICE_ACCOUNT": "preview@project",
    "PIPELINE_SERVICE_ACCOUNT": "pipeline@project",
    "DATA_URI": "gs://bucket/data",
    "PIPELINE_BUCKET": "gs://bucket",
    "IMAGE_REGISTRY": "registry.test",
    "IMAGE_REPOSITORY": "registry.test/project/images",
    "LEDGER_URI": "gs://bucket/promotions.jsonl",
    "MLFLOW_TRACKING_URI": "https://mlflow.test",
    "PREVIEW_SERVICE": "service-preview",
    "PREVIEW_KEYS": "preview-keys",
    "SERVICE_URL": "https://service.test",
    "TORCH_CPU_INDEX": "https://index.test/cpu",
    "TORCH_CUDA_INDEX": "https://index.test/cuda",
}

MAKE = """#!/usr/bin/env bash
set -eu
echo "make $*" >> "$CALLS"
case "$1" in -*) echo "make stand-in: flags are not expected: $*" >&2; exit 2;; esac
if [ "$1" != .venv/.installed ] && ! grep -qE "^$1:" Makefile; then
  echo "make stand-in: the Makefile has no target $1" >&2
  exit 2
fi
if [ "$1" = compile ]; then mkdir -p build; echo '{}' > build/pipeline.json; fi
"""
AIDETECT = """#!/usr/bin/env bash
set -eu
echo "aidetect $*" >> "$CALLS"
env | grep '^AIDETECT_' | sort >> "$CALLS.env"
[ -z "${REAL_AIDETECT:-}" ] || python3 "$CHECK_FLAGS" "$REAL_AIDETECT" "$@"
if [ "$1" = "${FAILING_VERB:-}" ]; then exit "$FAILING_CODE"; fi
case " $* " in
  *" --dry-run "*) echo '{"decision": {"retrain": true}}' ;;
  *" --json "*) echo '{"url": "https://pr-7---service.test"}' ;;
esac
"""
GH = """#!/usr/bin/env bash
echo "gh $*" >> "$CALLS"
"""
SUDO = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
CHECK_FLAGS = '''"""Fails when a verb or flag of the call is not in `aidetect VERB --help`."""
import subprocess, sys
real, verb, *arguments = sys.argv[1:]
environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "250"}
shown = subprocess.run([real, verb, "--help"], capture_output=True, text=True, env=environment)
if shown.returncode:
    sys.exit(f"aidetect has no verb {verb!r}")
unknown = [a for a in arguments if a.startswith("--") and a not in shown.stdout]
if unknown:
    sys.exit(f"aidetect {verb} has no {', '.join(unknown)}")
'''


@dataclass(frozen=True)
class Scenario:
    """One event, and what must come of it: an entry of workflow_scenarios.yaml."""

    name: str
    workflow: str
    event: str
    payload: dict[str, Any] = field(default_factory=dict)
    failing: tuple[str, int] = ("", 0)
    succeeds: bool = True
    calls: tuple[str, ...] = ()
    """Pieces of the recorded calls; they must appear in this order."""
    in_any_order: bool = False
    never: tuple[str, ...] = ()

    @classmethod
    def load_all(cls) -> "list[Scenario]":
        """Every scenario, with IMAGE spelt out."""
        text = SCENARIOS.read_text().replace("IMAGE", VARS["IMAGE_REPOSITORY"] + "/serving@" + DIGEST)
        return [cls(**entry) for entry in yaml.safe_load(text)]


def git(folder: Path, *arguments: str) -> None:
    """One git command, as nobody in particular."""
    subprocess.run(
        ["git", "-c", "user.name=act", "-c", "user.email=act@localhost", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def stand_in(folder: Path, action: str) -> None:
    """A git repository with an action that checks its inputs and answers with fixed outputs."""
    folder.mkdir(parents=True)
    outputs, inputs = OUTPUTS.get(action, {}), REQUIRED_INPUTS.get(action, [])
    lines = ["name: stand-in", f"description: stands in for {action}", "inputs:" if inputs else "inputs: {}"]
    lines += [f"  {name}: {{description: given, required: true}}" for name in inputs]
    lines += ["outputs:" if outputs else "outputs: {}"]
    lines += [f"  {name}: {{description: fixed, value: '{value}'}}" for name, value in outputs.items()]
    lines += ["runs:", "  using: composite", "  steps:"]
    for number, name in enumerate(inputs):
        lines += [
            "    - shell: bash",
            f"      env: {{VALUE: '${{{{ inputs.{name} }}}}'}}",
            f'      run: test -n "$VALUE" # {number}: {name}',
        ]
    lines += ["    - {shell: bash, run: 'true'}"]
    (folder / "action.yml").write_text("\n".join(lines) + "\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "stand-in")


def used_actions() -> set[tuple[str, str]]:
    """Every third-party action that a workflow or composite action names, with its sha."""
    files = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob(".github/actions/*/action.yml")]
    return {match for file in files for match in USES.findall(file.read_text() + "\n")}


def prepare(work: Path, real_aidetect: str) -> tuple[list[str], dict[str, str]]:
    """The checkout that act runs in, its stand-ins and stand-in commands; returns act's arguments and environment."""
    repo, commands = work / "repo", work / "bin"
    repo.mkdir()
    commands.mkdir()
    shutil.copytree(ROOT / ".github", repo / ".github")
    shutil.copy(ROOT / "Makefile", repo)
    git(repo, "init", "-q", "-b", "main")
    git(repo, "remote", "add", "origin", "https://github.com/owner/repo.git")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "rehearsal")
    for name, text in {"make": MAKE, "aidetect": AIDETECT, "gh": GH, "sudo": SUDO}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (work / "check_flags.py").write_text(CHECK_FLAGS)
    arguments = ["-P", "ubuntu-24.04=-self-hosted", "--no-cache-server"]
    for action, sha in sorted(used_actions()):
        folder = work / "actions" / action / sha
        if not folder.exists():
            stand_in(folder, action)
        arguments += ["--local-repository", f"{action}@{sha}={folder}"]
    for name, value in VARS.items():
        arguments += ["--var", f"{name}={value}"]
    arguments += ["-s", "GITHUB_TOKEN=no-token", "-s", "SMOKE_API_KEY=no-key"]
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",  # noqa: TID251 - a check of CI, not the product
        "HOME": str(work),
        "XDG_CACHE_HOME": str(work / "cache"),
        "XDG_CONFIG_HOME": str(work / "config"),
        "CHECK_FLAGS": str(work / "check_flags.py"),
        "REAL_AIDETECT": real_aidetect,
    }
    return arguments, environment


def rehearse(
    scenario: Scenario, work: Path, arguments: list[str], environment: dict[str, str], verbose: bool
) -> list[str]:
    """Run one scenario; returns what was wrong with it."""
    calls = work / "calls.txt"
    calls.write_text("")
    event = work / "event.json"
    event.write_text(json.dumps(scenario.payload))
    verb, code = scenario.failing
    environment = {**environment, "CALLS": str(calls), "FAILING_VERB": verb, "FAILING_CODE": str(code)}
    done = subprocess.run(
        ["act", scenario.event, "-W", f".github/workflows/{scenario.workflow}", "-e", str(event), *arguments],
        cwd=work / "repo", env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    log = done.stdout + done.stderr
    if verbose:
        sys.stdout.write(log)
    wrong = _compare(scenario, calls.read_text())
    if (done.returncode == 0) != scenario.succeeds:
        wrong.insert(0, f"ended {'well' if done.returncode == 0 else 'badly'}")
    if wrong:
        wrong += ["recorded calls:", *("  " + line for line in calls.read_text().splitlines())]
        telling = ("❌", "rror", "stand-in:")
        wrong += ["act:", *("  " + line for line in log.splitlines() if any(word in line for word in telling))]
    return wrong


def _compare(scenario: Scenario, recorded: str) -> list[str]:
    """What of the expected calls is missing or out of order, and what ran that must not."""
    wrong, position = [], 0
    for piece in scenario.calls:
        found = recorded.find(piece, 0 if scenario.in_any_order else position)
        if found < 0:
            wrong.append(f"{piece!r} did not run{' in its place' if piece in recorded else ''}")
        else:
            position = found
    return wrong + [f"{piece!r} ran" for piece in scenario.never if piece in recorded]


def main() -> int:
    """Run the scenarios chosen; 1 when any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="run only the scenarios whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="print act's own output")
    options = parser.parse_args()
    real = ROOT / ".venv/bin/aidetect"
    if not real.exists():
        sys.stderr.write("FAILED: .venv/bin/aidetect is missing; run: make .venv/.installed\n")
        return 1
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        arguments, environment = prepare(Path(folder), str(real))
        for scenario in Scenario.load_all():
            if options.only not in scenario.name:
                continue
            wrong = rehearse(scenario, Path(folder), arguments, environment, options.verbose)
            lines = [f"{'FAILED' if wrong else 'ok    '}  {scenario.name}", *wrong]
            sys.stdout.write("\n        ".join(lines) + "\n")
            sys.stdout.flush()
            bad += bool(wrong)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
